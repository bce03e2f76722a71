"""Process lifecycle: start, run until asked to stop, stop in order and in time.

A process is `main(settings, lifecycle)`: it wires its parts, registers how each is stopped, and waits.

```
async def main(settings, lifecycle):
    bus = await Bus.connect(settings, "presence")
    lifecycle.on_stop("bus", bus.close, timeout_s=2)
    …
    await lifecycle.stopped()
```

SIGINT and SIGTERM become one event. Before `stopped()` is called (by any task) a signal cancels `main`; afterwards
`main` has until `shutdown_s` to return. Then the stop steps run, last registered first, each within its own limit and
all within `shutdown_s`. A second signal ends the process at once.
"""

import asyncio
import gc
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import structlog
from pydantic import ValidationError
from pydantic_settings import SettingsError
from uvloop import new_event_loop

from services import __version__
from services.bus.errors import BusError, Misconfigured
from services.logs.redaction import clean_text
from services.logs.setup import configure_logging
from services.logs.shipper import LogShipper, Publish
from services.permissions import Role
from services.settings import Settings, instance_name
from services.settings_problems import describe_fault, describe_unknown, problems_of, unknown_variables

log = structlog.get_logger(__name__)

EXIT_FAILED = 1
EXIT_BAD_SETTINGS = 2
EXIT_CANNOT_START = 3

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LEAST_STEP_S = 0.1  # even a late step gets to run its first lines
_OVERTIME_S = 1.0  # what closing the event loop may take after the last step


class CannotStart(RuntimeError):
    """Something outside this program must be put right first: the message says what, without a traceback."""


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    run: Callable[[], Awaitable[object]]
    timeout_s: float


class Lifecycle:
    """State of one process: its stop steps, whether it is stopping, whether it failed."""

    def __init__(self, shutdown_s: float, shipper: LogShipper | None = None) -> None:
        self.stopping = asyncio.Event()
        self.started = asyncio.Event()
        self.failed = False
        self.obstacle = ""  # why it cannot start, and will not by being tried again
        self._shutdown_s = shutdown_s
        self._deadline = float("inf")
        self._steps: list[_Step] = []
        self._shipper = shipper

    async def stopped(self) -> None:
        """Mark the process as started, and wait until it is asked to stop."""
        if not self.started.is_set():
            self.started.set()
            # These objects live as long as the process: no collection needs to visit them again.
            gc.collect()
            gc.freeze()
            log.info("started")
        await self.stopping.wait()

    def stop(self, reason: str) -> None:
        """Start to stop. Idempotent."""
        if self.stopping.is_set():
            return
        self._deadline = time.monotonic() + self._shutdown_s
        log.info("stopping", reason=reason)
        self.stopping.set()

    def fail(self, fault: BaseException) -> None:
        """End the process with exit code 1 because of `fault`, in order. Safe to call more than once."""
        self.failed = True
        if isinstance(fault, CannotStart | Misconfigured) and not self.started.is_set():
            self.obstacle = str(fault)
        if isinstance(fault, CannotStart | BusError):
            log.error("failed", fault=type(fault).__name__, message=str(fault))
        else:
            log.error("failed", exc_info=fault)
        self.stop("failure")

    def on_stop(self, name: str, step: Callable[[], Awaitable[object]], timeout_s: float) -> None:
        """Register a stop step. Steps run in reverse order, each within `timeout_s`."""
        self._steps.append(_Step(name, step, timeout_s))

    def ship_logs(self, publish: Publish, settings: Settings) -> None:
        """Send this process's log lines to the fleet's stream from now on, until the bus is stopped.

        Call it after the bus's own `on_stop`, so that the last lines leave before the bus does.
        """
        if self._shipper is not None:
            self._shipper.start(publish, settings.subjects)
            self.on_stop("log shipper", self._shipper.stop, timeout_s=0.5)

    @property
    def remaining_s(self) -> float:
        """Seconds left of `shutdown_s` once stopping, at least 0."""
        return max(0.0, self._deadline - time.monotonic())

    async def run_stop_steps(self) -> None:
        """Run and forget the steps. A step that fails or takes too long is logged, and the next one runs."""
        while self._steps:
            step = self._steps.pop()
            limit = max(_LEAST_STEP_S, min(step.timeout_s, self.remaining_s))
            try:
                async with asyncio.timeout(limit):
                    await step.run()
            except TimeoutError:
                self.failed = True
                log.warning("stop step took too long", step=step.name, limit_s=round(limit, 3))
            except Exception:  # one part's fault must not keep the others from stopping
                self.failed = True
                log.exception("stop step failed", step=step.name)


Main = Callable[[Settings, Lifecycle], Awaitable[None]]


