"""Muting of alerts: matchers, silences, maintenance windows, inhibition."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from metrics_svc.alerts.muting import (
    DEFAULT_INHIBITIONS,
    MAX_NAMED,
    BadWindow,
    Inhibition,
    Muted,
    Muter,
    check_window,
    is_open,
    matches,
)
from services.wire.alerting import Window
from services.wire.records import UNSET, Alert
from services.wire.rpc import Matcher, Silence
from tests.support.notifying import entry


def alert(id: str = "cpu-alert", severity: str = "critical", source: str = "", **labels: str) -> Alert:
    return Alert(
        id=id, type=severity, metric=id.split("-")[0], value=95, threshold=90, message="", timestamp=0,
        source=source or UNSET, labels=labels or UNSET,
    )  # type: ignore[arg-type]  # fmt: skip


def mutes(
    *alerts: Alert,
    silences: Sequence[Silence] = (),
    windows: Sequence[Window] = (),
    inhibitions: Sequence[Inhibition] = (),
    now: int = 150,
) -> Muted:
    return Muter().muted(alerts, silences, windows, inhibitions, now)


# A label cannot pose as a field of the alert.
ALERT = alert(team="billing", metric="disk", type="none")


def silence(*matchers: tuple[str, str], starts_at: int = 100, ends_at: int = 200) -> Silence:
    named = [Matcher(name=name, value=value) for name, value in matchers]
    return Silence(id="s", matchers=named, starts_at=starts_at, ends_at=ends_at)


@pytest.mark.parametrize(
    ("matchers", "covered"),
    [
        ([("metric", "cpu")], True),
        ([("id", "cpu-alert"), ("type", "critical")], True),
        ([("metric", "cpu"), ("type", "warning")], False),
        ([("team", "billing")], True),
        ([("team", "other")], False),
        ([("missing", "x")], False),
        ([("metric", "disk")], False),
        ([("source", "")], True),
    ],
)
def test_all_matchers_must_match(matchers: list[tuple[str, str]], covered: bool) -> None:
    assert mutes(ALERT, silences=[silence(*matchers)]).silences == ({ALERT.id: {"s"}} if covered else {})


@pytest.mark.parametrize(("now", "covered"), [(99, False), (100, True), (199, True), (200, False)])
def test_only_in_its_time(now: int, covered: bool) -> None:
    assert bool(mutes(ALERT, silences=[silence(("metric", "cpu"))], now=now).ids) == covered


@pytest.mark.parametrize(
    ("op", "value", "agrees"),
    [
        ("=", "web-1", True), ("=", "web-*", False), ("!=", "web-2", True), ("!=", "web-1", False),
        ("~", "web-*", True), ("~", "web-?", True), ("~", "web", False), ("~", "[vw]eb-1", True),
        ("!~", "db-*", True), ("!~", "web-*", False), ("~", "*" * 60 + "x", False),
    ],
)  # fmt: skip
def test_operators(op: str, value: str, agrees: bool) -> None:
    matcher = Matcher(name="source", value=value, op=op)  # type: ignore[arg-type]
    assert matches([matcher], {"source": "web-1"}) == agrees


def window(start: str, end: str, *days: str, timezone: str = "UTC") -> Window:
    return Window(
        id="w", matchers=[Matcher(name="metric", value="cpu")], days=list(days),
        start=start, end=end, timezone=timezone,
    )  # type: ignore[arg-type]  # fmt: skip


def at(day: int, hour: int, minute: int = 0) -> int:
    """Return a time in ms; the 2nd of March 2026 is a Monday."""
    return int(datetime(2026, 3, day, hour, minute, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("when", "opened", "now", "expected"),
    [
        ("every day", window("02:00", "04:00"), at(2, 2), True),
        ("its end is out", window("02:00", "04:00"), at(2, 4), False),
        ("the right day", window("02:00", "04:00", "mon"), at(2, 3), True),
        ("another day", window("02:00", "04:00", "tue"), at(2, 3), False),
        ("over midnight, before", window("22:00", "02:00", "mon"), at(2, 23), True),
        ("over midnight, after", window("22:00", "02:00", "mon"), at(3, 1), True),
        ("over midnight, of the day before", window("22:00", "02:00", "tue"), at(3, 1), False),
        ("a whole day", window("00:00", "00:00", "mon"), at(2, 13), True),
        ("winter time", window("09:00", "10:00", timezone="Europe/Berlin"), at(2, 8, 30), True),
        ("summer time", window("09:00", "10:00", timezone="Europe/Berlin"), at(30, 8, 30), False),
        ("summer time, as the wall has it", window("09:00", "10:00", timezone="Europe/Berlin"), at(30, 7, 30), True),
    ],
)  # fmt: skip
def test_windows(when: str, opened: Window, now: int, expected: bool) -> None:
    assert is_open(opened, now) == expected, when
    muted = mutes(ALERT, alert("disk-alert"), windows=[opened], now=now)
    assert muted.windows == ({ALERT.id: {"w"}} if expected else {})


@pytest.mark.parametrize(
    "bad", [window("2", "04:00"), window("25:00", "04:00"), window("01:00", "02:00", timezone="Mars/Base")]
)
def test_windows_that_cannot_be_meant(bad: Window) -> None:
    with pytest.raises(BadWindow):
        check_window(bad)


CRITICAL = alert("cpu-alert", "critical")


@pytest.mark.parametrize(
    ("about", "firing", "inhibitors"),
    [
        (alert("cpu-web-alert", "warning", "web"), [CRITICAL], ["cpu-alert"]),
        (alert("cpu-web-alert", "critical", "web"), [CRITICAL], []),
        (alert("disk-alert", "warning"), [CRITICAL], []),
        (CRITICAL, [CRITICAL], []),
        (alert("cpu-b-alert", "warning", "b"), [alert("cpu-a-alert", "critical", "a")], []),
        (alert("cpu-a{x}-alert", "warning", "a"), [alert("cpu-a-alert", "critical", "a")], ["cpu-a-alert"]),
        (alert("disk-a-alert", "critical", "a"), [alert("up-a-alert", "warning", "a")], ["up-a-alert"]),
        (alert("disk-b-alert", "critical", "b"), [alert("up-a-alert", "critical", "a")], []),
        (alert("up-a-alert", "critical", "a"), [alert("up-a-alert", "critical", "a")], []),
    ],
)
def test_built_in_inhibitions(about: Alert, firing: list[Alert], inhibitors: list[str]) -> None:
    muted = mutes(about, *firing, inhibitions=DEFAULT_INHIBITIONS)
    assert list(muted.inhibitors.get(about.id, ())) == inhibitors


def test_what_matches_both_sides_is_not_inhibited_by_its_like() -> None:
    every = [Matcher(name="metric", value="*", op="~")]
    inhibition = Inhibition(source=every, target=every)
    assert mutes(alert("a-alert"), alert("b-alert"), inhibitions=[inhibition]).ids == frozenset()


def test_what_is_over_inhibits_nothing() -> None:
    over, warning = entry("cpu-alert", "critical", ended=1), entry("cpu-web-alert", "warning", source="web")
    assert mutes(over, warning, inhibitions=DEFAULT_INHIBITIONS).ids == frozenset()


def test_of_many_that_inhibit_the_first_are_named() -> None:
    sources = [alert(f"up-{at:03}-alert", source=f"s{at}") for at in range(100)]
    inhibition = Inhibition(
        source=[Matcher(name="metric", value="up")], target=[Matcher(name="metric", value="cpu")]
    )
    named = mutes(ALERT, *sources, inhibitions=[inhibition]).inhibitors[ALERT.id]
    assert named == [one.id for one in sources[:MAX_NAMED]]


def test_a_look_sees_what_changed_since_the_last_one() -> None:
    muter, now = Muter(), at(2, 3)
    web, db = alert("cpu-web-alert", source="web"), alert("cpu-db-alert", source="db")
    of_web = Silence(
        id="w", matchers=[Matcher(name="source", value="web")], starts_at=0, ends_at=now + 60_000
    )
    of_db = Silence(id="w", matchers=[Matcher(name="source", value="db")], starts_at=0, ends_at=now + 60_000)

    def look(
        *alerts: Alert, silences: Sequence[Silence] = (), windows: Sequence[Window] = (), at: int = now
    ) -> set[str]:
        return set(muter.muted(alerts, silences, windows, (), at).ids)

    assert look(web, db) == set()
    assert look(web, db, silences=[of_web]) == {web.id}
    assert look(web, db, silences=[of_db]) == {db.id}  # the same silence, replaced
    assert look(web, silences=[of_db]) == set()
    assert look(web, db, silences=[of_db]) == {db.id}
    assert look(alert(web.id, source="db"), db, silences=[of_db]) == {
        web.id,
        db.id,
    }  # the same alert, changed
    assert look(web, db, silences=[of_db], at=now + 60_000) == set()
    assert look(web, db) == set()
    opened = window("03:00", "03:01")
    assert look(web, db, windows=[opened]) == {web.id, db.id}
    assert look(web, db, windows=[opened], at=now + 60_000) == set()


def test_the_api_shows_what_mutes_an_alert() -> None:
    warning, other = alert("cpu-web-alert", "warning", "web"), alert("disk-alert")
    muted = mutes(
        CRITICAL,
        warning,
        other,
        silences=[silence(("metric", "cpu"))],
        windows=[window("00:00", "00:00")],
        inhibitions=DEFAULT_INHIBITIONS,
    )
    shown = muted.annotated(warning)
    assert (shown.silenced_by, shown.muted_by, shown.inhibited_by) == (["s"], ["w"], ["cpu-alert"])
    assert muted.annotated(other).silenced_by is UNSET
