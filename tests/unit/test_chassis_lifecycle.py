"""Lifecycle of a process: order, time limits and exit codes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Self

import pytest
from structlog.testing import capture_logs

from services import lifecycle
from services.bus.errors import Unavailable
from services.lifecycle import Lifecycle, run_main
from services.settings import Settings
from services.tasks import TaskSet
from tests.support.deadline import PATIENCE_S

SETTINGS = Settings()


async def test_steps_run_last_registered_first() -> None:
    order: list[str] = []

    def note(name: str) -> Callable[[], Awaitable[None]]:
        async def step() -> None:
            order.append(name)

        return step

    async def main(settings: Settings, lifecycle: Lifecycle) -> None:
        lifecycle.on_stop("bus", note("bus"), 1)
        lifecycle.on_stop("service", note("service"), 1)
        asyncio.get_running_loop().call_soon(lifecycle.stop, "test")
        await lifecycle.stopped()
        order.append("main")

    assert await run_main(main, SETTINGS, Lifecycle(5)) == 0
    assert order == ["main", "service", "bus"]


async def test_a_step_that_hangs_or_fails_does_not_keep_the_next() -> None:
    done: list[str] = []

    async def hang() -> None:
        await asyncio.sleep(2 * PATIENCE_S)

    async def fail() -> None:
        raise RuntimeError("broken")

    async def finish() -> None:
        done.append("last")

    async def main(settings: Settings, lifecycle: Lifecycle) -> None:
        lifecycle.on_stop("last", finish, 1)
        lifecycle.on_stop("fails", fail, 1)
        lifecycle.on_stop("hangs", hang, 0.05)

    async with asyncio.timeout(PATIENCE_S):
        assert await run_main(main, SETTINGS, Lifecycle(2 * PATIENCE_S)) == 1
    assert done == ["last"]


async def test_all_steps_together_keep_the_deadline() -> None:
    async def hang() -> None:
        await asyncio.sleep(2 * PATIENCE_S)

    async def main(settings: Settings, lifecycle: Lifecycle) -> None:
        for number in range(5):
            lifecycle.on_stop(f"hangs {number}", hang, 2 * PATIENCE_S)

    async with asyncio.timeout(PATIENCE_S):
        assert await run_main(main, SETTINGS, Lifecycle(0.3)) == 1


async def test_a_stop_while_starting_cancels_main() -> None:
    lifecycle = Lifecycle(5)

    async def main(settings: Settings, lifecycle: Lifecycle) -> None:
        await asyncio.sleep(2 * PATIENCE_S)  # a connection that does not come

    asyncio.get_running_loop().call_later(0.05, lifecycle.stop, "test")
    async with asyncio.timeout(PATIENCE_S):
        assert await run_main(main, SETTINGS, lifecycle) == 0


async def test_main_has_time_to_return_once_started() -> None:
    drained: list[bool] = []

    async def main(settings: Settings, lifecycle: Lifecycle) -> None:
        await lifecycle.stopped()
        await asyncio.sleep(0.05)
        drained.append(True)

    lifecycle = Lifecycle(5)
    asyncio.get_running_loop().call_later(0.01, lifecycle.stop, "test")
    assert await run_main(main, SETTINGS, lifecycle) == 0
    assert drained == [True]


async def test_a_main_that_never_returns_is_cancelled() -> None:
    async def main(settings: Settings, lifecycle: Lifecycle) -> None:
        await lifecycle.stopped()
        await asyncio.sleep(2 * PATIENCE_S)

    lifecycle = Lifecycle(0.1)
    asyncio.get_running_loop().call_later(0.01, lifecycle.stop, "test")
    async with asyncio.timeout(PATIENCE_S):
        assert await run_main(main, SETTINGS, lifecycle) == 1


@pytest.mark.parametrize("fault", [RuntimeError("bug"), Unavailable("no bus")])
async def test_a_fault_in_main_ends_in_order_with_1(fault: Exception) -> None:
    closed: list[str] = []

    async def close() -> None:
        closed.append("bus")

    async def main(settings: Settings, lifecycle: Lifecycle) -> None:
        lifecycle.on_stop("bus", close, 1)
        raise fault

    assert await run_main(main, SETTINGS, Lifecycle(5)) == 1
    assert closed == ["bus"]


async def test_fail_from_elsewhere_ends_with_1() -> None:
    async def main(settings: Settings, lifecycle: Lifecycle) -> None:
        asyncio.get_running_loop().call_soon(lifecycle.fail, RuntimeError("a task broke"))
        await lifecycle.stopped()

    assert await run_main(main, SETTINGS, Lifecycle(5)) == 1


_PROGRAM = """
import asyncio, sys
from services.lifecycle import run

