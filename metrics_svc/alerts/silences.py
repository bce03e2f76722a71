"""Which alerts are not to be announced. A silenced alert stays active and visible."""

from collections.abc import Iterable

from services.wire.records import Alert
from services.wire.rpc import Silence


def silencing(silences: Iterable[Silence], alert: Alert, labels: dict[str, str], now: int) -> Silence | None:
    """Return the first silence in force at `now` (ms) whose matchers all match the alert, or None.

    A label cannot pose as `id`, `metric` or `type`: the alert's own fields win.
    """
    fields = labels | {"id": alert.id, "metric": alert.metric, "type": alert.type}
    for silence in silences:
        in_force = silence.starts_at <= now < silence.ends_at
        if in_force and all(fields.get(matcher.name) == matcher.value for matcher in silence.matchers):
            return silence
    return None
