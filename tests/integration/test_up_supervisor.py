"""The supervisor over small programs: start, restart, order, limits, and no orphans."""

import asyncio
import io
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from services.lifecycle import EXIT_BAD_SETTINGS, EXIT_CANNOT_START
from tests.support.deadline import PATIENCE_S, eventually, wait_until
from tests.support.requires import need
from tidings_cli.local import supervisor as supervision
from tidings_cli.local.console import Console
from tidings_cli.local.processes import ChildProcess, ProcessChild, ProcessSpec
from tidings_cli.local.servers import RedisServer
from tidings_cli.local.supervisor import (
    EXIT_FAILED,
    CannotRun,
    Supervisor,
    describe_end,
    supervise,
)

# Becomes ready like every process of ours, and ends on request: `stubborn` ignores SIGTERM, `crash` ends soon.
_PROGRAM = """
import os, signal, sys
from services.health import HealthServer
from services.lifecycle import run

async def main(settings, lifecycle):
    behaviour, journal = sys.argv[1:3]
    if behaviour == "crash":
        print("cannot go on", flush=True)
        os._exit(int(sys.argv[3]))
    server = HealthServer(settings, "test", {})
    await server.start()
    print("x" * 100_000, flush=True)
    print("last words\\u202e", end="", flush=True)
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    await lifecycle.stopped()
    with open(journal, "a") as file:
        file.write(settings.instance + "\\n")

run("agent", main)
"""


class Stage:
    """A supervisor under test, what it shows, and what its children wrote when they ended."""

    def __init__(self, folder: Path) -> None:
        self.journal = folder / "journal"
        self.output = io.StringIO()
        self.console = Console(self.output)
        self.children: list[ChildProcess] = []

    def child(self, name: str, behaviour: str = "good", *extra: str, stop_s: float = 5.0) -> ProcessChild:
        command = [sys.executable, "-c", _PROGRAM, behaviour, str(self.journal), *extra]
        child = ProcessChild(
            ProcessSpec(name, command, {"TIDINGS_LOG_LEVEL": "error"}, stop_s), self.console.child_line
        )
        self.children.append(child)
        return child

    def server(self, server: RedisServer) -> RedisServer:
        server.fix_port()
        self.children.append(server)
        return server

    def shown(self, text: str) -> Callable[[], bool]:
        return lambda: text in self.output.getvalue()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    for child in stage.children:
        assert child.returncode is not None, f"{child.name} was left behind"


async def test_starts_in_groups_and_stops_in_the_order_given(stage: Stage) -> None:
    gateway, service = stage.child("gateway"), stage.child("service")
    supervisor = Supervisor([[service, gateway]], [[gateway], [service]], stage.console)
    assert await supervisor.start()
    assert await supervisor.stop()
    assert stage.journal.read_text().split() == ["gateway", "service"]
    assert (gateway.returncode, service.returncode) == (0, 0)
    lines = stage.output.getvalue().splitlines()
    assert any(line.startswith("gateway     │ last words") for line in lines)


async def test_services_not_started_yet_are_not_waited_for(stage: Stage) -> None:
    broker = stage.child("broker")
    gateway = ProcessChild(ProcessSpec("gateway", ["never", "started"]), stage.console.child_line)
    supervisor = Supervisor([[broker], [gateway]], [[gateway], [broker]], stage.console)
    starting = asyncio.create_task(supervisor.start())
    await eventually(lambda: broker.pid, "the broker's start")
    supervisor.stopping.set()
    assert not await starting
    async with asyncio.timeout(PATIENCE_S):
        await supervisor.stop()
    assert gateway.pid == 0


async def test_a_crashed_child_is_restarted(stage: Stage) -> None:
    child = stage.child("gateway")
    supervisor = Supervisor([[child]], [[child]], stage.console)
    assert await supervisor.start()
    pid = child.pid
    child.kill()
    await eventually(stage.shown("gateway is back"), "the restart")
    assert "gateway was killed by SIGKILL; starting it again in 0." in stage.output.getvalue()
    assert child.pid != pid
    assert await supervisor.stop()


async def test_an_embedded_broker_restarts_on_its_port(stage: Stage, tmp_path: Path) -> None:
    need("redis-server")
    server = RedisServer(tmp_path / "redis")
    child = stage.server(server)
    supervisor = Supervisor([[child]], [[child]], stage.console)
    assert await supervisor.start()
    port = server.port
    child.kill()
    await eventually(stage.shown("redis-server is back"), "the restart")
    assert server.port == port
    assert server.ready()
    assert await supervisor.stop()


