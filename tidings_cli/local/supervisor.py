"""Keep a set of child processes running, and stop them in order.

Children start in groups: a group when the one before it is ready. They stop group by group in the given order. A child
that ends by itself is restarted, with exponential backoff. No process survives: each is killed after its own limit, and
on Linux dies with the supervisor.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence

from services.backoff import delay_s
from services.lifecycle import EXIT_BAD_SETTINGS, EXIT_CANNOT_START, EXIT_FAILED
from tidings_cli.local.console import Console
from tidings_cli.local.processes import ChildProcess

_POLL_S = 0.05
_READY_S = 30.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_HEALTHY_S = 10.0  # after this time the backoff starts again
_START_ATTEMPTS = 3
# One Ctrl-C may arrive twice: from the terminal, and passed on by the program that started us.
_SAME_SIGNAL_S = 0.3
# Exit codes that a restart does not change: bad settings, or another fault that must be corrected first (the last line
# on standard error names it).
_PERMANENT = (EXIT_BAD_SETTINGS, EXIT_CANNOT_START)


class CannotRun(RuntimeError):
    """A child does not start. `tail` is its last output."""

    def __init__(self, message: str, tail: str = "") -> None:
        super().__init__(message)
        self.tail = tail


def describe_end(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        try:
            return f"was killed by {signal.Signals(-returncode).name}"
        except ValueError:  # a real-time signal without a name
            return f"was killed by signal {-returncode}"
    return f"ended with code {returncode}"


class ChildSupervisor:
    """Restarts one child. `up` is set when it was ready for the first time."""

    def __init__(self, child: ChildProcess, console: Console) -> None:
        self.child = child
        self.up = asyncio.Event()
        self._console = console

    async def run(self) -> None:
        """Start the child, and restart it until cancelled.

        Raises:
            CannotRun: it was never ready, and a restart does not help.
        """
        failures = 0
        while True:
            self.child.spawn()
            ready_at = await self._until_ready()
            if ready_at is not None:
                while self.child.returncode is None:  # noqa: ASYNC110  # a process sets no event
                    await asyncio.sleep(_POLL_S)
                if time.monotonic() - ready_at > _HEALTHY_S:
                    failures = 0
            failures += 1
            if not self.up.is_set():
                await self._raise_if_permanent(failures)
            pause = delay_s(failures - 1, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
            how = describe_end(self.child.returncode)
            self._console.trouble(f"{self.child.name} {how}; starting it again in {pause:.1f} s")
            await asyncio.sleep(pause)

    async def _until_ready(self) -> float | None:
        """Wait until the child is ready, and return that time; None if it ended first."""
        spawned = time.monotonic()
        deadline = spawned + _READY_S
        while self.child.returncode is None:
            if await asyncio.to_thread(self.child.ready):
                if self.up.is_set():
                    self._console.done(f"{self.child.name} is back", since=spawned)
                else:
                    self._console.done(self.child.name)
                self.up.set()
                return time.monotonic()
            # A restarted child may wait for other services without limit.
            if not self.up.is_set() and time.monotonic() > deadline:
                message = f"{self.child.name} is not ready after {_READY_S:g} s; it said last:"
                raise CannotRun(message, self.child.log_tail())
            await asyncio.sleep(_POLL_S)
        return None

    async def _raise_if_permanent(self, failures: int) -> None:
        await self.child.output_shown()
        if self.child.returncode in _PERMANENT:
            last_line = self.child.log_tail().rstrip().rpartition("\n")[2]
            raise CannotRun(f"{self.child.name} does not start: {last_line}")
        if failures >= _START_ATTEMPTS:
            how = describe_end(self.child.returncode)
            message = f"{self.child.name} does not start: it {how}; it said last:"
            raise CannotRun(message, self.child.log_tail())


async def stop_all(children: Sequence[ChildProcess], console: Console) -> bool:
    """Terminate children, all at once, and kill those that exceed their limit. Return whether none was killed."""
    children = [child for child in children if child.pid]  # the others never started
    started = time.monotonic()
    for child in children:
        child.terminate()
    killed: set[ChildProcess] = set()
    for child in children:
        while child.returncode is None:
            if child not in killed and time.monotonic() - started > child.stop_s:
                console.trouble(f"{child.name} did not stop within {child.stop_s:g} s and was killed")
                child.kill()
                killed.add(child)
            await asyncio.sleep(_POLL_S / 5)
    for child in children:
        await child.output_shown()
    return not killed


class Supervisor:
    """Runs groups of children until `stopping` is set.

    Args:
        groups: in the order of starting.
        stop_order: all children of `groups`, in the order of stopping.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[ChildProcess]],
        stop_order: Sequence[Sequence[ChildProcess]],
        console: Console,
    ) -> None:
        self.groups = groups
        self.stop_order = stop_order
        self.stopping = asyncio.Event()
        self._console = console
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> bool:
        """Start all groups. Return whether all are ready: False if `stopping` was set before.

        Raises:
            CannotRun: a child does not start.
        """
        for group in self.groups:
            children = [ChildSupervisor(child, self._console) for child in group]
            self._tasks += [
                asyncio.create_task(one.run(), name=f"supervisor of {one.child.name}") for one in children
            ]
            for one in children:
                await self._unless_stopped(one.up)
                if self.stopping.is_set():
                    return False
        return True

    async def wait(self) -> None:
        """Wait until `stopping` is set.

        Raises:
            Exception: the fault of a supervising task: a programming error, once all children are up.
        """
        await self._unless_stopped(self.stopping)

    async def stop(self) -> bool:
        """Stop all children in order. Return whether none was killed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        outcomes = [await stop_all(group, self._console) for group in self.stop_order]
        return all(outcomes)

    def kill_all(self) -> None:
        for group in self.stop_order:
            for child in group:
                child.kill()

    async def _unless_stopped(self, goal: asyncio.Event) -> None:
        """Wait for `goal`, or until `stopping` is set. Raise the fault of a supervising task."""
        waits = [asyncio.create_task(event.wait()) for event in (goal, self.stopping)]
        try:
            await asyncio.wait([*waits, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in self._tasks:
                if task.done():
                    task.result()
        finally:
            for wait in waits:
                wait.cancel()


def stop_on_signals(supervisor: Supervisor, console: Console) -> None:
    """Stop on SIGINT, SIGTERM or SIGHUP. A second signal kills all children and ends this process."""
    loop = asyncio.get_running_loop()
    first_at = 0.0

    def on_signal(number: signal.Signals) -> None:
        nonlocal first_at
        if not supervisor.stopping.is_set():
            first_at = time.monotonic()
            console.say(f"Stopping ({number.name}); once more to kill")
            supervisor.stopping.set()
        elif time.monotonic() - first_at > _SAME_SIGNAL_S:
            supervisor.kill_all()
            console.restore_terminal()
            sys.stderr.write(f"second signal ({number.name}): killed everything\n")
            os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal, number)


async def supervise(supervisor: Supervisor, console: Console, ready_line: str) -> int:
    """Start all children, print `ready_line`, run until a signal, and stop in order. Return the exit code."""
    stop_on_signals(supervisor, console)
    fault: CannotRun | None = None
    try:
        with console.working("Starting"):
            ready = await supervisor.start()
        if ready:
            console.say(ready_line, "bold green")
            await supervisor.wait()
    except CannotRun as found:
        fault = found
        console.trouble(str(fault), fault.tail)
    finally:
        clean = await supervisor.stop()
    console.say("Stopped")
    if fault is not None:  # again: much output has followed
        console.trouble(str(fault).removesuffix("; it said last:"))
    return 0 if clean and fault is None else EXIT_FAILED