async def run_main(main: Main, settings: Settings, lifecycle: Lifecycle) -> int:
    """Run `main` and then the stop steps, and return the exit code."""
    task = asyncio.ensure_future(main(settings, lifecycle))
    stopping = asyncio.ensure_future(lifecycle.stopping.wait())
    await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not task.done() and lifecycle.started.is_set():
        await asyncio.wait([task], timeout=lifecycle.remaining_s)
        if not task.done():
            lifecycle.failed = True
            log.warning("main did not return in time")
    task.cancel()  # no effect on one that returned
    stopping.cancel()
    try:
        await task
    except asyncio.CancelledError:
        log.debug("main cancelled")
    except Exception as fault:  # noqa: BLE001  # whatever it is, the process ends in order and non-zero
        lifecycle.fail(fault)
    lifecycle.stop("main returned")
    await lifecycle.run_stop_steps()
    if lifecycle.obstacle:
        return EXIT_CANNOT_START
    return EXIT_FAILED if lifecycle.failed else 0


def load_settings(**given: Any) -> Settings:
    """Return the effective settings (`given` wins), or end with exit code 2 and a line for each that is wrong."""
    try:
        return Settings(**given)
    except (ValidationError, SettingsError, OSError, ValueError) as wrong:  # a missing file, bad TOML
        _refuse(describe_fault(wrong))


def load_sound_settings(role: Role | None, /, **given: Any) -> Settings:
    """Return settings with which a process of that role, or with none all of them, can work.

    Otherwise end with exit code 2 and a line for each problem.
    """
    settings = load_settings(**given)
    if problems := problems_of(settings, role):
        _refuse(map(str, problems))
    return settings


def _refuse(lines: Iterable[str]) -> NoReturn:
    for line in lines:
        sys.stderr.write(f"{clean_text(line)}\n")
    sys.exit(EXIT_BAD_SETTINGS)


def _listen_for_signals(lifecycle: Lifecycle, shutdown_s: float) -> None:
    loop = asyncio.get_running_loop()

    def overdue() -> None:
        sys.stderr.write(f"did not stop within {shutdown_s:g} s; ending now\n")
        os._exit(EXIT_FAILED)

    def on_signal(number: signal.Signals) -> None:
        if lifecycle.stopping.is_set():
            sys.stderr.write(f"second signal ({number.name}): ending now\n")
            os._exit(128 + number)
        lifecycle.stop(number.name)
        # Ends the process even if the loop, or a thread it waits for at its end, hangs.
        watchdog = threading.Timer(shutdown_s + _OVERTIME_S, overdue)
        watchdog.daemon = True
        watchdog.start()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)


def _report_loop_fault(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Log a fault that was never awaited; asyncio would print it with reprs of everything involved."""
    fault = context.get("exception")
    if isinstance(fault, RuntimeError) and str(fault).endswith("the handler is closed"):
        # uvloop, where a TLS connection was lost before it could write: the connection's user learns of the loss.
        log.debug("connection lost", detail=str(context.get("message")), reason=str(fault))
    elif isinstance(fault, BaseException):
        log.error("unhandled fault", detail=str(context.get("message")), exc_info=fault)
    else:
        log.error("unhandled fault", detail=str(context.get("message")))


def raise_file_limit() -> int:
    """Raise the soft limit of open files, 1,024 in most containers, to the hard one; return the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as fault:  # macOS says "no limit" and takes 10,240
        log.warning("the limit of open files cannot be raised", soft=soft, hard=hard, reason=str(fault))
        return soft
    return hard


def run(kind: str, main: Main) -> NoReturn:
    """Run one process of `kind` (gateway, presence, metrics, agent) until it is asked to stop, then exit.

    Exit codes: 0 stopped in order, 1 failed, 2 bad settings, 3 cannot start because of something outside, 128 + N ended
    by a second signal N.
    """
    settings = load_sound_settings(Role(kind))
    instance = instance_name(settings, kind)
    shipper = configure_logging(settings, kind, instance)

    async def lead() -> tuple[int, str]:
        asyncio.get_running_loop().set_exception_handler(_report_loop_fault)
        lifecycle = Lifecycle(settings.shutdown_s, shipper)
        _listen_for_signals(lifecycle, settings.shutdown_s)
        log.info("starting", version=__version__, pid=os.getpid(), open_files=raise_file_limit())
        for sentence in describe_unknown(unknown_variables()):
            log.warning("unknown variable", detail=sentence)
        return await run_main(main, settings, lifecycle), lifecycle.obstacle

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        code, obstacle = runner.run(lead())
    log.info("stopped", exit_code=code)
    if code == EXIT_CANNOT_START:  # the last line, for the operator
        sys.stderr.write(f"{kind} cannot start: {clean_text(obstacle)}\n")
    sys.exit(code)
