"""metrics_svc and its agent as real processes, and a listener to what they publish."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from services.bus.client import Bus
from services.bus.message import BusMessage
from services.bus.rpc import call
from services.settings import Settings
from services.wire.events import AlertEvent, LogReport, MetricsReport, MetricsTick
from services.wire.rpc import RpcEndpoint
from services.wire.server import AlertRaised
from tests.support.deadline import PATIENCE_S, eventually

_LOG_TAIL = 3000


class Process:
    """One `python -m MODULE`, its output in a file."""

    def __init__(self, module: str, settings: Settings, log: Path, **environment: str) -> None:
        self.log = log
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDINGS_")}
        configured = {
            "TIDINGS_NATS_URL": settings.nats_url,
            "TIDINGS_REDIS_URL": settings.redis_url,
            "TIDINGS_PREFIX": settings.prefix,
            "TIDINGS_DATA_DIR": str(settings.data_dir),
            "TIDINGS_LOG_FORMAT": "json",
        }
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                env=inherited | configured | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        """End it without warning."""
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
        try:
            return self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not stop:\n{self.tail()}") from None

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def logged(self, event: str) -> bool:
        """Say whether a line with this event was logged."""
        return f'"event":"{event}"' in self.log.read_text()

    def tail(self) -> str:
        return self.log.read_text()[-_LOG_TAIL:]


class Fleet:
    """Processes of one test, and the messages of its listener."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.ticks: list[MetricsTick] = []
        self.ticked_at: list[float] = []  # when each was heard, by `time.monotonic()`
        self.alerts: list[AlertEvent] = []
        self.alerted_at: list[float] = []
        self.logs: list[LogReport] = []
        self._folder = folder
        self._processes: list[Process] = []
        self._seqs: dict[str, int] = {}
        self.bus: Bus

    async def __aenter__(self) -> Self:
        subjects = self.settings.subjects
        self.bus = await Bus.connect(self.settings, "listener")
        self._listen(subjects.metrics_feed, MetricsTick, self.ticks, self.ticked_at)
        self._listen(subjects.alerts_feed, AlertEvent, self.alerts, self.alerted_at)
        self._listen(subjects.logs_feed, LogReport, self.logs)
        await self.bus.flush()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.bus.close()
        codes = [await asyncio.to_thread(process.stop) for process in self._processes]
        if kind is None:
            tails = [process.tail() for process in self._processes]
            assert all(code in (0, -signal.SIGKILL) for code in codes), "\n".join(tails)

    def _listen(self, subject: str, kind: Any, heard: list[Any], times: list[float] | None = None) -> None:
        decode = msgspec.json.Decoder(kind).decode

        def on_message(message: BusMessage) -> None:
            heard.append(decode(message.data))
            if times is not None:
                times.append(time.monotonic())

        self.bus.subscribe(subject, on_message)

    def start(self, module: str = "metrics_svc", **environment: str) -> Process:
        log = self._folder / f"{module}-{len(self._processes)}.log"
        process = Process(module, self.settings, log, **environment)
        self._processes.append(process)
        return process

    async def leader(self, *among: Process) -> Process:
        """Wait until one of the processes ticks; return it."""

        def leading() -> Process | None:
            ended = [process for process in among if process.ended]
            assert not ended, ended[0].tail()
            return next((process for process in among if process.logged("leader term started")), None)

        # It comes, or a process ends: how long interpreters take to start beside other tests is no matter here.
        found = await eventually(leading, "a leader", 2 * PATIENCE_S)
        assert found is not None
        return found

    def report(self, source: str = "machine", kind: str = "agent", **fields: Any) -> None:
        """Publish a report as if from an agent, gateway or application."""
        self._seqs[source] = self._seqs.get(source, 0) + 1
        now = {"boot": "test", "seq": self._seqs[source], "timestamp": self.now_ms()}
        report = MetricsReport(source=source, kind=kind, **(now | fields))
        self.bus.publish(self.settings.subjects.metrics_report, msgspec.json.encode(report))

    async def report_until(self, done: Callable[[], Any], what: str, **fields: Any) -> None:
        """Report ten times a second until `done`."""

        def again() -> Any:
            self.report(**fields)
            return done()

        await eventually(again, what)

    @staticmethod
    def now_ms() -> int:
        return int(time.time() * 1000)

    async def ask(self, endpoint: RpcEndpoint[Any, Any], request: Any) -> Any:
        return await call(self.bus, self.settings.subjects, endpoint, request)

    @property
    def seconds(self) -> list[int]:
        """The seconds ticked, in the order heard."""
        return [tick.record.timestamp // 1000 for tick in self.ticks]

    @property
    def said(self) -> list[str]:
        """`cpu-alert critical`, `cpu-alert resolved`, …"""
        return [
            f"{event.data.id} {event.data.type if isinstance(event, AlertRaised) else 'resolved'}"
            for event in self.alerts
        ]
