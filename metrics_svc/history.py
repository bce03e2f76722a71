"""History queries: rows and points of the past.

Times in queries and records are the ends of seconds, in ms. Inside, a second is named by its start, in s.
"""

import asyncio
from collections.abc import Iterable
from itertools import groupby

from metrics_svc.aggregation.packed import decode_row, has_points, merge_packed, read_points, unpack_between
from metrics_svc.aggregation.rollups import MINUTES, SECONDS, Tier, choose_tier
from metrics_svc.aggregation.rows import (
    LATENCY_NAMES,
    QUANTILE_SUFFIXES,
    RECORD_NAMES,
    Row,
    to_point,
    to_record,
    unmeasured,
)
from metrics_svc.store import MetricsStore
from services.wire.rpc import HistoryQuery, MetricsHistory

# An answer must fit one message of the bus (1 MiB): a record has about 200 bytes, one with min and max about 600.
MAX_RECORDS = 3600
MAX_ROLLUPS = 1500
# A point has about 90 bytes: a day of ten seconds.
MAX_POINTS = 8640


class BadQuery(ValueError):
    """An invalid query; the message says how to correct it."""


async def query(store: MetricsStore, question: HistoryQuery, now: float) -> MetricsHistory:
    """Return records, or points of one metric, oldest first.

    Without `start` and `end`: the last `limit`; with either: all between them. With a `step` over 1 s: complete
    steps only, in the requested step or, if that is no longer kept, the next larger one that is.

    Raises:
        BadQuery: negative numbers, an end before the start, or too many rows.
        MetricsStoreUnavailable: the store is unavailable.
    """
    if min(question.limit, question.start, question.end, question.step) < 0:
        raise BadQuery("limit, from, to and step must not be negative")
    if question.end and question.end < question.start:
        raise BadQuery("`to` is before `from`")
    if question.step > 1:
        return await _rollups(store, question, int(now))
    return await _seconds(store, question, int(now))


async def _seconds(store: MetricsStore, question: HistoryQuery, now: int) -> MetricsHistory:
    if not question.start and not question.end:
        rows = await store.newest(question.source, min(question.limit, MAX_RECORDS))
    else:
        start, end = _span(question, now, step=1)
        start = max(start, now - SECONDS.keep_s)
        packed = await store.packed(question.source, SECONDS, start, end)
        rows = unpack_between(packed, start, end)[-MAX_RECORDS:]
    return _answer(rows, question, SECONDS.step_s, rollup=False)


async def _rollups(store: MetricsStore, question: HistoryQuery, now: int) -> MetricsHistory:
    start, end = _span(question, now, step=question.step)
    start, end = max(start, now - MINUTES.keep_s), min(end, now)
    tier, step = choose_tier(_align_up(start, question.step), question.step, now)
    start = _align_up(start, step)
    steps = (end - start) // step
    if steps <= 0:
        return MetricsHistory(rows=[])
    most = MAX_POINTS if question.metric else MAX_ROLLUPS
    if steps > most:
        least = -(-(end - start) // most)
        raise BadQuery(f"{steps} rows; at most {most} are returned: use a step of {least} s or more")
    end = start + steps * step
    stored = await store.packed(question.source, tier, start, end)
    # Tens of milliseconds for a day: in a thread, because the evaluation loop must not wait.
    return await asyncio.to_thread(_merged, stored, question, tier, step, start, end)


def _merged(
    stored: list[bytes], question: HistoryQuery, tier: Tier, step: int, start: int, end: int
) -> MetricsHistory:
    metric = question.metric
    if step == tier.step_s:
        if metric and has_points(metric):
            return MetricsHistory(rows=[], points=read_points(stored, metric, start, end, step))
        return _answer(unpack_between(stored, start, end), question, step, rollup=True)
    packed = (row for row in map(decode_row, stored) if start <= row.start < end)
    # For one metric, mostly means are enough.
    sketches = not metric or metric in LATENCY_NAMES or metric.rpartition(".")[2] in QUANTILE_SUFFIXES
    only = (metric,) if metric else RECORD_NAMES
    grouped = groupby(packed, key=lambda row: row.start - row.start % step)
    merged = (merge_packed(bucket, members, sketches=sketches, only=only) for bucket, members in grouped)
    return _answer(merged, question, step, rollup=True)


def _answer(rows: Iterable[Row], question: HistoryQuery, step: int, *, rollup: bool) -> MetricsHistory:
    answer = MetricsHistory(rows=[])
    for row in rows:  # one at a time: the sketches of merged rows are large
        if not question.metric:
            answer.rows.append(to_record(row, step, rollup=rollup))
            if question.source:
                answer.unmeasured.append(unmeasured(row))
        elif (point := to_point(row, question.metric, step, rollup=rollup)) is not None:
            answer.points.append(point)
    return answer


def _align_up(second: int, step: int) -> int:
    return -(-second // step) * step


def _span(question: HistoryQuery, now: int, *, step: int) -> tuple[int, int]:
    """First requested second, and the one after the last."""
    end = question.end // 1000 if question.end else now
    if question.start:
        # A timestamp is the end of a second: the record of `start` began a second earlier.
        return -(-question.start // 1000) - 1, end
    end -= end % step
    return end - min(question.limit, MAX_ROLLUPS if step > 1 else MAX_RECORDS) * step, end
