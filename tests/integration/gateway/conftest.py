"""One deployment for all tests of this folder: two gateways, presence and metrics. Rooms are named per test."""

import secrets
from collections.abc import Iterator

import pytest

from tests.support.cluster import ServiceProcess
from tests.support.deployment import Deployment
from tidings_cli.local.servers import NatsServer, RedisServer


@pytest.fixture(scope="session")
def deployment(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with Deployment(
        tmp_path_factory.mktemp("gateways"),
        nats_url=nats_server.url,
        redis_url=redis_server.url,
        prefix=f"g{secrets.token_hex(4)}",
        presence_grace_s=0.5,
    ) as deployment:
        yield deployment


@pytest.fixture
def gateways(deployment: Deployment) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    """Return the two gateways, and fail where one logged a fault of ours during the test."""
    before = len(deployment.faults())
    yield deployment.gateways[0], deployment.gateways[1]
    assert deployment.faults()[before:] == []


@pytest.fixture
def room() -> str:
    """A room that no other test has."""
    return f"room-{secrets.token_hex(4)}"
