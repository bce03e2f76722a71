"""Rates: bursts, floods, and how they are refused."""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from gateway import limits
from gateway.auth.identity import Identity
from gateway.client.commands import ClientState, CommandError
from gateway.connections import surplus
from gateway.delivery.streams import route_of
from gateway.limits import FloodDetector, KeyedBuckets, Limit, TokenBucket
from services.settings import Settings
from services.settings_values import Namespace
from services.wire import client
from services.wire.codes import ErrorCode
from services.wire.grants import ALL
from services.wire.records import Status


def test_a_slow_rate_still_lets_single_ones_through() -> None:
    bucket = TokenBucket(0.1, 0.0)
    assert bucket.consume(0.0) == 0.0
    assert bucket.consume(0.0) == pytest.approx(10.0)
    assert bucket.consume(10.0) == 0.0


def test_each_key_has_a_rate_of_its_own() -> None:
    buckets = KeyedBuckets(1.0, 0.0)
    assert [buckets.consume("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    assert buckets.consume("b", 0.0) == 0.0
    assert buckets.consume("a", 1.0) == 0.0
    assert KeyedBuckets(0.0, 0.0).consume("a", 0.0) == 0.0


@pytest.mark.parametrize("rate", [0.1, 0.7, 1.0, 50.0])
def test_forgetting_a_key_gives_it_nothing(rate: float) -> None:
    """Whenever it is asked, and however often others are, a key gets what a bucket alone would give it."""
    for gap_s in (0.3, 1.9, 2.0, 2.1, 3.9, 10.0, 25.0):
        buckets, alone = KeyedBuckets(rate, 0.0), TokenBucket(rate, 0.0)
        for step in range(300):
            now = step * gap_s / 7
            if step % 7 < 2:
                assert (buckets.consume("a", now) == 0.0) == (alone.consume(now) == 0.0)
            else:
                buckets.consume(f"other-{step}", now)


def test_keys_that_only_once_asked_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    buckets = KeyedBuckets(10.0, 0.0)
    for second in range(10):
        for number in range(100):
            buckets.consume(f"{second}-{number}", float(second))
    assert len(buckets) <= 400
    monkeypatch.setattr(limits, "MAX_KEYS", 50)
    for number in range(10_000):
        buckets.consume(f"many-{number}", 10.0)
    assert len(buckets) <= 100


def seconds_until_flood(rate: float, sent_per_s: int) -> float | None:
    """Return when a steady sender counts as flooding; None: not within a minute."""
    bucket, strikes = TokenBucket(rate, 0.0), FloodDetector(rate, 0.0)
    for number in range(60 * sent_per_s):
        now = number / sent_per_s
        if bucket.consume(now) and strikes.add(now):
            return now
    return None


@pytest.mark.parametrize("sent_per_s", [50, 100, 150, 190])
def test_up_to_twice_the_rate_is_no_flood(sent_per_s: int) -> None:
    assert seconds_until_flood(100, sent_per_s) is None


@pytest.mark.parametrize(("sent_per_s", "within_s"), [(300, 20.0), (1000, 3.0), (20_000, 0.2)])
def test_far_over_the_rate_is_a_flood(sent_per_s: int, within_s: float) -> None:
    assert (seconds_until_flood(100, sent_per_s) or 99) < within_s


class Counted:
    """The state of a client, and the limits it met."""

    def __init__(self, **settings: Any) -> None:
        self.limits: list[Limit] = []
        chosen = Settings(**settings)
        self.state = ClientState(
            Identity("ada", "ada", ALL), chosen, partial(route_of, chosen, {}), 0.0, self.limits.append
        )

    def send(self, message: client.AnyClientMessage, now: float = 0.0, size: int = 0) -> CommandError | None:
        return outcome(lambda: self.state.check(message, now, size))


def outcome(check: Callable[[], object]) -> CommandError | None:
    """Return the error of a check, None where it passes."""
    try:
        check()
    except CommandError as error:
        return error
    return None


def code_of(error: CommandError | None) -> str:
    """Return the code of the error, empty where there is none."""
    return "" if error is None else error.code.code


def test_publish_flood_ends_the_connection() -> None:
    ada = Counted(message_rate=10)
    errors = [ada.send(client.Heartbeat()) for _ in range(200)]
    assert {code_of(error) for error in errors[20:100]} == {ErrorCode.RATE_LIMITED.code}
    assert [error is not None and error.flood for error in errors].index(True) == 20 + 10 * 10 + 1
    assert Limit.MESSAGE_RATE in ada.limits


def test_malformed_messages_are_a_flood_too() -> None:
    ada = Counted(message_rate=10)
    errors = [outcome(lambda: ada.state.check_rates(0.0, 0)) for _ in range(200)]
    assert any(error is not None and error.flood for error in errors)


def test_bytes_have_a_rate_of_their_own() -> None:
    ada = Counted(message_bytes_rate=1000)
    assert [code_of(ada.send(client.Heartbeat(), size=900)) for _ in range(3)] == ["", "", "rate_limited"]
    assert code_of(ada.send(client.Heartbeat(), size=200)) == ""
    error = ada.send(client.Heartbeat(), size=900)
    assert error is not None
    assert error.retry_after_ms == 900
    assert code_of(ada.send(client.Heartbeat(), now=0.9, size=900)) == ""
    assert ada.limits == [Limit.MESSAGE_BYTES_RATE] * 2


def test_a_message_larger_than_a_burst_takes_all_of_one() -> None:
    ada = Counted(message_bytes_rate=1000)
    assert code_of(ada.send(client.Heartbeat(), size=50_000)) == ""
    assert code_of(ada.send(client.Heartbeat(), now=1.9, size=50_000)) == "rate_limited"
    assert code_of(ada.send(client.Heartbeat(), now=2.0, size=50_000)) == ""


def test_bytes_that_are_no_message_count_too() -> None:
    ada = Counted(message_bytes_rate=1000)
    codes = [code_of(outcome(lambda: ada.state.check_rates(0.0, 1500))) for _ in range(2)]
    assert codes == ["", "rate_limited"]


def test_presence_has_a_rate_of_its_own() -> None:
    ada = Counted(presence_rate=2)
    update = client.PresenceUpdate(custom_data=msgspec.Raw(b"1"))
    changes = [update, client.StatusChange(status=Status.AWAY)] * 3
    refused = [ada.send(change) is not None for change in changes]
    assert refused == [False] * 4 + [True] * 2
    assert code_of(ada.send(update)) == "rate_limited"
    assert code_of(ada.send(client.Heartbeat())) == ""
    assert set(ada.limits) == {Limit.PRESENCE_RATE}


def test_custom_data_counts_once_for_each_notified_room() -> None:
    """So no client makes others carry more bytes than it may send."""
    ada = Counted(message_bytes_rate=1000)
    ada.state.charge_custom_data(150, 10, 0.0)
    with pytest.raises(CommandError, match="1000 bytes per second"):
        ada.state.charge_custom_data(150, 10, 0.0)
    ada.state.charge_custom_data(50, 10, 0.0)


NAMESPACES = {
    "news": Namespace(publish="server"),
    "slow": Namespace(message_rate=1, echo=True),
}


def message(room: str, **fields: object) -> client.PublishRoomCommand:
    return client.PublishRoomCommand(room=room, content=msgspec.Raw(b"1"), **fields)  # type: ignore[arg-type]


def test_a_namespace_where_only_the_server_publishes() -> None:
    ada = Counted(namespaces=NAMESPACES)
    ada.send(client.JoinRoom(room="news:today"))
    assert code_of(ada.send(message("news:today"))) == ErrorCode.FORBIDDEN.code


def test_a_namespace_has_a_rate_of_its_own_for_all_its_rooms() -> None:
    ada = Counted(namespaces=NAMESPACES)
    for room in ("slow:a", "slow:b", "fast"):
        ada.send(client.JoinRoom(room=room))
    assert code_of(ada.send(message("slow:a"))) == ""
    assert code_of(ada.send(message("slow:b"))) == ""
    assert code_of(ada.send(message("slow:a"))) == ErrorCode.RATE_LIMITED.code
    assert code_of(ada.send(message("fast"))) == ""
    assert code_of(ada.send(message("slow:a"), now=1.0)) == ""
    assert ada.limits == [Limit.NAMESPACE_RATE]


def test_the_oldest_connections_have_to_go() -> None:
    assert surplus({"a": 3, "b": 1, "c": 2}, 2) == ["b"]
    assert surplus({"a": 3, "b": 1, "c": 2}, 1) == ["b", "c"]
    assert surplus({"b": 1, "a": 1, "c": 1}, 2) == ["a"]
    assert surplus({"a": 1}, 5) == []


def test_what_was_read_for_a_connection_counts_against_its_rate() -> None:
    """A recovery is as many messages as it is large: 64 KiB each."""
    ada = Counted(message_rate=10.0)
    largest = Settings().max_message_bytes
    ada.state.charge_read(15 * largest, 0.0)
    assert [code_of(ada.send(client.Heartbeat())) for _ in range(6)] == [""] * 5 + ["rate_limited"]
    ada.state.charge_read(10_000 * largest, 0.0)  # what is owed is no more than a burst
    assert code_of(ada.send(client.Heartbeat(), 2.0)) == "rate_limited"
    assert code_of(ada.send(client.Heartbeat(), 4.2)) == ""
    unlimited = Counted(message_rate=0.0)
    unlimited.state.charge_read(10**9, 0.0)
    assert code_of(unlimited.send(client.Heartbeat())) == ""
