"""The loop of the replica that ticks: decide, send, note."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from metrics_svc.alerts.muting import Muter
from metrics_svc.alerts.rules import RuleSet
from metrics_svc.notify.decision import Decision, GroupState, decide
from metrics_svc.notify.groups import Group, grouped
from metrics_svc.notify.integrations import DeliveryFailed
from metrics_svc.notify.nflog import NotifyChange, NotifyState, SentNotification, log_key
from metrics_svc.notify.notification import Notification, key_of
from metrics_svc.notify.receivers import ConfiguredReceiver, pause_s
from metrics_svc.store import MetricsStore, MetricsStoreUnavailable
from services.tasks import TaskSet
from services.wire.records import AlertLogEntry

log = structlog.get_logger(__name__)

TURN_S = 0.5
# Without receivers there is only to forget what has ended.
IDLE_S = 5.0
# When the process stops: what is on its way may arrive, so that a successor need not send it again.
SETTLE_S = 0.5


@dataclass(slots=True)
class _Attempts:
    """What one group's message has met at one receiver. `refused` is the key of one not to be sent again so soon."""

    failures: int = 0
    not_before: int = 0
    refused: str = ""


@dataclass(slots=True)
class _Waiting:
    """When alerts of a group that the receiver has not been told of were first and last seen (ms)."""

    first: int
    last: int


@dataclass(slots=True)
class _Term:
    """What is known during one term of the lease: dropped when it ends.

    `waiting` keeps the beginning of a group's wait while its alerts come and go; of a successor it begins again.
    """

    number: int
    waiting: dict[str, _Waiting] = field(default_factory=dict)
    attempts: dict[str, _Attempts] = field(default_factory=dict)
    sending: set[str] = field(default_factory=set)


