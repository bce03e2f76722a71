"""NATS, Redis and Sentinel with the configuration files of `deploy/compose.prod.yaml`, as processes of this machine.

In containers, all together and Redis with TLS, tests/image runs them: the embedded redis-server is built without TLS.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from services.bus.client import Bus
from services.bus.errors import BusError, Misconfigured, Unavailable
from services.permissions import Role
from services.settings import Settings
from tests.support.cluster import aside
from tests.support.deadline import PATIENCE_S, wait_until
from tests.support.docs import ROOT
from tests.support.requires import need
from tidings_cli.local.processes import free_port
from tidings_cli.secret_files import SecretFiles

MOUNTED = {
    "ca": "ca.pem",
    "nats_certificate": "nats.pem",
    "nats_key": "nats.key",
    "nats_users": "nats_users.conf",
    "redis_certificate": "redis.pem",
    "redis_key": "redis.key",
    "redis_users": "redis_users.acl",
    "redis_replication": "redis_replication.conf",
    "sentinel_passwords": "sentinel_passwords.conf",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a container finds at `/etc` and `/run/secrets`."""
    place = tmp_path_factory.mktemp("container")
    list(SecretFiles(place / "kept", Settings(), "localhost").write())
    mounted = place / "run" / "secrets"
    mounted.mkdir(parents=True)
    for name, file in MOUNTED.items():
        (mounted / name).symlink_to(place / "kept" / file)
    return place


def in_place(place: Path, file: str, **changes: str) -> Path:
    """Return a configuration file of `deploy/` with its paths, and the ports it names, moved to where we run it."""
    text = (ROOT / "deploy" / file).read_text().replace('"/run/', f'"{place}/run/')
    text = text.replace(" /run/", f" {place}/run/").replace('"/data"', f'"{place}/data"')
    for before, after in changes.items():
        assert before in text, before
        text = text.replace(before, after)
    moved = place / "etc" / file
    moved.parent.mkdir(parents=True, exist_ok=True)
    moved.write_text(text)
    return moved


@contextmanager
def running(*command: str, cwd: Path, **environment: str) -> Iterator[None]:
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


# --- NATS -------------------------------------------------------------------------------------------------------------


def cluster_conf(place: Path, port: int) -> Path:
    return in_place(
        place,
        "nats/cluster.conf",
        **{"0.0.0.0:4222": f"127.0.0.1:{port}", "0.0.0.0:6222": "127.0.0.1:-1", "127.0.0.1:8222": "127.0.0.1:-1"},
    )  # fmt: skip


def test_nats_reads_it(place: Path) -> None:
    done = subprocess.run(
        [need("nats-server"), "-t", "-c", str(cluster_conf(place, 4222))],
        env={"NATS_SERVER_NAME": "nats-1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


async def test_nats_accepts_clients_with_a_user_and_tls(place: Path) -> None:
    port = free_port()
    program = need("nats-server")
    server = running(program, "-c", str(cluster_conf(place, port)), cwd=place, NATS_SERVER_NAME="nats-1")
    url = (
        (place / "kept" / "agent_nats_url")
        .read_text()
        .split(",")[0]
        .replace("nats-1:4222", f"localhost:{port}")
    )
    known: dict[str, Any] = {"nats_url": url, "nats_ca": place / "kept" / "ca.pem", "bus_connect_s": 10}
    await aside(server.__enter__)
    try:
        bus = await Bus.connect(Settings(**known), "test", role=Role.AGENT)
        bus.publish("tidings.control", b"not an agent's to say")
        with pytest.raises(Misconfigured, match="permissions violation"):
            await bus.flush()
        await bus.close()
        for wrong in (
            {"nats_url": url.replace("agent:", "agent:x")},
            {"nats_url": url.replace("tls://", "nats://"), "nats_ca": None},
            {"nats_ca": None},
        ):
            with pytest.raises((BusError, Unavailable)):
                await Bus.connect(Settings(**(known | wrong | {"bus_connect_s": 1})), "test")
    finally:
        server.__exit__(None, None, None)


# --- Redis ------------------------------------------------------------------------------------------------------------


def without_tls(place: Path, file: str, port: int) -> Path:
    """Return a configuration file of Redis, listening in the clear on a port of loopback."""
    moved = in_place(place, file)
    kept = [
        line
        for line in moved.read_text().splitlines()
        if not line.startswith(("tls-", "port ", "protected-"))
    ]
    moved.write_text("\n".join([*kept, "bind 127.0.0.1", f"port {port}", ""]))
    return moved


def test_redis_and_a_sentinel_know_their_users(place: Path, tmp_path: Path) -> None:
    program = need("redis-server")
    port, watching = free_port(), free_port()
    configured = without_tls(place, "redis/redis.conf", port)
    watched = without_tls(place, "redis/sentinel.conf", watching)
    kept = tmp_path / "sentinel.conf"
    kept.write_text(f"sentinel resolve-hostnames yes\nsentinel monitor tidings localhost {port} 2\n")

    def answers(port: int, **login: str) -> bool:
        try:
            with redis.Redis(port=port, **login) as client:  # type: ignore[arg-type]
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    with (
        running(program, str(configured), "--dir", str(tmp_path), cwd=tmp_path),
        running(program, str(kept), "--sentinel", "--include", str(watched), cwd=tmp_path),
    ):
        operator = {"username": "tidings", "password": _password(place, "redis_operator")}
        wait_until(lambda: answers(port, **operator), "redis to answer")
        with redis.Redis(port=port) as nobody, pytest.raises(redis.AuthenticationError):
            nobody.ping()
        with redis.Redis(port=port, username="probe", password="any") as probe:
            assert probe.execute_command("ROLE")[0] == b"master"
            for command in (("GET", "x"), ("INFO",), ("CONFIG", "GET", "*"), ("ACL", "LIST")):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    probe.execute_command(*command)
        forbidden = {
            "presence": (("GET", "{tidings:metrics}:x"), ("FLUSHALL",), ("CONFIG", "GET", "*")),
            "metrics": (("GET", "{tidings:presence}:x"), ("KEYS", "*")),
            "replica": (("GET", "{tidings:presence}:x"), ("SET", "x", "1"), ("CONFIG", "GET", "*")),
            "sentinel": (("GET", "{tidings:presence}:x"), ("FLUSHALL",), ("CONFIG", "SET", "dir", "/")),
        }
        for user, commands in forbidden.items():
            with redis.Redis(port=port, username=user, password=_password(place, f"redis_{user}")) as client:
                assert client.ping()
                for command in commands:
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        client.execute_command(*command)
        login = {"password": _password(place, "sentinel")}
        wait_until(lambda: answers(watching, **login), "the sentinel to answer")
        with redis.Redis(port=watching) as nobody, pytest.raises(redis.AuthenticationError):
            nobody.ping()
        with redis.Redis(port=watching, **login) as sentinel:  # type: ignore[arg-type]
            # It learns this by INFO, as its user at the master.
            wait_until(
                lambda: sentinel.sentinel_masters()["tidings"]["runid"], "the sentinel to know its master"
            )


def _password(place: Path, name: str) -> str:
    return str(json.loads((place / "kept" / "passwords.json").read_text())[name])