async def test_a_child_that_does_not_stop_is_killed_after_its_limit(stage: Stage) -> None:
    child = stage.child("stubborn", "stubborn", stop_s=0.3)
    supervisor = Supervisor([[child]], [[child]], stage.console)
    assert await supervisor.start()
    assert not await supervisor.stop()
    assert "stubborn did not stop within 0.3 s and was killed" in stage.output.getvalue()


async def test_a_child_that_never_starts_ends_everything(stage: Stage) -> None:
    good, bad = stage.child("good"), stage.child("bad", "crash", "7")
    supervisor = Supervisor([[good, bad]], [[good, bad]], stage.console)
    with pytest.raises(CannotRun, match="bad does not start: it ended with code 7") as caught:
        await supervisor.start()
    assert "cannot go on" in caught.value.tail
    await supervisor.stop()
    assert stage.output.getvalue().count("cannot go on") == 3


@pytest.mark.parametrize("code", [EXIT_BAD_SETTINGS, EXIT_CANNOT_START])
async def test_a_child_that_cannot_work_is_not_started_again_and_has_the_last_word(
    stage: Stage, code: int
) -> None:
    good, bad = stage.child("good"), stage.child("bad", "crash", str(code))
    supervisor = Supervisor([[good, bad]], [[good, bad]], stage.console)
    assert await supervise(supervisor, stage.console, "ready") == EXIT_FAILED
    said = stage.output.getvalue().splitlines()
    assert sum(line.startswith("bad ") for line in said) == 1
    assert said[-1] == "  ! bad does not start: cannot go on"


async def test_a_child_that_is_never_ready_ends_everything(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "_READY_S", 0.2)
    child = ProcessChild(
        ProcessSpec("mute", [sys.executable, "-c", "import time; time.sleep(60)"]), stage.console.child_line
    )
    stage.children.append(child)
    supervisor = Supervisor([[child]], [[child]], stage.console)
    with pytest.raises(CannotRun, match=r"mute is not ready after 0\.2 s"):
        await supervisor.start()
    await supervisor.stop()


async def test_a_stop_while_starting_ends_everything(stage: Stage) -> None:
    child = stage.child("gateway")
    supervisor = Supervisor([[child]], [[child]], stage.console)
    asyncio.get_running_loop().call_later(0.01, supervisor.stopping.set)
    assert not await supervisor.start()
    await supervisor.stop()


async def test_children_have_no_secret_on_their_command_line(stage: Stage) -> None:
    spec = ProcessSpec(
        "child",
        [sys.executable, "-c", _PROGRAM, "good", str(stage.journal)],
        {"TIDINGS_SESSION_SECRET": "sesame"},
    )
    child = ProcessChild(spec, stage.console.child_line)
    stage.children.append(child)
    supervisor = Supervisor([[child]], [[child]], stage.console)
    assert await supervisor.start()
    process = psutil.Process(child.pid)
    assert "sesame" not in " ".join(process.cmdline())
    assert process.environ()["TIDINGS_SESSION_SECRET"] == "sesame"
    await supervisor.stop()


_SUPERVISOR = """
import asyncio, sys
from tidings_cli.local.processes import ProcessChild, ProcessSpec
from tidings_cli.local.console import Console
from tidings_cli.local.supervisor import Supervisor, supervise

async def main():
    console = Console()
    child = ProcessChild(ProcessSpec("stubborn", sys.argv[1:], stop_s=60), console.child_line)
    return await supervise(Supervisor([[child]], [[child]], console), console, "up")

sys.exit(asyncio.run(main()))
"""


def test_a_second_signal_kills_what_does_not_stop(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PROGRAM, "stubborn", str(tmp_path / "journal")]
    process = subprocess.Popen(
        [sys.executable, "-c", _SUPERVISOR, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert any(line == "up\n" for line in process.stdout)
        [child] = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        assert any(line.startswith("Stopping (SIGINT)") for line in process.stdout)

        def ended() -> bool:
            process.send_signal(signal.SIGINT)  # at first taken for the same Ctrl-C
            return process.poll() is not None

        wait_until(ended, "the end")
        assert process.returncode == 128 + signal.SIGINT
        assert "killed everything" in process.stdout.read()
        wait_until(lambda: not child.is_running(), "the child to be gone")


def test_ends_are_described() -> None:
    assert describe_end(3) == "ended with code 3"
    assert describe_end(-9) == "was killed by SIGKILL"
    assert describe_end(-40) == "was killed by signal 40"