class Notifier:
    """Tells receivers. `term` returns the term of the lease while it is held, else 0; `now` tells ms."""

    def __init__(
        self,
        targets: list[ConfiguredReceiver],
        store: MetricsStore,
        holder: str,
        term: Callable[[], int],
        rules: Callable[[], RuleSet],
        now: Callable[[], int],
        *,
        external_url: str = "",
    ) -> None:
        self._targets = targets
        self._store = store
        self._holder = holder
        self._lease_term = term
        self._rules = rules
        self._now = now
        self._external_url = external_url
        self._term = _Term(0)
        self._muting = Muter()
        self._grouped: dict[tuple[str, ...], tuple[dict[str, AlertLogEntry], dict[str, Group]]] = {}
        self._tasks = TaskSet()
        self._running: set[asyncio.Task[None]] = set()

    @property
    def down(self) -> list[str]:
        """Names of the receivers whose last attempt failed."""
        return [target.name for target in self._targets if not target.status.up]

    async def run(self) -> None:
        """Decide and send while the lease is held, for ever."""
        try:
            while True:
                await self.turn()
                await asyncio.sleep(
                    TURN_S if self._targets or self._term.number != self._lease_term() else IDLE_S
                )
        finally:
            await self.settle(SETTLE_S)
            await self._tasks.close()
            for target in self._targets:
                await target.outlet.close()

    async def turn(self) -> None:
        """Look once at all groups of all receivers; messages are sent in the background."""
        term = self._lease_term()
        if not term:
            return
        now = self._now()
        # What is being sent when the state is read may have been noted, or not yet: not to be decided upon now.
        busy = set(self._term.sending)
        try:
            state = await self._store.notify_state(now)
            if self._term.number != term:
                await self._begin(term, state)
            await self._decide(state, busy, now)
        except MetricsStoreUnavailable as fault:
            log.info("notifications wait: the store is away", reason=str(fault))

    async def settle(self, timeout_s: float) -> None:
        """Wait until what is being sent now has been taken or refused, for at most `timeout_s`."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)

    async def _begin(self, term: int, state: NotifyState) -> None:
        """Go on where the last term ended; forget receivers that are not configured any more."""
        for target in self._targets:
            target.restore(state.receivers.get(target.name))
        known = {target.name for target in self._targets}
        change = NotifyChange(
            log={key: None for key, sent in state.log.items() if sent.receiver not in known},
            intents={key: None for key, sent in state.intents.items() if sent.receiver not in known},
            receivers={
                **{name: None for name in state.receivers if name not in known},
                **{target.name: target.status for target in self._targets},
            },
        )
        for stored, gone in ((state.log, change.log), (state.intents, change.intents)):
            for key in gone:
                del stored[key]
        await self._store.notify_write(self._holder, term, change)
        self._term = _Term(term)

    async def _decide(self, state: NotifyState, busy: set[str], now: int) -> None:
        change = NotifyChange()
        if self._targets:
            self._look(state, busy, now, change)
        if not busy and not self._term.sending:
            messages = (*state.log.values(), *state.intents.values())
            believed = {entry.id for message in messages for entry in message.firing}
            change.done = [
                notice
                for notice in state.notices.values()
                if notice.state == "resolved" and notice.id not in believed
            ]
        if change.done or change.log or change.receivers:
            await self._store.notify_write(self._holder, self._term.number, change)

    def _look(self, state: NotifyState, busy: set[str], now: int, change: NotifyChange) -> None:
        """Decide about every group of every receiver."""
        firing = {notice.id for notice in state.notices.values() if notice.state == "firing"}
        inhibitions = self._rules().inhibitions
        muted = self._muting.look(state.notices.values(), state.silences, state.windows, inhibitions, now).ids
        seen = {
            id
            for id, ack in state.acks.items()
            if id in firing and ack.started_at == str(state.notices[id].started_at)
        }
        due: set[str] = set()
        for target in self._targets:
            waiting = 0
            forget_ms = 1000 * max(target.timing.group_wait_s, target.timing.group_interval_s)
            for group in self._groups(target, state):
                key = log_key(target.name, group.key)
                waits = self._term.waiting.get(key)
                decision = decide(
                    GroupState(
                        notices=group.notices,
                        sent=state.log.get(key),
                        intent=state.intents.get(key),
                        muted=() if target.raw else muted,
                        acknowledged=() if target.raw else seen,
                        firing=firing,
                        since=waits.first if waits is not None else None,
                    ),
                    target.timing,
                    now,
                )
                if decision.waits:
                    first = min(line.started_at for line in decision.firing)
                    self._term.waiting[key] = _Waiting(waits.first if waits is not None else first, now)
                if decision.sends:
                    due.add(key)
                    waiting += key in self._term.attempts
                    if key not in busy:
                        self._start(target, group, key, decision, state, now)
                elif not group.notices and key not in busy:
                    change.log[key] = change.intents[key] = None  # its alerts belong to other groups now
            if target.wait(waiting):
                change.receivers[target.name] = target.status
            self._forget_waits(target, now - forget_ms)
        for key in self._term.attempts.keys() - due:
            del self._term.attempts[key]  # overtaken: there is nothing to tell any more

    def _forget_waits(self, target: ConfiguredReceiver, before: float) -> None:
        """Forget the waits of groups in which nothing untold has fired for as long as messages are apart."""
        prefix = log_key(target.name, "")
        gone = [
            key for key, waits in self._term.waiting.items() if waits.last < before and key.startswith(prefix)
        ]
        for key in gone:
            del self._term.waiting[key]

    def _start(
        self,
        target: ConfiguredReceiver,
        group: Group,
        key: str,
        decision: Decision,
        state: NotifyState,
        now: int,
    ) -> None:
        if key in self._term.sending:
            return
        before, attempts = state.log.get(key), self._term.attempts.get(key)
        message_key = key_of(
            before.key if before else "", target.name, group.key, decision.firing, decision.ended
        )
        # What was refused may be sent when it says something else; what failed waits whatever it says.
        waits = attempts is not None and attempts.refused in ("", message_key)
        if waits and attempts is not None and now < attempts.not_before:
            return
        message = Notification(
            receiver=target.name,
            group_key=group.key,
            group_labels=group.labels,
            firing=decision.firing,
            ended=decision.ended,
            key=message_key,
            replaced=decision.replaced,
            external_url=self._external_url,
        )
        log.debug("notifying", receiver=target.name, group=group.key, reason=decision.reason.value)
        self._term.sending.add(key)
        sending = self._send(self._term, target, key, message, uncertain=key in state.intents)
        task = self._tasks.spawn(sending, f"notify {target.name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _send(
        self, term: _Term, target: ConfiguredReceiver, key: str, message: Notification, *, uncertain: bool
    ) -> None:
        sent = SentNotification(
            message.receiver,
            message.group_key,
            message.group_labels,
            self._now(),
            message.key,
            list(message.firing),
        )
        try:
            if not await self._write(term, NotifyChange(intents={key: sent})):
                return
            try:
                await target.outlet.send(message)
            except DeliveryFailed as fault:
                forget = not (uncertain or fault.perhaps)
                await self._note_failure(term, target, key, message.key, fault, forget=forget)
                return
            except (
                Exception
            ) as fault:  # a mistake of ours or of a library's: logged by the task, and not in a hurry
                unknown = DeliveryFailed(type(fault).__name__, perhaps=True)
                await self._note_failure(term, target, key, message.key, unknown, forget=False)
                raise
            term.attempts.pop(key, None)
            term.waiting.pop(key, None)
            target.succeeded(self._now())
            log.info(
                "notified",
                receiver=target.name,
                group=message.group_key,
                firing=len(message.firing),
                ended=len(message.ended),
            )
            await self._write(
                term,
                NotifyChange(
                    log={key: sent if sent.firing else None},
                    intents={key: None},
                    receivers={target.name: target.status},
                ),
            )
        except MetricsStoreUnavailable as fault:
            # The intent stays: whoever ticks next sends it again, with the same key.
            log.warning("notification not noted: the store is away", receiver=target.name, reason=str(fault))
        finally:
            term.sending.discard(key)

    async def _note_failure(
        self,
        term: _Term,
        target: ConfiguredReceiver,
        key: str,
        message: str,
        fault: DeliveryFailed,
        *,
        forget: bool,
    ) -> None:
        now = self._now()
        attempts = term.attempts.setdefault(key, _Attempts())
        attempts.failures += 1
        attempts.refused = "" if fault.retry else message
        pause = max(pause_s(attempts.failures), fault.after_s)
        attempts.not_before = now + int(1000 * (pause if fault.retry else target.timing.repeat_interval_s))
        target.failed(fault, now)
        change = NotifyChange(receivers={target.name: target.status})
        if forget:
            change.intents[key] = None
        await self._write(term, change)

    async def _write(self, term: _Term, change: NotifyChange) -> bool:
        return await self._store.notify_write(self._holder, term.number, change)

    def _groups(self, target: ConfiguredReceiver, state: NotifyState) -> Iterable[Group]:
        """Return the groups of one receiver: those of the alerts, and those it was told of before."""
        group_by = target.timing.group_by
        known = self._grouped.get(group_by)
        if known is None or known[0] != state.notices:
            known = self._grouped[group_by] = state.notices, grouped(state.notices.values(), group_by)
        groups = dict(known[1])
        for message in (*state.log.values(), *state.intents.values()):
            if message.receiver == target.name and message.group_key not in groups:
                groups[message.group_key] = Group(message.group_key, message.group_labels)
        return groups.values()
