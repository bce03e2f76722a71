"""Which alerts a list of matchers means."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import translate
from functools import lru_cache

from services.wire.records import UNSET, Alert
from services.wire.rpc import Matcher

# What matchers see of an alert, by name.
Fields = Mapping[str, str]


def fields_of(alert: Alert) -> dict[str, str]:
    """Return what matchers see of an alert. A label cannot pose as a field: the alert's own fields win."""
    labels = alert.labels if alert.labels is not UNSET else {}
    source = alert.source if alert.source is not UNSET else ""
    return labels | {"id": alert.id, "metric": alert.metric, "type": alert.type, "source": source}


@lru_cache(maxsize=1024)
def _pattern(text: str) -> "re.Pattern[str]":
    # `translate` makes each `*` atomic, so that matching takes time linear in the text for each of them.
    return re.compile(translate(text))


def matches(matchers: Iterable[Matcher], fields: Fields) -> bool:
    """Say whether all matchers agree; a field that is not there is the empty text."""
    for matcher in matchers:  # noqa: SIM110  # `all` takes twice the time, for thousands of pairs in a row
        if not _agrees(matcher, fields.get(matcher.name, "")):
            return False
    return True


def _agrees(matcher: Matcher, value: str) -> bool:
    if matcher.op in ("=", "!="):
        return (value == matcher.value) is (matcher.op == "=")
    return (_pattern(matcher.value).match(value) is not None) is (matcher.op == "~")
