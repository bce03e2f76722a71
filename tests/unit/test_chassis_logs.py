"""Log lines: their fields, redaction, and the way to the log stream."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import structlog

from services.bus.errors import PayloadTooLarge, Unavailable
from services.logs.redaction import clean, clean_text, clean_traceback, is_secret
from services.logs.setup import configure_logging
from services.logs.shipper import LogShipper
from services.settings import Settings
from services.wire.events import LogReport
from services.wire.records import LogEntry
from services.wire.subjects import Subjects


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def configured(**settings: object) -> tuple[io.StringIO, LogShipper]:
    stream = io.StringIO()
    shipper = configure_logging(Settings(**settings), "gateway", "gateway-1", stream)  # type: ignore[arg-type]
    return stream, shipper


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("token", True),
        ("jwt_token", True),
        ("sessionSecret", True),
        ("Authorization", True),
        ("api_key", True),
        ("TIDINGS_SESSION_SECRET", True),
        ("ticket", True),
        ("tokens_per_second", False),
        ("room", False),
        ("sessions", False),
    ],
)
def test_secrets_are_known_by_the_words_of_their_name(key: str, secret: bool) -> None:
    assert is_secret(key) is secret


def test_text_loses_control_and_direction_characters() -> None:
    assert clean_text("a\x1b[31m\u202eb\u2066c\x00\x9bd\ud800e\n\tf") == "a[31mbcde  f"


def test_long_text_is_cut() -> None:
    assert len(clean_text("x" * 10_000)) < 2200


def test_credentials_in_urls_are_hidden() -> None:
    assert clean_text("cannot reach nats://u:p@h:4222, redis://:pw@h") == (
        "cannot reach nats://***@h:4222, redis://***@h"
    )


def test_tracebacks_keep_their_lines() -> None:
    assert clean_traceback("a\n\x1bb") == "a\nb"


def test_values_become_plain_and_bounded() -> None:
    deep: Any = "x"
    for _ in range(50):
        deep = [deep]
    assert clean({"data": b"payload", 1: {"password": "p"}, "d": deep, "o": object}) == {
        "data": "<7 bytes>",
        "1": {"password": "***"},
        "d": [[["…"]]],
        "o": "<class 'object'>",
    }


def test_our_lines_and_those_of_libraries_come_out_alike() -> None:
    stream, _ = configured(log_format="json")
    with structlog.contextvars.bound_contextvars(connection="c1"):
        structlog.get_logger("here").info("joined", room="lobby", token="abc")
        logging.getLogger("nats").warning("slow %s", "consumer")
    ours, theirs = lines_of(stream)
    assert {
        key: ours[key] for key in ("level", "event", "service", "instance", "connection", "room", "token")
    } == {
        "level": "info",
        "event": "joined",
        "service": "gateway",
        "instance": "gateway-1",
        "connection": "c1",
        "room": "lobby",
        "token": "***",
    }
    assert list(ours)[:3] == ["timestamp", "level", "service"]
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("slow consumer", "warning", "nats")
    assert theirs["connection"] == "c1"


def test_exceptions_are_in_the_line() -> None:
    stream, _ = configured(log_format="json")
    try:
        int("bad \x1b[0m nats://u:p@h")
    except ValueError:
        structlog.get_logger().exception("failed")
    [line] = lines_of(stream)
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert "\\x1b" in line["exception"]  # as repr spells it
    assert "nats://***@h" in line["exception"]


def test_levels_below_the_configured_one_are_silent() -> None:
    stream, shipper = configured(log_format="json", log_level="warning")
    structlog.get_logger().info("quiet")
    logging.getLogger("lib").info("quiet")
    assert stream.getvalue() == ""
    assert len(shipper) == 0


def test_console_lines_are_for_people() -> None:
    stream, _ = configured(log_format="console")
    structlog.get_logger("here").warning("slow client", room="lobby")
    assert "slow client" in stream.getvalue()
    assert "room=lobby" in stream.getvalue()


class FakeBus:
    """Accepts everything, or refuses on request."""

    def __init__(self) -> None:
        self.reports: list[LogReport] = []
        self.down = False
        self.most_entries = 1000

    def publish(self, subject: str, payload: bytes) -> None:
        assert subject == "t.logs.report.gateway"
        structlog.get_logger().error("written while shipping")
        if self.down:
            raise Unavailable("down")
        report = msgspec.json.decode(payload, type=LogReport)
        if len(report.entries) > self.most_entries:
            raise PayloadTooLarge(len(payload), 1)
        self.reports.append(report)


def entry(number: int) -> LogEntry:
    return LogEntry(timestamp=number, level="info", source="s", event=f"e{number}")


SUBJECT = Subjects("t").logs_report("gateway")


def test_lines_reach_the_stream_without_recursion() -> None:
    _, shipper = configured()
    structlog.get_logger("here").debug("not this")
    structlog.get_logger("here").info("this", room="lobby", password="p")
    bus = FakeBus()
    shipper.flush(bus.publish, SUBJECT)
    shipper.flush(bus.publish, SUBJECT)
    [report] = bus.reports
    [line] = report.entries
    assert (report.source, report.dropped) == ("gateway-1", 0)
    assert (line.level, line.event) == ("info", "this")
    assert line.fields == {"room": "lobby", "password": "***", "logger": "here"}


def test_a_full_buffer_drops_the_oldest_and_counts_them() -> None:
    shipper = LogShipper("s", "gateway", capacity=10)
    bus = FakeBus()
    bus.down = True
    for number in range(15):
        shipper.add(entry(number))
        shipper.flush(bus.publish, SUBJECT)
    bus.down = False
    shipper.flush(bus.publish, SUBJECT)
    [report] = bus.reports
    assert [line.event for line in report.entries] == [f"e{number}" for number in range(5, 15)]
    assert report.dropped == 5
    assert shipper.dropped == 0


def test_reports_are_split_to_fit_the_bus() -> None:
    shipper = LogShipper("s", "gateway")
    for number in range(250):
        shipper.add(entry(number))
    bus = FakeBus()
    bus.most_entries = 30
    shipper.flush(bus.publish, SUBJECT)
    assert [line.timestamp for report in bus.reports for line in report.entries] == list(range(250))
    assert max(len(report.entries) for report in bus.reports) <= 30


def test_a_line_that_never_fits_is_given_up() -> None:
    shipper = LogShipper("s", "gateway")
    shipper.add(entry(1))
    bus = FakeBus()
    bus.most_entries = 0
    shipper.flush(bus.publish, SUBJECT)
    assert (len(shipper), shipper.dropped) == (0, 1)


async def test_stopping_sends_the_rest() -> None:
    shipper = LogShipper("s", "gateway")
    bus = FakeBus()
    shipper.start(bus.publish, Subjects("t"))
    shipper.add(entry(1))
    await shipper.stop()
    await shipper.stop()
    assert [line.event for report in bus.reports for line in report.entries] == ["e1"]
