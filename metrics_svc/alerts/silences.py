"""Which alerts are not to be notified, for a time. A silenced alert stays active and visible."""

from collections.abc import Iterable

from metrics_svc.alerts.matching import fields_of, matches
from services.wire.records import Alert
from services.wire.rpc import Silence


def silencing(silences: Iterable[Silence], alert: Alert, now: int) -> list[str]:
    """Return the ids of the silences in force at `now` (ms) whose matchers all match the alert."""
    fields = fields_of(alert)
    return [
        silence.id
        for silence in silences
        if silence.starts_at <= now < silence.ends_at and matches(silence.matchers, fields)
    ]
