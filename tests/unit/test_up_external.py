"""Required versions of servers, and the messages about older ones."""

import asyncio
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from services.servers import Version, parse_version
from services.settings import Settings
from tidings_cli.local import binaries
from tidings_cli.local.binaries import Binary, NoBinary
from tidings_cli.local.external import (
    UnusableServer,
    check_nats_info,
    check_redis_info,
    probe_nats,
    probe_redis,
)
from tidings_cli.local.servers import RedisServer


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("nats-server: v2.15.1\n", (2, 15, 1)),
        ("nats-server: v2.11.0-RC.2\n", (2, 11, 0)),
        ("Redis server v=8.2.3 sha=b5d43ceb:0 malloc=jemalloc-5.3.0 bits=64 build=a4a1\n", (8, 2, 3)),
        ("Valkey server v=8.1.1 sha=00000000:0 malloc=jemalloc bits=64\n", (8, 1, 1)),
        ("zsh: exec format error\n", ()),
    ],
)
def test_versions_are_read_as_programs_print_them(text: str, version: Version) -> None:
    assert parse_version(text) == version


def program(folder: Path, name: str, prints: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def without_wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], Binary]:
    """Only `tmp_path` is searched."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binaries.sysconfig, "get_path", lambda _name: str(tmp_path / "no-scripts"))
    monkeypatch.setattr(binaries.importlib.util, "find_spec", lambda _name: None)
    binaries.redis_binary.cache_clear()
    yield binaries.redis_binary
    binaries.redis_binary.cache_clear()


def test_a_server_on_the_path_comes_first(without_wheels: Callable[[], Binary], tmp_path: Path) -> None:
    path = program(tmp_path, "redis-server", "Redis server v=7.0.15 sha=0")
    assert without_wheels() == Binary(path, (7, 0, 15), "PATH")


def test_an_old_server_is_passed_over(without_wheels: Callable[[], Binary], tmp_path: Path) -> None:
    program(tmp_path, "redis-server", "Redis server v=5.0.7 sha=0")
    path = program(tmp_path, "valkey-server", "Valkey server v=8.1.1 sha=0")
    assert without_wheels() == Binary(path, (8, 1, 1), "PATH")


def test_without_a_server_the_found_ones_and_the_fix_are_named(
    without_wheels: Callable[[], Binary], tmp_path: Path
) -> None:
    path = program(tmp_path, "redis-server", "Redis server v=5.0.7 sha=0")
    with pytest.raises(NoBinary) as caught:
        without_wheels()
    message = str(caught.value)
    assert f"no redis-server or valkey-server 6.2 or newer was found ({path} is 5.0.7)" in message
    assert "redis" in message.split("Install")[1]
    assert "TIDINGS_REDIS_URL" in message


@pytest.mark.parametrize(
    ("system", "machine", "python", "advice"),
    [
        ("Linux", "x86_64", (3, 14), "does not exist for Python 3.14"),
        ("Darwin", "x86_64", (3, 12), "does not exist for Intel Macs"),
        ("Darwin", "arm64", (3, 12), "brew install redis"),
        ("Linux", "x86_64", (3, 12), "tidings[local]"),
    ],
)
def test_advice_fits_the_machine(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, python: tuple[int, int], advice: str
) -> None:
    monkeypatch.setattr(binaries.platform, "system", lambda: system)
    monkeypatch.setattr(binaries.platform, "machine", lambda: machine)
    monkeypatch.setattr(binaries.sys, "version_info", python)
    assert advice in binaries._redis_advice()


def test_nats_is_judged_by_its_info() -> None:
    assert check_nats_info({"version": "2.11.0-RC.1", "jetstream": True}, "h:1").version == (2, 11, 0)
    with pytest.raises(
        UnusableServer, match=r"NATS at h:1 \(TIDINGS_NATS_URL\) is 2\.10\.29; 2\.11 or newer"
    ):
        check_nats_info({"version": "2.10.29", "jetstream": True}, "h:1")
    with pytest.raises(UnusableServer, match="runs without JetStream"):
        check_nats_info({"version": "2.15.1"}, "h:1")
    with pytest.raises(UnusableServer, match="is of unknown version"):
        check_nats_info({}, "h:1")


def test_redis_is_judged_by_its_info() -> None:
    assert check_redis_info({"redis_version": "6.2.0"}, "h:1").product == "Redis"
    valkey = check_redis_info({"redis_version": "7.2.4", "valkey_version": "8.1.1"}, "h:1")
    assert (valkey.product, valkey.version) == ("Valkey", (8, 1, 1))
    with pytest.raises(UnusableServer, match=r"Redis at h:1 \(TIDINGS_REDIS_URL\) is 6\.0\.20"):
        check_redis_info({"redis_version": "6.0.20"}, "h:1")


async def served(says: bytes) -> tuple[asyncio.Server, str]:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    return server, f"{host}:{port}"


async def test_an_old_nats_is_named() -> None:
    info = json.dumps({"version": "2.9.0", "jetstream": True}).encode()
    server, address = await served(b"INFO " + info + b"\r\n")
    async with server:
        with pytest.raises(UnusableServer, match=r"is 2\.9\.0"):
            await probe_nats(f"nats://user:secret@{address}")


async def test_something_that_is_no_nats_is_named() -> None:
    server, address = await served(b"SSH-2.0-OpenSSH_9.6\r\n")
    async with server:
        with pytest.raises(UnusableServer, match="is not a NATS server"):
            await probe_nats(address)


async def test_a_redis_behind_another_password_is_named_without_it(redis_server: RedisServer) -> None:
    with pytest.raises(UnusableServer) as caught:
        await probe_redis(Settings(redis_url=f"redis://default:wrong-one@127.0.0.1:{redis_server.port}/0"))
    assert "wrong-one" not in str(caught.value)
    assert f"cannot use Redis at 127.0.0.1:{redis_server.port}" in str(caught.value)
