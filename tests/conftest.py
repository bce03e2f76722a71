"""Real servers, once a session, on free ports; and what keeps tests on them apart."""

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from services.settings import Settings
from tests.support.redis_cluster import RedisCluster
from tests.support.requires import need
from tests.support.stores import PlainRedisServer, ValkeyServer
from tests.support.webhook_receiver import WebhookReceiver
from tidings_cli.local.servers import NatsServer, RedisServer

# Properties claim no time: neither how long an example takes nor how long it takes to make one up.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("brief", settings.get_profile("patient"), max_examples=20)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "patient"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background so, and every process that tests start would be deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _clean_environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests decide what is configured, not the shell and the folder they run in."""
    for name in [name for name in os.environ if name.startswith("TIDINGS_")]:
        del os.environ[name]
    empty = tmp_path_factory.mktemp("configuration") / "tidings.toml"
    empty.touch()
    os.environ["TIDINGS_CONFIG"] = str(empty)  # else a developer's own tidings.toml would be read


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A nats-server with JetStream. Tests that break a server start their own."""
    need("nats-server")
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server. Tests that break a server start their own."""
    need("redis-server")
    with PlainRedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A valkey-server, for what must hold at both."""
    with ValkeyServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def cluster_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A Redis Cluster of three masters, for what must hold there too."""
    need("redis-server")
    with RedisCluster(tmp_path_factory.mktemp("redis-cluster"), password="secret") as servers:
        yield servers


@pytest.fixture
def prefix() -> str:
    """The first token of this test's subjects, streams and keys."""
    return f"t{secrets.token_hex(6)}"


@pytest.fixture
def make_settings(
    nats_server: NatsServer, redis_server: RedisServer, prefix: str, tmp_path: Path
) -> Callable[..., Settings]:
    """Return a function that makes settings for the session's servers and this test's prefix."""

    def make(**overrides: object) -> Settings:
        defaults: dict[str, object] = {
            "nats_url": nats_server.url,
            "redis_url": redis_server.url,
            "prefix": prefix,
            "port": 0,
            "data_dir": tmp_path / "data",
        }
        return Settings(**(defaults | overrides))  # type: ignore[arg-type]

    return make


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """An HTTP server that receives webhooks."""
    with WebhookReceiver() as running:
        yield running
