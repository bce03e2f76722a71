"""A notifier over the store in memory, a manual clock, and receivers that record."""

from dataclasses import dataclass, field

import msgspec

from metrics_svc.alerts.instance import AlertInstance
from metrics_svc.alerts.rules import DEFAULT_RULES, RuleSet
from metrics_svc.alerts.states import AlertState
from metrics_svc.notify.decision import NotifyTimings
from metrics_svc.notify.notification import Notification
from metrics_svc.notify.notifier import Notifier
from metrics_svc.notify.receivers import ConfiguredReceiver
from metrics_svc.store import SecondCommit
from services.webhooks import NotTaken
from services.wire.alerting import Receiver
from services.wire.records import UNSET, AlertLogEntry
from services.wire.rpc import AlertAck, Matcher, Silence
from tests.support.metrics import T0, ManualTime
from tests.support.metrics_store_memory import MemoryStore

TIMING = NotifyTimings(("metric",), group_wait_s=30, group_interval_s=300, repeat_interval_s=3600)
FOR_EVER_MS = 10**9


def entry(
    id: str = "cpu-alert",
    severity: str = "warning",
    *,
    started: float = T0,
    ended: float | None = None,
    source: str = "",
    **labels: str,
) -> AlertLogEntry:
    """Return a line of the alert log: an alert that fires, or one that ended."""
    return AlertLogEntry(
        id=id,
        type=severity,  # type: ignore[arg-type]
        metric=id.split("-")[0],
        value=95.0,
        threshold=90.0,
        message=f"{id} is high",
        timestamp=int(started * 1000),
        source=source or UNSET,
        labels=labels or UNSET,
        state="firing" if ended is None else "resolved",
        started_at=int(started * 1000),
        ended_at=UNSET if ended is None else int(ended * 1000),
    )


@dataclass
class FakeIntegration:
    """Takes messages, or fails: `perhaps` as if the answer had been lost, `refusing` for good."""

    got: list[Notification] = field(default_factory=list)
    failing: bool = False
    perhaps: bool = False
    refusing: bool = False
    after_s: float = 0.0
    attempts: int = 0
    broken: bool = False

    async def send(self, notification: Notification) -> None:
        self.attempts += 1
        if self.broken:
            raise ValueError("a mistake")
        if self.perhaps:
            self.got.append(notification)
            raise NotTaken("no answer", perhaps=True)
        if self.failing:
            raise NotTaken("down", after_s=self.after_s)
        if self.refusing:
            raise NotTaken("HTTP 400", retry=False)
        self.got.append(notification)

    async def close(self) -> None:
        """Nothing to close."""


class NotifyRig:
    """One or several receivers, and alerts to notify them of."""

    def __init__(
        self, timing: NotifyTimings = TIMING, receivers: int = 1, *, delegates_policy: bool = False
    ) -> None:
        self.time = ManualTime()
        self.store = MemoryStore(self.time)
        self.integrations = [FakeIntegration() for _ in range(receivers)]
        self.timing = timing
        self.delegates_policy = delegates_policy
        self.rules: RuleSet = DEFAULT_RULES
        self.term = 0
        self.holder = ""
        self.alerts: dict[str, AlertLogEntry] = {}
        self.notifier: Notifier

    async def lead(self, holder: str = "a") -> None:
        """Begin a term with a new notifier, as a replica that takes over does."""
        if self.term:
            await self.store.release(self.holder, self.term)
        self.holder = holder
        self.term = (await self.store.acquire(holder, FOR_EVER_MS)).term
        receivers = [
            ConfiguredReceiver(
                Receiver(name=f"webhook-{number}", kind="webhook", up=True),
                integration,
                self.timing,
                delegates_policy=self.delegates_policy,
            )
            for number, integration in enumerate(self.integrations, 1)
        ]
        self.notifier = Notifier(
            receivers,
            self.store,
            holder,
            lambda term=self.term: term,
            lambda: self.rules,
            lambda: int(self.time.now * 1000),
        )

    async def fire(self, id: str = "cpu-alert", severity: str = "warning", **more: str) -> None:
        """Let an alert begin to fire now, or change its severity."""
        before = self.alerts.get(id)
        started = self.time.now
        if before is not None and before.state == "firing":
            started = before.started_at / 1000
        await self._write(entry(id, severity, started=started, **more))

    async def end(self, id: str = "cpu-alert") -> None:
        """Let an alert end now."""
        ended = msgspec.structs.replace(self.alerts[id], state="resolved", ended_at=int(self.time.now * 1000))
        await self._write(ended)

    async def _write(self, line: AlertLogEntry) -> None:
        self.alerts[line.id] = line
        second = max(int(self.time.now), await self.store.last_second() + 1)
        await self.store.write(self.holder, self.term, SecondCommit(second, [], entries=[line]))

    async def acknowledge(self, id: str = "cpu-alert") -> None:
        """Acknowledge a firing alert."""
        line = self.alerts[id]
        instance = AlertInstance(line.metric, state=AlertState.FIRING, started_at=line.started_at)
        second = max(int(self.time.now), await self.store.last_second() + 1)
        await self.store.write(self.holder, self.term, SecondCommit(second, [], {id: instance}))
        assert await self.store.acknowledge(AlertAck(id=id, by="ann"), int(self.time.now * 1000))

    async def silence(self, seconds: float, **fields: str) -> None:
        matchers = [Matcher(name=name, value=value) for name, value in fields.items()]
        now = int(self.time.now * 1000)
        await self.store.put_silence(
            Silence(id=f"s{now}", matchers=matchers, starts_at=now, ends_at=now + int(seconds * 1000)), now
        )

    async def run(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass, looking once a step."""
        end = self.time.now + seconds
        while self.time.now < end:
            self.time.now += step
            await self.run_once()

    async def run_once(self) -> None:
        await self.notifier.run_once()
        await self.notifier.settle(1)

    @property
    def said(self) -> list[str]:
        """Messages to the first receiver: `+31 firing cpu-alert|warning`, `+330 resolved -cpu-alert`."""
        return [_words(message) for message in self.integrations[0].got]


def _words(message: Notification) -> str:
    fires = [f"{line.id}|{line.type}" for line in message.firing]
    ends = [f"-{line.id}" for line in message.ended]
    return " ".join(["firing" if message.firing else "resolved", *sorted(fires), *sorted(ends)])
