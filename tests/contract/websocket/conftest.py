"""One gateway for the tests of frames; a test that ends with a fault in its log fails."""

from collections.abc import Iterator

import pytest

from tests.support.cluster import ServiceProcess
from tests.support.deployment import Deployment
from tidings_cli.local.servers import NatsServer, RedisServer


@pytest.fixture(scope="module")
def deployment(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with Deployment(
        tmp_path_factory.mktemp("frames"),
        gateways=1,
        services=False,
        nats_url=nats_server.url,
        redis_url=redis_server.url,
        prefix="frames",
    ) as deployment:
        yield deployment
        assert deployment.faults() == []


@pytest.fixture(scope="module")
def gateway(deployment: Deployment) -> ServiceProcess:
    return deployment.gateways[0]
