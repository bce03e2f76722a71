"""The `metrics` and `alerts` channels.

Every gateway keeps the last records and the active alerts, with or without followers: that is one message a second, and
a page that opens has its charts at once.
"""

from collections import deque
from collections.abc import Set

import msgspec
import structlog

from gateway.channels.channel_names import ALERTS, METRICS
from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Fanout, Member
from gateway.service_client import ServiceClient
from services.backoff import Backoff
from services.bus.client import Bus, BusMessage
from services.bus.errors import BusError
from services.settings import Settings
from services.tasks import TaskSet
from services.wire import server
from services.wire.codes import ErrorCode
from services.wire.events import AlertEvent, MetricsTick
from services.wire.records import Alert, MetricsRecord
from services.wire.rpc import METRICS_STATE, Empty, MetricsState

log = structlog.get_logger(__name__)

HISTORY = 100

_decode_tick = msgspec.json.Decoder(MetricsTick).decode
_decode_alert = msgspec.json.Decoder(AlertEvent).decode
_RETRY_S = 0.5
_RETRY_MAX_S = 3.0
_MAX_HELD_ALERTS = 1000  # with more during one request, the state is requested again


class MetricsChannel:
    """The last records, the active alerts, and their followers."""

    def __init__(
        self, bus: Bus, service_client: ServiceClient, settings: Settings, tasks: TaskSet, counters: Counters
    ) -> None:
        self.metrics = Fanout(counters)
        self.alerts = Fanout(counters)
        self.streams = Fanout(counters)  # SSE streams of bare records
        self._service_client = service_client
        self._tasks = tasks
        self._history: deque[MetricsRecord] = deque(maxlen=HISTORY)
        self._active: dict[str, Alert] = {}
        self._loaded = False
        self._loading = False
        self._stale = False  # the request under way started before events that were missed
        self._held_alerts: list[AlertEvent] = []  # received during the request
        self._waiting: dict[str, tuple[Member, Set[str]]] = {}  # for the snapshot, with their channels
        self._error_sent: set[str] = set()
        self._subscriptions = [
            bus.subscribe(settings.subjects.metrics_feed, self._on_tick),
            bus.subscribe(settings.subjects.alerts_feed, self._on_alert),
        ]
        self.resync()

    @property
    def latest(self) -> MetricsRecord | None:
        return self._history[-1] if self._history else None

    def follow(self, member: Member, names: Set[str]) -> None:
        """Send the snapshot, at once or as soon as there is one, and every later event of these channels."""
        if self._loaded:
            self._add(member, names)
        else:
            _, others = self._waiting.get(member.connection_id, (member, set[str]()))
            self._waiting[member.connection_id] = (member, names | others)
            self._load_soon()

    def unfollow(self, connection_id: str, names: Set[str]) -> None:
        for fanout in self._fanouts(names):
            fanout.discard(connection_id)
        member, wanted = self._waiting.pop(connection_id, (None, set[str]()))
        if member is not None and wanted - names:
            self._waiting[connection_id] = (member, wanted - names)

    def resync(self) -> None:
        """Fetch the state again: records or alerts may have been missed."""
        self._stale = True
        self._load_soon()

    def close(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()

    def _fanouts(self, names: Set[str]) -> list[Fanout]:
        return [fanout for name, fanout in ((METRICS, self.metrics), (ALERTS, self.alerts)) if name in names]

    def _add(self, member: Member, names: Set[str]) -> None:
        snapshot = server.InitialState(history=list(self._history), alerts=list(self._active.values()))
        for fanout in self._fanouts(names):
            fanout.flush()
        member.write(EncodedMessage(snapshot).encode(member.encoding))
        for fanout in self._fanouts(names):
            fanout.add(member)

    def _on_tick(self, message: BusMessage) -> None:
        try:
            record = _decode_tick(message.data).record
        except (msgspec.DecodeError, RecursionError) as fault:
            log.error("metrics record is not readable", reason=str(fault))
            return
        last = self.latest
        if last is not None and record.timestamp <= last.timestamp:
            return  # a repeated second: another replica took over
        self._history.append(record)
        outbound = EncodedMessage(server.MetricsUpdate(data=record))
        self.metrics.send(outbound)
        self.streams.send(outbound)

    def _on_alert(self, message: BusMessage) -> None:
        try:
            event = _decode_alert(message.data)
        except (msgspec.DecodeError, RecursionError) as fault:
            log.error("alert event is not readable", reason=str(fault))
            return
        if self._loading and len(self._held_alerts) < _MAX_HELD_ALERTS:
            self._held_alerts.append(event)
        elif self._loading:
            self._stale = True
        _apply(self._active, event)
        self.alerts.send(EncodedMessage(event))

    def _load_soon(self) -> None:
        if not self._loading:
            self._loading = True
            self._tasks.spawn(self._load(), "metrics state")

    async def _load(self) -> None:
        """Request the state, however long it takes, and until no alert was missed since the request was sent."""
        backoff = Backoff(_RETRY_S, _RETRY_MAX_S, jitter=0.9)
        try:
            while True:
                self._stale = False
                # Events before the request are part of its answer, with all missed ones after them.
                self._held_alerts.clear()
                try:
                    state = await self._service_client.call(METRICS_STATE, Empty())
                except BusError as fault:
                    log.info("no metrics state yet", reason=str(fault))
                    self._send_error_to_waiting()
                    await backoff.wait()
                else:
                    if not self._stale:
                        break
        finally:
            self._loading = False
        self._apply_snapshot(state)

    def _apply_snapshot(self, state: MetricsState) -> None:
        newest = state.history[-1].timestamp if state.history else 0
        later = [record for record in self._history if record.timestamp > newest]
        self._history = deque((*state.history, *later), maxlen=HISTORY)
        active = {alert.id: alert for alert in state.alerts}
        meanwhile, self._held_alerts = self._held_alerts, []
        for event in meanwhile:
            _apply(active, event)
        if self._loaded:  # followers are sent the changes that were missed
            for id, alert in self._active.items():
                if id not in active:
                    self.alerts.send(EncodedMessage(server.AlertResolved(data=alert)))
            for id, alert in active.items():
                if id not in self._active or self._active[id].type != alert.type:
                    self.alerts.send(EncodedMessage(server.AlertRaised(data=alert)))
        self._active = active
        self._loaded = True
        waiting, self._waiting = self._waiting, {}
        self._error_sent.clear()
        for member, names in waiting.values():
            self._add(member, names)

    def _send_error_to_waiting(self) -> None:
        code = ErrorCode.UNAVAILABLE
        error = server.Error(
            code=code.code,
            message="metrics are out of reach; they follow when they are back",
            retryable=code.retryable,
        )
        for member, _ in self._waiting.values():
            if member.connection_id not in self._error_sent:
                self._error_sent.add(member.connection_id)
                member.write(EncodedMessage(error).encode(member.encoding))


def _apply(active: dict[str, Alert], event: AlertEvent) -> None:
    if isinstance(event, server.AlertRaised):
        active[event.data.id] = event.data
    else:
        active.pop(event.data.id, None)
