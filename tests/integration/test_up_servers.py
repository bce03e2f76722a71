"""The embedded servers: start, answer, keep data, port and password, and die with their parent."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis

from tests.support.deadline import wait_until
from tests.support.requires import need
from tidings_cli.local.child_server import LocalServer, ServerFailed
from tidings_cli.local.processes import free_port
from tidings_cli.local.servers import NatsServer, RedisServer


@pytest.fixture(params=[NatsServer, RedisServer], ids=["nats", "redis"])
def kind(request: pytest.FixtureRequest) -> type[LocalServer]:
    need(request.param.name)
    return request.param


def test_starts_again_on_the_same_directory(kind: type[LocalServer], tmp_path: Path) -> None:
    with kind(tmp_path) as first:
        assert first.ready()
        url, pid = first.url, first.pid
    assert not first.ready()
    with kind(tmp_path) as second:
        assert second.url == url
        assert second.pid != pid


def test_takes_another_port_when_its_own_is_taken(kind: type[LocalServer], tmp_path: Path) -> None:
    with kind(tmp_path) as server:
        port = server.port
    with socket.create_server(("127.0.0.1", port)), kind(tmp_path) as server:
        assert server.port != port


def test_restarts_after_a_kill(kind: type[LocalServer], tmp_path: Path) -> None:
    with kind(tmp_path) as server:
        port = server.port
        server.kill()
        assert not server.running
        server.start()
        assert (server.port, server.ready()) == (port, True)


def test_a_paused_server_does_not_answer_and_still_stops(kind: type[LocalServer], tmp_path: Path) -> None:
    with kind(tmp_path) as server:
        server.pause()
        assert not server.ready()
        server.resume()
        server.wait_ready()
        server.pause()
        server.stop()
        assert not server.running


def test_no_secret_is_on_a_command_line_or_readable_by_others(
    kind: type[LocalServer], tmp_path: Path
) -> None:
    with kind(tmp_path) as server:
        assert server.password not in " ".join(psutil.Process(server.pid).cmdline())
        for path in tmp_path.iterdir():
            if path.is_file() and server.password in path.read_text(errors="replace"):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_redis_keeps_what_was_written(tmp_path: Path) -> None:
    need("redis-server")
    with RedisServer(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("greeting", "hello")
        server.stop()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("greeting") == b"hello"


def test_a_failed_start_shows_the_log(tmp_path: Path) -> None:
    need("nats-server")
    server = NatsServer(tmp_path, extra_config="no_such_option: 1")
    with pytest.raises(ServerFailed, match="no_such_option"):
        server.start()


def test_a_free_port_is_kept_for_its_server() -> None:
    """What other programs bind or connect at the same moment does not get it."""
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
        pass


def test_a_fixed_port_that_is_taken_fails(kind: type[LocalServer], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerFailed):
            kind(tmp_path, port=port).start()


_PARENT = """
import sys, pathlib
from tidings_cli.local.servers import {name}
server = {name}(pathlib.Path(sys.argv[1])).start()
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_dies_with_its_parent(kind: type[LocalServer], tmp_path: Path) -> None:
    program = _PARENT.format(name=kind.__name__)
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=os.getcwd(),
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    wait_until(lambda: not psutil.pid_exists(pid), "the server is gone")
