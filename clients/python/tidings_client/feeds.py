"""What the deployment says of itself: metrics, alerts, logs."""

from collections.abc import Sequence
from typing import Protocol

from tidings_client.channels import Channels, Following
from tidings_client.events import Event
from tidings_client.generated.wire import (
    Alert,
    AlertRaised,
    AlertResolved,
    InitialState,
    Log,
    LogEntry,
    MetricsRecord,
    MetricsUpdate,
    ServerMessage,
)


class Feed(Protocol):
    """Something that the server's messages change."""

    def take(self, message: ServerMessage) -> None:
        """Take any message; others change nothing."""
        ...


class Metrics:
    """The metrics record of each second, and those before it."""

    def __init__(self, channels: Channels, limit: int) -> None:
        self.history: Sequence[MetricsRecord] = ()
        """Oldest first. It is replaced, never changed."""
        self.records: Event[MetricsRecord] = Event()
        """Each new one."""
        self._channels = channels
        self._limit = limit

    @property
    def latest(self) -> MetricsRecord | None:
        """The newest record."""
        return self.history[-1] if self.history else None

    def follow(self) -> Following:
        """Follow the server until `stop` is called on what is returned."""
        return self._channels.follow("metrics")

    def take(self, message: ServerMessage) -> None:
        """Take any message; others change nothing."""
        if isinstance(message, InitialState):
            self._merge(message.history)
        elif isinstance(message, MetricsUpdate):
            self._merge([message.data])
            self.records.emit(message.data)

    def _merge(self, records: Sequence[MetricsRecord]) -> None:
        """A snapshot after a reconnect overlaps what is here."""
        if records:
            before = [record for record in self.history if record.timestamp < records[0].timestamp]
            self.history = [*before, *records][-self._limit :]


class Alerts:
    """The alerts that are active."""

    def __init__(self, channels: Channels) -> None:
        self.active: Sequence[Alert] = ()
        """In the order in which they began. It is replaced, never changed."""
        self.raises: Event[Alert] = Event()
        """An alert is new, or changed severity."""
        self.resolves: Event[Alert] = Event()
        """An alert ended."""
        self._channels = channels

    def follow(self) -> Following:
        """Follow the server until `stop` is called on what is returned."""
        return self._channels.follow("alerts")

    def take(self, message: ServerMessage) -> None:
        """Take any message; others change nothing."""
        match message:
            case InitialState():
                self._replace(message.alerts)
            case AlertRaised():
                self.active = [*self._without(message.data), message.data]
                self.raises.emit(message.data)
            case AlertResolved():
                self.active = self._without(message.data)
                self.resolves.emit(message.data)

    def _without(self, alert: Alert) -> list[Alert]:
        return [each for each in self.active if each.id != alert.id]

    def _replace(self, alerts: Sequence[Alert]) -> None:
        """What began or ended while there was no connection is told like the rest."""
        before, self.active = self.active, alerts
        still = {alert.id for alert in alerts}
        known = {(alert.id, alert.type) for alert in before}
        for alert in before:
            if alert.id not in still:
                self.resolves.emit(alert)
        for alert in alerts:
            if (alert.id, alert.type) not in known:
                self.raises.emit(alert)


class Logs:
    """The log lines of all processes of the deployment."""

    def __init__(self, channels: Channels) -> None:
        self.lines: Event[LogEntry] = Event()
        self._channels = channels

    def follow(self) -> Following:
        """Follow the server until `stop` is called on what is returned."""
        return self._channels.follow("logs")

    def take(self, message: ServerMessage) -> None:
        """Take any message; others change nothing."""
        if isinstance(message, Log):
            self.lines.emit(message.data)
