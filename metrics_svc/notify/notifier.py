"""The leader's notification loop: decide, send, record."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from metrics_svc.alerts.muting import Muter
from metrics_svc.alerts.rules import RuleSet
from metrics_svc.notify.decision import Decision, GroupState, decide
from metrics_svc.notify.nflog import NotifyChange, NotifyState, SentNotification, group_log_key
from metrics_svc.notify.notification import Group, Notification, grouped, message_key
from metrics_svc.notify.receivers import ConfiguredReceiver, backoff_s
from metrics_svc.store import MetricsStore, MetricsStoreUnavailable
from services.tasks import TaskSet
from services.webhooks import NotTaken
from services.wire.records import AlertLogEntry

log = structlog.get_logger(__name__)

INTERVAL_S = 0.5
# Without receivers, only ended alerts are removed.
IDLE_S = 5.0
# When the process stops: messages on their way may arrive, so that a successor need not send them again.
SETTLE_S = 0.5


@dataclass(slots=True)
class _Attempts:
    """Failed attempts at one group's message. `refused` is the key of a message not to be sent again so soon."""

    failures: int = 0
    not_before: int = 0
    refused: str = ""


@dataclass(slots=True)
class _Wait:
    """When unknown alerts of a group were first and last seen (ms)."""

    first: int
    last: int


