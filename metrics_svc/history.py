"""Which rows answer a question about the past.

Times in a question and in records are ends of seconds in ms; a second is known inside by its first moment
in s.
"""

from itertools import groupby

from metrics_svc.aggregation.rows import merge, to_record
from metrics_svc.aggregation.tiers import MINUTES, SECONDS, plan
from metrics_svc.store import MetricsStore
from services.wire.records import MetricsRecord
from services.wire.rpc import HistoryQuery

# Answers fit one message of the bus (1 MiB): a record has about 200 bytes, one with min and max about 600.
MAX_RECORDS = 3600
MAX_ROLLUPS = 1500


class BadQuery(ValueError):
    """A question that cannot be answered as asked; the message says what to ask instead."""


async def query(store: MetricsStore, question: HistoryQuery, now: float) -> list[MetricsRecord]:
    """Return records, oldest first.

    Without `start` and `end`: the last `limit`; with either, all between them. With `step` over 1 s: complete
    steps only, in the step asked for or, where that is no longer kept, the next one that is.

    Raises:
        BadQuery: negative numbers, an end before the start, or too many rows.
        StoreUnavailable: the store is away.
    """
    if min(question.limit, question.start, question.end, question.step) < 0:
        raise BadQuery("limit, from, to and step must not be negative")
    if question.end and question.end < question.start:
        raise BadQuery("`to` lies before `from`")
    if question.step > 1:
        return await _rollups(store, question, int(now))
    return await _seconds(store, question, int(now))


async def _seconds(store: MetricsStore, question: HistoryQuery, now: int) -> list[MetricsRecord]:
    if not question.start and not question.end:
        rows = await store.newest(question.source, min(question.limit, MAX_RECORDS))
    else:
        start, end = _span(question, now, step=1)
        rows = await store.rows(
            question.source, SECONDS, max(start, now - SECONDS.keep_s), end, sketches=False
        )
        rows = rows[-MAX_RECORDS:]
    return [to_record(row, SECONDS.step_s, rollup=False) for row in rows]


async def _rollups(store: MetricsStore, question: HistoryQuery, now: int) -> list[MetricsRecord]:
    start, end = _span(question, now, step=question.step)
    start, end = max(start, now - MINUTES.keep_s), min(end, now)
    chosen = plan(_align_up(start, question.step), question.step, now)
    step = chosen.step_s
    start = _align_up(start, step)
    steps = (end - start) // step
    if steps <= 0:
        return []
    if steps > MAX_ROLLUPS:
        least = -(-(end - start) // MAX_ROLLUPS)
        raise BadQuery(
            f"{steps} rows; at most {MAX_ROLLUPS} are returned: ask with a step of {least} s or more"
        )
    rows = await store.rows(
        question.source, chosen.tier, start, start + steps * step, sketches=step != chosen.tier.step_s
    )
    if step == chosen.tier.step_s:
        return [to_record(row, step, rollup=True) for row in rows]
    grouped = groupby(rows, key=lambda row: row.start - row.start % step)
    return [to_record(merge(bucket, members), step, rollup=True) for bucket, members in grouped]


def _align_up(second: int, step: int) -> int:
    return -(-second // step) * step


def _span(question: HistoryQuery, now: int, *, step: int) -> tuple[int, int]:
    """Return the first second asked for and the one after the last."""
    end = question.end // 1000 if question.end else now
    if question.start:
        # A record is stamped with the end of its second: the one stamped `start` began a second earlier.
        return -(-question.start // 1000) - 1, end
    end -= end % step
    return end - min(question.limit, MAX_ROLLUPS if step > 1 else MAX_RECORDS) * step, end
