"""Keepalive: pings spread over the interval, silence ends a connection."""

from gateway.ws.timers import Keepalive
from services.telemetry import MetricName, counter
from services.wire.codes import CloseCode


class Watched:
    def __init__(self) -> None:
        self.last_received = 0.0
        self.pings = 0
        self.closed: list[CloseCode] = []
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True

    def ping(self) -> None:
        self.pings += 1

    def close(self, code: CloseCode) -> None:
        self.closed.append(code)


def test_each_client_is_pinged_once_an_interval_and_no_two_ticks_ping_all() -> None:
    keepalive = Keepalive(ping_interval_s=5, idle_timeout_s=100)
    watched = [Watched() for _ in range(10)]
    for one in watched:
        keepalive.add(one)
    for tick in range(5):
        before = sum(one.pings for one in watched)
        keepalive.tick(float(tick))
        assert sum(one.pings for one in watched) - before == 2
    assert all(one.pings == 1 for one in watched)


def test_silence_ends_a_connection_and_any_byte_keeps_it() -> None:
    keepalive = Keepalive(ping_interval_s=1, idle_timeout_s=3)
    silent, alive = Watched(), Watched()
    keepalive.add(silent)
    keepalive.add(alive)
    for second in range(1, 6):
        alive.last_received = second - 0.5
        keepalive.tick(float(second))
    assert silent.closed == [CloseCode.IDLE_TIMEOUT] * 2
    assert alive.closed == []
    keepalive.discard(silent)
    keepalive.discard(silent)
    assert len(keepalive) == 1


def test_one_connection_that_fails_costs_the_others_nothing() -> None:
    class Broken(Watched):
        def ping(self) -> None:
            raise LookupError("broken")

    counted = counter(MetricName.CONNECTION_FAULTS).labels("keepalive")
    before = counted._value.get()
    keepalive = Keepalive(ping_interval_s=1, idle_timeout_s=3)
    watched = [Watched(), Broken(), Watched()]
    for one in watched:
        keepalive.add(one)
    for second in (1.0, 2.0):
        keepalive.tick(second)
    assert [(one.pings, one.aborted) for one in watched] == [(2, False), (0, True), (2, False)]
    assert len(keepalive) == 2
    assert counted._value.get() - before == 1