async def close():
    sys.stderr.write("closing\\n")
    await asyncio.sleep(float(sys.argv[1]))

async def main(settings, lifecycle):
    lifecycle.on_stop("part", close, 30)
    await lifecycle.stopped()

run("agent", main)
"""


class Child:
    """A process under `run`, with its standard error."""

    def __init__(self, closing_s: float = 0, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(closing_s)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TIDINGS_LOG_FORMAT": "json", **environment},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.__exit__(None, None, None)

    def read_until(self, what: str) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if what in line:
                return
        raise AssertionError(f"ended without {what!r}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_process_in_order_with_0(number: signal.Signals) -> None:
    with Child() as child:
        child.read_until('"event":"started"')
        child.process.send_signal(number)
        child.read_until("closing")
        child.read_until('"event":"stopped"')
        assert child.process.wait(PATIENCE_S) == 0


def test_a_second_signal_ends_it_at_once() -> None:
    with Child(closing_s=30, TIDINGS_SHUTDOWN_S="30") as child:
        child.read_until('"event":"started"')
        child.process.send_signal(signal.SIGTERM)
        child.read_until("closing")
        child.process.send_signal(signal.SIGTERM)
        child.read_until("second signal (SIGTERM): ending now")
        assert child.process.wait(PATIENCE_S) == 128 + signal.SIGTERM


def test_bad_settings_end_with_2_and_name_the_variable() -> None:
    with Child(TIDINGS_PORT="99999") as child:
        child.read_until("TIDINGS_PORT: Input should be less than or equal to 65535")
        assert child.process.wait(PATIENCE_S) == 2


def test_a_missing_configuration_file_ends_with_2() -> None:
    with Child(TIDINGS_CONFIG="/nowhere/tidings.toml") as child:
        child.read_until("configuration: TIDINGS_CONFIG names /nowhere/tidings.toml, which does not exist")
        assert child.process.wait(PATIENCE_S) == 2


def test_the_limit_of_open_files_is_raised() -> None:
    program = """
import resource, services.lifecycle as lifecycle
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 3000))
print(lifecycle.raise_file_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3000", "3000", "3000"]


async def _raises() -> None:
    raise LookupError("broken")


async def _waits() -> None:
    await asyncio.Event().wait()


async def test_a_critical_task_that_ends_ends_the_process() -> None:
    for work, cancelled in ((_raises, False), (_waits, True)):

        async def main(settings: Settings, lifecycle: Lifecycle) -> None:
            task = TaskSet(lifecycle.fail).spawn(work(), "loop", critical=True)  # noqa: B023  # run at once
            if cancelled:  # noqa: B023
                asyncio.get_running_loop().call_soon(task.cancel)
            await lifecycle.stopped()

        lifecycle = Lifecycle(5)
        assert await run_main(main, SETTINGS, lifecycle) == 1
        assert lifecycle.failed


async def test_tasks_that_are_not_critical_or_closed_fail_no_owner() -> None:
    faults: list[BaseException] = []
    tasks = TaskSet(faults.append)
    await asyncio.wait([tasks.spawn(_raises(), "once")])
    tasks.spawn(_waits(), "loop", critical=True)
    await tasks.close()
    await tasks.close()
    assert faults == []
    assert len(tasks) == 0


def test_a_tls_connection_that_is_lost_in_mid_write_is_no_fault_of_the_process() -> None:
    lost = RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
    loop = asyncio.new_event_loop()
    try:
        with capture_logs() as lines:
            lifecycle._report_loop_fault(loop, {"message": "Fatal error on SSL protocol", "exception": lost})
            lifecycle._report_loop_fault(loop, {"message": "Task failed", "exception": RuntimeError("odd")})
    finally:
        loop.close()
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("debug", "connection lost"),
        ("error", "unhandled fault"),
    ]
