"""One application and one deployment for all tests of this folder; each test finds the application well behaved."""

import secrets
from collections.abc import Iterator

import pytest

from tests.support.cluster import ServiceProcess
from tests.support.deployment import Deployment
from tests.support.hook_application import HookApplication
from tidings_cli.local.servers import NatsServer, RedisServer


@pytest.fixture(scope="session")
def running_application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HookApplication]:
    with HookApplication(tmp_path_factory.mktemp("application") / "application.log") as running:
        yield running


@pytest.fixture
def application(running_application: HookApplication) -> HookApplication:
    running_application.behave()
    return running_application


@pytest.fixture(scope="session")
def deployment(
    running_application: HookApplication,
    nats_server: NatsServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """Two gateways that ask the application about everything, and know no keys of tokens."""
    with Deployment(
        tmp_path_factory.mktemp("gateways"),
        nats_url=nats_server.url,
        redis_url=redis_server.url,
        prefix=f"h{secrets.token_hex(4)}",
        auth="jwt",
        api_keys="the-servers-key",
        hooks="connect,join,publish,rpc",
        presence_grace_s=0.5,
        **running_application.settings,  # type: ignore[arg-type]
    ) as running:
        yield running


@pytest.fixture
def gateways(deployment: Deployment) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    """Return the two gateways, and fail where one logged a fault of ours during the test."""
    before = len(deployment.faults())
    yield deployment.gateways[0], deployment.gateways[1]
    faults = [fault for fault in deployment.faults()[before:] if "a hook failed" not in fault]
    assert faults == []


@pytest.fixture
def room() -> str:
    """A room that no other test has."""
    return f"room-{secrets.token_hex(4)}"