@dataclass(slots=True)
class _Term:
    """State during one term of the lease, by `group_log_key`.

    `waits` keeps the start of a group's wait while its alerts stop and start; with a new leader the wait starts again.
    """

    number: int
    waits: dict[str, _Wait] = field(default_factory=dict)
    attempts: dict[str, _Attempts] = field(default_factory=dict)
    sending: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Notifier:
    """Notifies receivers.

    `_lease_term` returns the term of the lease while it is held, else 0; `_now` returns ms.
    """

    _receivers: list[ConfiguredReceiver]
    _store: MetricsStore
    _holder: str
    _lease_term: Callable[[], int]
    _rules: Callable[[], RuleSet]
    _now: Callable[[], int]
    _external_url: str = ""
    _term: _Term = field(default_factory=lambda: _Term(0))
    _muter: Muter = field(default_factory=Muter)
    _grouped: dict[tuple[str, ...], tuple[dict[str, AlertLogEntry], dict[str, Group]]] = field(
        default_factory=dict
    )
    _tasks: TaskSet = field(default_factory=TaskSet)
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def down(self) -> list[str]:
        """Names of the receivers whose last attempt failed."""
        return [receiver.name for receiver in self._receivers if not receiver.status.up]

    async def run(self) -> None:
        """Decide and send while the lease is held, until cancelled."""
        try:
            while True:
                await self.run_once()
                new_term = self._term.number != self._lease_term()
                await asyncio.sleep(INTERVAL_S if self._receivers or new_term else IDLE_S)
        finally:
            await self.settle(SETTLE_S)
            await self._tasks.close()
            for receiver in self._receivers:
                await receiver.integration.close()

    async def run_once(self) -> None:
        """Decide about all groups of all receivers; messages are sent in the background."""
        term = self._lease_term()
        if not term:
            return
        now = self._now()
        # What is being sent when the state is read may or may not be recorded in it: not to be decided now.
        busy = set(self._term.sending)
        try:
            state = await self._store.notify_state(now)
            if self._term.number != term:
                await self._start_term(term, state)
            change = NotifyChange()
            if self._receivers:
                self._decide_all(state, busy, now, change)
            if not busy and not self._term.sending:
                messages = (*state.nflog.values(), *state.pending_sends.values())
                known = {entry.id for message in messages for entry in message.firing}
                change.done = [
                    alert
                    for alert in state.pending_alerts.values()
                    if alert.state == "resolved" and alert.id not in known
                ]
            if change.done or change.nflog or change.receivers:
                await self._store.notify_write(self._holder, term, change)
        except MetricsStoreUnavailable as fault:
            log.info("store unavailable; notifications are delayed", reason=str(fault))

    async def settle(self, timeout_s: float) -> None:
        """Wait for messages that are being sent, at most `timeout_s`."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)

    async def _start_term(self, term: int, state: NotifyState) -> None:
        """Continue from the end of the last term; remove receivers that are not configured any more."""
        change = NotifyChange(receivers=dict.fromkeys(state.receivers))
        for receiver in self._receivers:
            receiver.restore(state.receivers.get(receiver.name))
            change.receivers[receiver.name] = receiver.status
        known = {receiver.name for receiver in self._receivers}
        for stored, removed in ((state.nflog, change.nflog), (state.pending_sends, change.pending_sends)):
            for key in [key for key, sent in stored.items() if sent.receiver not in known]:
                removed[key] = None
                del stored[key]
        await self._store.notify_write(self._holder, term, change)
        self._term = _Term(term)

    def _decide_all(self, state: NotifyState, busy: set[str], now: int, change: NotifyChange) -> None:
        """Decide about every group of every receiver, and start sending."""
        alerts = state.pending_alerts
        firing = {alert.id for alert in alerts.values() if alert.state == "firing"}
        inhibitions = self._rules().inhibitions
        muted = self._muter.muted(alerts.values(), state.silences, state.windows, inhibitions, now).ids
        acknowledged = {
            alert_id
            for alert_id, ack in state.acks.items()
            if alert_id in firing and ack.started_at == str(alerts[alert_id].started_at)
        }
        due: set[str] = set()
        for receiver in self._receivers:
            waiting = 0
            for group in self._groups(receiver, state):
                key = group_log_key(receiver.name, group.key)
                wait = self._term.waits.get(key)
                decision = decide(
                    GroupState(
                        alerts=group.alerts,
                        sent=state.nflog.get(key),
                        pending=state.pending_sends.get(key),
                        muted=() if receiver.delegates_policy else muted,
                        acknowledged=() if receiver.delegates_policy else acknowledged,
                        firing=firing,
                        since=wait.first if wait is not None else None,
                    ),
                    receiver.timings,
                    now,
                )
                if decision.waits:
                    first = min(entry.started_at for entry in decision.firing)
                    self._term.waits[key] = _Wait(wait.first if wait is not None else first, now)
                if decision.sends:
                    due.add(key)
                    waiting += key in self._term.attempts
                    if key not in busy and key not in self._term.sending:
                        self._start(receiver, group, key, decision, state, now)
                elif not group.alerts and key not in busy:
                    change.nflog[key] = change.pending_sends[key] = None  # its alerts are in other groups now
            if receiver.set_waiting(waiting):
                change.receivers[receiver.name] = receiver.status
            self._expire_waits(receiver, now)
        for key in self._term.attempts.keys() - due:
            del self._term.attempts[key]  # overtaken: there is nothing to send any more

    def _expire_waits(self, receiver: ConfiguredReceiver, now: int) -> None:
        """Drop the waits of groups in which no unknown alert has fired for as long as messages are apart."""
        timings = receiver.timings
        oldest = now - 1000 * max(timings.group_wait_s, timings.group_interval_s)
        prefix = group_log_key(receiver.name, "")
        waits = self._term.waits
        for key in [key for key, wait in waits.items() if wait.last < oldest and key.startswith(prefix)]:
            del waits[key]

    def _start(
        self,
        receiver: ConfiguredReceiver,
        group: Group,
        key: str,
        decision: Decision,
        state: NotifyState,
        now: int,
    ) -> None:
        before, attempts = state.nflog.get(key), self._term.attempts.get(key)
        message = Notification(
            receiver=receiver.name,
            group_key=group.key,
            group_labels=group.labels,
            firing=decision.firing,
            ended=decision.ended,
            key=message_key(
                before.key if before else "", receiver.name, group.key, decision.firing, decision.ended
            ),
            replaced=decision.replaced,
            external_url=self._external_url,
        )
        # After a refusal, a message with other content may be sent at once; after a failure, any message waits.
        if attempts is not None and attempts.refused in ("", message.key) and now < attempts.not_before:
            return
        log.debug("notifying", receiver=receiver.name, group=group.key, reason=decision.reason.value)
        self._term.sending.add(key)
        sending = self._send(self._term, receiver, key, message, uncertain=key in state.pending_sends)
        task = self._tasks.spawn(sending, f"notify {receiver.name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _send(
        self, term: _Term, receiver: ConfiguredReceiver, key: str, message: Notification, *, uncertain: bool
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
            pending = NotifyChange(pending_sends={key: sent})
            if not await self._store.notify_write(self._holder, term.number, pending):
                return
            try:
                await receiver.send(message)
            except NotTaken as fault:
                await self._record_failure(term, receiver, key, message.key, fault, uncertain)
                return
            except Exception as fault:  # our mistake or a library's: logged by the task, and retried slowly
                unknown = NotTaken(type(fault).__name__, perhaps=True)
                await self._record_failure(term, receiver, key, message.key, unknown, uncertain)
                raise
            term.attempts.pop(key, None)
            term.waits.pop(key, None)
            receiver.succeeded(self._now())
            done = NotifyChange(
                nflog={key: sent if sent.firing else None},
                pending_sends={key: None},
                receivers={receiver.name: receiver.status},
            )
            await self._store.notify_write(self._holder, term.number, done)
            log.info(
                "notified",
                receiver=receiver.name,
                group=message.group_key,
                firing=len(message.firing),
                ended=len(message.ended),
            )
        except MetricsStoreUnavailable as fault:
            # The pending send remains: the next leader sends it again, with the same key.
            log.warning(
                "store unavailable; notification not recorded", receiver=receiver.name, reason=str(fault)
            )
        finally:
            term.sending.discard(key)

    async def _record_failure(
        self,
        term: _Term,
        receiver: ConfiguredReceiver,
        key: str,
        message: str,
        fault: NotTaken,
        uncertain: bool,
    ) -> None:
        now = self._now()
        attempts = term.attempts.setdefault(key, _Attempts())
        attempts.failures += 1
        attempts.refused = "" if fault.retry else message
        pause_s = max(backoff_s(attempts.failures), fault.after_s)
        attempts.not_before = now + int(
            1000 * (pause_s if fault.retry else receiver.timings.repeat_interval_s)
        )
        receiver.failed(fault, now)
        change = NotifyChange(receivers={receiver.name: receiver.status})
        if not uncertain and not fault.perhaps:
            change.pending_sends[key] = None
        await self._store.notify_write(self._holder, term.number, change)

    def _groups(self, receiver: ConfiguredReceiver, state: NotifyState) -> Iterable[Group]:
        """Groups of one receiver: those of the alerts, and those it was notified about before."""
        group_by = receiver.timings.group_by
        cached = self._grouped.get(group_by)
        if cached is None or cached[0] != state.pending_alerts:
            cached = state.pending_alerts, grouped(state.pending_alerts.values(), group_by)
            self._grouped[group_by] = cached
        groups = dict(cached[1])
        for message in (*state.nflog.values(), *state.pending_sends.values()):
            if message.receiver == receiver.name and message.group_key not in groups:
                groups[message.group_key] = Group(message.group_key, message.group_labels)
        return groups.values()
