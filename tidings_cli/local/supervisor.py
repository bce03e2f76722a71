"""Keep a set of child processes running, and stop them in order.

Children start in groups, one group after the other is ready, and stop group by group in the given stop order.
One that ends by itself is started again, after a pause that doubles with each quick failure. No process
survives: each is killed after its own limit, and where the system can, dies with the supervisor.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from services.backoff import delay_s
from services.lifecycle import EXIT_BAD_SETTINGS, EXIT_CANNOT_START
from tidings_cli.local.console import Screen
from tidings_cli.local.processes import Child, ProcessChild

_POLL_S = 0.05
_READY_S = 30.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_HEALTHY_S = 10.0  # having lived so long, a child's next end counts as its first
_START_ATTEMPTS = 3
# One Ctrl-C may arrive twice: from the terminal, and passed on by the program that started us.
_SAME_SIGNAL_S = 0.3
# These exit codes say that trying again will not help: bad settings, and what else must be put right first (the last
# line on standard error says what).
_HOPELESS = (EXIT_BAD_SETTINGS, EXIT_CANNOT_START)

EXIT_FAILED = 1


class CannotRun(RuntimeError):
    """A child does not start at all. `tail` is what it said last."""

    def __init__(self, message: str, tail: str = "") -> None:
        super().__init__(message)
        self.tail = tail


def describe_end(returncode: int | None) -> str:
    """Say how a process ended."""
    if returncode is not None and returncode < 0:
        try:
            return f"was killed by {signal.Signals(-returncode).name}"
        except ValueError:  # a real-time signal without a name
            return f"was killed by signal {-returncode}"
    return f"ended with code {returncode}"


class Keeper:
    """Keeps one child running. `up` is set from the first time it was ready."""

    def __init__(self, child: Child, screen: Screen) -> None:
        self.child = child
        self.up = asyncio.Event()
        self._screen = screen

    async def keep(self) -> None:
        """Start the child, again and again, until cancelled.

        Raises:
            CannotRun: it was never ready, and trying again will not help.
        """
        failures = 0
        while True:
            self.child.spawn()
            ready_at = await self._until_ready()
            if ready_at is not None:
                await self._until_ended()
                if time.monotonic() - ready_at > _HEALTHY_S:
                    failures = 0
            failures += 1
            if not self.up.is_set():
                await self._give_up_if_hopeless(failures)
            pause = delay_s(failures - 1, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
            how = describe_end(self.child.returncode)
            self._screen.trouble(f"{self.child.name} {how}; starting it again in {pause:.1f} s")
            await asyncio.sleep(pause)

    async def _until_ready(self) -> float | None:
        """Wait until the child is ready, and return when that was, or None if it ended first."""
        spawned = time.monotonic()
        deadline = spawned + _READY_S
        while self.child.returncode is None:
            if await self.child.ready():
                if self.up.is_set():
                    self._screen.done(f"{self.child.name} is back", since=spawned)
                else:
                    self._screen.done(self.child.name)
                self.up.set()
                return time.monotonic()
            # Later it may wait for others to come back, however long that takes.
            if not self.up.is_set() and time.monotonic() > deadline:
                message = f"{self.child.name} is not ready after {_READY_S:g} s; it said last:"
                raise CannotRun(message, self.child.log_tail())
            await asyncio.sleep(_POLL_S)
        return None

    async def _until_ended(self) -> None:
        while self.child.returncode is None:  # noqa: ASYNC110  # a process sets no event
            await asyncio.sleep(_POLL_S)

    async def _give_up_if_hopeless(self, failures: int) -> None:
        if isinstance(self.child, ProcessChild):
            await self.child.output_shown()
        if self.child.returncode in _HOPELESS:
            said = self.child.log_tail().rstrip().rpartition("\n")[2]
            raise CannotRun(f"{self.child.name} does not start: {said}")
        if failures >= _START_ATTEMPTS:
            how = describe_end(self.child.returncode)
            message = f"{self.child.name} does not start: it {how}; it said last:"
            raise CannotRun(message, self.child.log_tail())


async def end_all(children: Sequence[Child], screen: Screen) -> bool:
    """Ask children to end, all at once; kill those that do not in time. Returns whether none was killed."""
    children = [child for child in children if child.pid]  # who was never started has no end to wait for
    started = time.monotonic()
    for child in children:
        child.terminate()
    clean = True
    for child in children:
        clean_end = True
        while child.returncode is None:
            if clean_end and time.monotonic() - started > child.stop_s:
                screen.trouble(f"{child.name} did not stop within {child.stop_s:g} s and was killed")
                child.kill()
                clean_end = False
            await asyncio.sleep(_POLL_S / 5)
        clean = clean and clean_end
    for child in children:
        if isinstance(child, ProcessChild):
            await child.output_shown()
    return clean


class Supervisor:
    """Runs groups of children until told to stop.

    Args:
        groups: started in this order.
        stop_order: every child of `groups` again, in the order of stopping.
    """

    def __init__(
        self, groups: Sequence[Sequence[Child]], stop_order: Sequence[Sequence[Child]], screen: Screen
    ) -> None:
        self.groups = groups
        self.stop_order = stop_order
        self.stopping = asyncio.Event()
        self._screen = screen
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> bool:
        """Start all groups. Returns whether all are ready: false when told to stop meanwhile.

        Raises:
            CannotRun: a child does not start.
        """
        for group in self.groups:
            keepers = [Keeper(child, self._screen) for child in group]
            self._keepers += [
                asyncio.create_task(keeper.keep(), name=f"keeper of {keeper.child.name}")
                for keeper in keepers
            ]
            if not await self._unless_stopped(asyncio.create_task(_all_up(keepers))):
                return False
        return True

    async def wait(self) -> None:
        """Wait until told to stop.

        Raises:
            Exception: whatever broke a keeper, which only a programming error does once all are up.
        """
        await self._unless_stopped(asyncio.create_task(self.stopping.wait()))

    async def stop(self) -> bool:
        """End all children in order. Returns whether none had to be killed."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        outcomes = [await end_all(group, self._screen) for group in self.stop_order]
        return all(outcomes)

    def kill_all(self) -> None:
        """End all children at once and by force."""
        for group in self.stop_order:
            for child in group:
                child.kill()

    async def _unless_stopped(self, goal: asyncio.Task[Any]) -> bool:
        """Wait for `goal`; return false if told to stop before. A keeper that failed raises here."""
        stopping = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait([goal, stopping, *self._keepers], return_when=asyncio.FIRST_COMPLETED)
            for keeper in self._keepers:
                if keeper.done():
                    keeper.result()
            return goal.done() and not self.stopping.is_set()
        finally:
            stopping.cancel()
            goal.cancel()


