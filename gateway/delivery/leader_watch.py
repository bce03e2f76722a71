"""Detects that another server leads a stream of a NATS cluster.

A leader republishes what it stores. If it dies between the two, a message is stored and acknowledged, but not delivered:
the next message of that room would show the gap, but a quiet room has none. This gateway's own connection may stay up
meanwhile. So after an election all rooms are read as after a reconnect.
"""

import asyncio
import random
from collections.abc import Callable

import structlog

from services.bus.client import Bus, BusMessage
from services.bus.specs import disk_specs
from services.settings import Settings

log = structlog.get_logger(__name__)

# A server that dies leads several streams, and gateways hear of all elections at once.
_SETTLE_S = 0.5
_SPREAD_S = 1.0


class LeaderWatch:
    """Calls `on_change` a moment after streams have got other leaders, once for all of them."""

    def __init__(self, bus: Bus, settings: Settings, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._due: asyncio.TimerHandle | None = None
        self._subscriptions = [
            bus.subscribe(settings.subjects.leader_elected(spec.name), self._on_elected)
            for spec in disk_specs(settings)
        ]

    def close(self) -> None:
        """Hear no more."""
        for subscription in self._subscriptions:
            subscription.close()
        self._forget()

    def _forget(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _on_elected(self, message: BusMessage) -> None:
        log.info("a stream has another leader", stream=message.subject.rpartition(".")[2])
        self._forget()
        delay_s = _SETTLE_S + random.uniform(0, _SPREAD_S)
        self._due = asyncio.get_running_loop().call_later(delay_s, self._settled)

    def _settled(self) -> None:
        self._due = None
        self._on_change()
