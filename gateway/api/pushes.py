"""Pushes of metrics and log lines: bounded work on the event loop, items refused one by one, and the answer.

Pushed data is converted in slices, with other work between them. A thread would not help: parsers written in C keep the
interpreter's lock while they run.
"""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar, cast

import msgspec
from starlette.responses import Response

from gateway.api.body import decode
from gateway.api.responses import ApiError, JsonResponse, describe_bus_error
from gateway.client.commands import CommandError
from gateway.limits import Limit
from services.bus.errors import BusError, Unavailable
from services.wire.codes import ErrorCode
from services.wire.events import MAX_LABEL_SETS_PER_SOURCE
from services.wire.names import InvalidName
from services.wire.records import ErrorBody, Record

T = TypeVar("T")

MAX_ITEMS = 1000
# The loop is kept for at most this long. A slice ends with the first step after it.
SLICE_S = 0.002
_MAX_PUSHES_WAITING = 64
_MAX_EXPORTS_WAITING = 4
_RETRY_MS = 2000
# Sources are named by untrusted clients, so only some are remembered.
_SOURCES_NUMBERED = 10_000
_SOURCES_WITH_LABELS = 1000


# --- the answer ---


class Rejection(Record, frozen=True, kw_only=True):
    """Why the item at `index` was not taken."""

    index: int
    code: str
    message: str


class PushResult(Record, frozen=True, kw_only=True):
    """What became of a push."""

    accepted: int
    rejected: list[Rejection]


class PushRefused(ErrorBody, frozen=True, kw_only=True):
    """No item was taken: an error, and why of each."""

    accepted: int
    rejected: list[Rejection]


class Tally:
    """Counts accepted items and collects rejections of one push."""

    def __init__(self) -> None:
        self.accepted = 0
        self._rejected: list[Rejection] = []

    def reject(self, index: int, fault: ApiError | InvalidName | BusError) -> None:
        """Reject an item.

        Raises:
            Unavailable: nothing has been accepted yet, so the whole push may be sent again.
        """
        if isinstance(fault, Unavailable) and not self.accepted:
            raise fault
        if isinstance(fault, ApiError):
            code, message = fault.code, fault.message
        elif isinstance(fault, InvalidName):
            code, message = ErrorCode.INVALID_NAME, str(fault)
        else:
            code, message = describe_bus_error(fault)
        self._rejected.append(Rejection(index=index, code=code.code, message=message))

    def response(self) -> Response:
        """Return 202 if any item was accepted, or there was none; else 400."""
        rejected = sorted(self._rejected, key=lambda item: item.index)
        if self.accepted or not rejected:
            return JsonResponse(PushResult(accepted=self.accepted, rejected=rejected), 202)
        refused = PushRefused(
            code=ErrorCode.INVALID_FIELD.code,
            message="no item was taken",
            retryable=False,
            accepted=0,
            rejected=rejected,
        )
        return JsonResponse(refused, 400)


# --- items ---

# An array whose elements are the fields: those after the last one are skipped without an object for each.
_Items = msgspec.defstruct(
    "_Items",
    [(f"item_{index}", msgspec.Raw, msgspec.Raw()) for index in range(MAX_ITEMS + 1)],
    array_like=True,
)


def items_of(body: bytes) -> list[msgspec.Raw]:
    """Return the items of a push: the elements of an array, or the one object.

    Raises:
        ApiError: malformed JSON, or too many items.
    """
    if not body.lstrip(b" \t\r\n").startswith(b"["):
        return [decode(body, msgspec.Raw).copy()]
    items = [item for item in msgspec.structs.astuple(decode(body, _Items)) if len(item)]
    if len(items) > MAX_ITEMS:
        raise ApiError(ErrorCode.TOO_LARGE, f"more than {MAX_ITEMS} items")
    return items


def check_item(raw: msgspec.Raw, max_bytes: int) -> None:
    """Raise ApiError for an item that is larger than `max_bytes`."""
    if len(raw) > max_bytes:
        raise ApiError(ErrorCode.TOO_LARGE, f"an item may be {max_bytes} bytes")


# --- state ---


class Slices:
    """Runs one piece of work after the other, one slice in each turn of the loop. At most `max_waiting` wait."""

    def __init__(self, max_waiting: int, on_limit: Callable[[], object]) -> None:
        self._max_waiting = max_waiting
        self._on_limit = on_limit
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def run(self, steps: Iterator[None] | Generator[None, None, T]) -> T:
        """Run the steps, each a millisecond or two; return what a generator returns.

        Raises:
            CommandError: too many wait already; `on_limit` was called.
        """
        if self._waiting > self._max_waiting:
            self._on_limit()
            raise CommandError(ErrorCode.RATE_LIMITED, "too much waits to be converted; try again", _RETRY_MS)
        self._waiting += 1
        try:
            async with self._turn:
                began = time.perf_counter()
                while True:
                    try:
                        next(steps)
                    except StopIteration as end:
                        return cast("T", end.value)
                    spent = time.perf_counter() - began
                    if spent >= SLICE_S:
                        await asyncio.sleep(0)  # all that is ready runs first
                        began = time.perf_counter()
        finally:
            self._waiting -= 1


class ReportNumbers:
    """Numbers the reports of each source within one boot, so that metrics_svc recognises a repeat.

    A new boot starts when more sources are seen than are remembered.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._pushed: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
        self._boot = secrets.token_hex(8)

    def last_push(self, source: str, labels: dict[str, str], now_ms: int) -> int:
        """Return the time of a label set's last push (ms; 0: not known), and note this one."""
        key = source, tuple(sorted(labels.items()))
        if len(self._pushed) >= _SOURCES_NUMBERED and key not in self._pushed:
            self._pushed.clear()
        before = self._pushed.get(key, 0)
        self._pushed[key] = now_ms
        return before

    def next_of(self, source: str) -> tuple[str, int]:
        """Return (boot, seq) of the next report of a source."""
        if len(self._last) >= _SOURCES_NUMBERED and source not in self._last:
            self._last.clear()
            self._boot = secrets.token_hex(8)
        seq = self._last[source] = self._last.get(source, 0) + 1
        return self._boot, seq


class LabelSets:
    """Limit on the label sets of a source: each is a series, kept for a month.

    metrics_svc counts the label sets of all gateways; this count of one gateway answers the client at once. It keeps
    hashes, never what untrusted clients send.
    """

    def __init__(self) -> None:
        self._sources: OrderedDict[str, set[int]] = OrderedDict()

    def admit(self, source: str, labels: dict[str, str]) -> bool:
        """Return True for a label set that the source had before, or that is under the limit."""
        sets = self._sources.setdefault(source, set())
        self._sources.move_to_end(source)
        if len(self._sources) > _SOURCES_WITH_LABELS:
            self._sources.popitem(last=False)
        named = hash(tuple(sorted(labels.items())))
        if named in sets:
            return True
        if len(sets) >= MAX_LABEL_SETS_PER_SOURCE:
            return False
        sets.add(named)
        return True


class Pushes:
    """State that all endpoints for pushes share: a source may push its metrics to any of them."""

    def __init__(self, on_limit: Callable[[Limit], object]) -> None:
        self.numbers = ReportNumbers()
        self.label_sets = LabelSets()
        self.metrics = Slices(_MAX_PUSHES_WAITING, lambda: on_limit(Limit.PUSHES))
        self.logs = Slices(_MAX_PUSHES_WAITING, lambda: on_limit(Limit.PUSHES))
        self.exports = Slices(_MAX_EXPORTS_WAITING, lambda: on_limit(Limit.EXPORTS))