async def _all_up(keepers: Sequence[Keeper]) -> None:
    for keeper in keepers:
        await keeper.up.wait()


def stop_on_signals(supervisor: Supervisor, screen: Screen) -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into one stop; a second one kills everything and ends this process."""
    loop = asyncio.get_running_loop()
    first_at = 0.0

    def on_signal(number: signal.Signals) -> None:
        nonlocal first_at
        if not supervisor.stopping.is_set():
            first_at = time.monotonic()
            screen.say(f"Stopping ({number.name}); once more to kill")
            supervisor.stopping.set()
        elif time.monotonic() - first_at > _SAME_SIGNAL_S:
            supervisor.kill_all()
            screen.restore_terminal()
            sys.stderr.write(f"second signal ({number.name}): killed everything\n")
            os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal, number)


async def supervise(supervisor: Supervisor, screen: Screen, ready_line: str) -> int:
    """Start everything, say so, run until told to stop, and stop in order. Returns the exit code."""
    stop_on_signals(supervisor, screen)
    fault: CannotRun | None = None
    try:
        with screen.working("Starting"):
            ready = await supervisor.start()
        if ready:
            screen.say(ready_line, "bold green")
            await supervisor.wait()
    except CannotRun as found:
        fault = found
        screen.trouble(str(fault), fault.tail)
    finally:
        clean = await supervisor.stop()
    screen.say("Stopped")
    if fault is not None:  # once more: the others have said much since
        screen.trouble(str(fault).removesuffix("; it said last:"))
    return 0 if clean and fault is None else EXIT_FAILED
