"""Which alerts a silence or a maintenance window means."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from services.wire.records import Record
from services.wire.rpc import Matcher


class MatcherRequest(Record, frozen=True, kw_only=True):
    """A field of alerts (`id`, `metric`, `type`, `source` or a label) and what it must be.

    `op`: `=` or `!=`; `~` or `!~` takes the value for a pattern with `*`, `?` and `[…]`.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    value: Annotated[str, msgspec.Meta(max_length=128)]
    op: Literal["=", "!=", "~", "!~"] = "="


def matchers_of(asked: Sequence[MatcherRequest]) -> list[Matcher]:
    """Return matchers as the bus carries them."""
    return [Matcher(name=matcher.name, value=matcher.value, op=matcher.op) for matcher in asked]
