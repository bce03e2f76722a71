"""Maintenance windows: times that come again, in which alerts that match are not notified."""

from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from services.wire.alerting import Window

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class BadWindow(ValueError):
    """A window that cannot be meant; the message says why."""


def check(window: Window) -> None:
    """Raise BadWindow for times or time zones that are none."""
    for name, text in (("start", window.start), ("end", window.end)):
        _time(name, text)
    _zone(window.timezone)


def in_force(window: Window, now_ms: int) -> bool:
    """Say whether a window is open at `now_ms`.

    A window belongs to the day on which it opens: one from 22:00 to 02:00 on `fri` ends on Saturday morning. Times are
    those on the wall of its time zone, so a window is an hour shorter or longer on the days when clocks change.
    """
    local = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(_zone(window.timezone))
    start, end, now = _time("start", window.start), _time("end", window.end), local.time()
    today, yesterday = _opens_on(window, local), _opens_on(window, local - timedelta(days=1))
    if start < end:
        return today and start <= now < end
    return (today and now >= start) or (yesterday and now < end)


def _opens_on(window: Window, day: datetime) -> bool:
    return not window.days or _DAYS[day.weekday()] in window.days


@lru_cache(maxsize=64)
def _time(name: str, text: str) -> time:
    try:
        return datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007  # a time of day has no zone of its own
    except ValueError:
        raise BadWindow(f"`{name}` must be a time as HH:MM") from None


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadWindow(f"no time zone {name!r} is known here") from None
