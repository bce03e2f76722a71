"""The channels about the deployment: metrics, alerts, logs."""

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
    """A part of the client that messages of the server change."""

    def take(self, message: ServerMessage) -> None:
        """Handle a message; those of other channels are ignored."""
        ...


class Metrics:
    """Metrics: one record a second, and a history."""

    def __init__(self, channels: Channels, limit: int) -> None:
        self.history: Sequence[MetricsRecord] = ()
        """Oldest first. Replaced, never mutated."""
        self.records: Event[MetricsRecord] = Event()
        """Each new record."""
        self._channels = channels
        self._limit = limit

    @property
    def latest(self) -> MetricsRecord | None:
        """The newest record."""
        return self.history[-1] if self.history else None

    def follow(self) -> Following:
        """Subscribe until `stop` is called on the returned object."""
        return self._channels.follow("metrics")

    def take(self, message: ServerMessage) -> None:
        """Handle a message; those of other channels are ignored."""
        if isinstance(message, InitialState):
            self._merge(message.history)
        elif isinstance(message, MetricsUpdate):
            self._merge([message.data])
            self.records.emit(message.data)

    def _merge(self, records: Sequence[MetricsRecord]) -> None:
        """Add records. A snapshot after a reconnect overlaps the history."""
        if records:
            before = [record for record in self.history if record.timestamp < records[0].timestamp]
            self.history = [*before, *records][-self._limit :]


class Alerts:
    """Active alerts."""

    def __init__(self, channels: Channels) -> None:
        self.active: Sequence[Alert] = ()
        """Oldest first. Replaced, never mutated."""
        self.raises: Event[Alert] = Event()
        """An alert is new, or changed severity."""
        self.resolves: Event[Alert] = Event()
        """An alert ended."""
        self._channels = channels

    def follow(self) -> Following:
        """Subscribe until `stop` is called on the returned object."""
        return self._channels.follow("alerts")

    def take(self, message: ServerMessage) -> None:
        """Handle a message; those of other channels are ignored."""
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
        """Replace all alerts. Also emits what began or ended while there was no connection."""
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
    """Log lines of all processes of the deployment."""

    def __init__(self, channels: Channels) -> None:
        self.lines: Event[LogEntry] = Event()
        self._channels = channels

    def follow(self) -> Following:
        """Subscribe until `stop` is called on the returned object."""
        return self._channels.follow("logs")

    def take(self, message: ServerMessage) -> None:
        """Handle a message; those of other channels are ignored."""
        if isinstance(message, Log):
            self.lines.emit(message.data)
