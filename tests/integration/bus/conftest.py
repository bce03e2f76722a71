"""Fixtures of the bus's tests."""

from tests.support.bus import breakable_nats, connect_bus

__all__ = ["breakable_nats", "connect_bus"]
