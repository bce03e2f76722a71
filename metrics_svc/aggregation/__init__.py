"""From reports to rows, without I/O and without a clock.

- `admission`  which reports, and which parts of a report, are taken; every refusal has a reason
- `totals`     totals since a start into what is new since the last report
- `spread`     counts of longer times over as many seconds
- `seconds`    per-second buckets of all sources; closing a second gives the fleet's row and each source's
- `rows`       sum, count, min, max, last and a latency sketch of a stretch of time; how rows merge
- `packed`     rows as the store keeps them, and their merging for long stretches of history
- `points`     one metric out of packed rows, for long stretches of it
- `tiers`      which resolutions are kept for how long, and which of them answers a question
- `rollups`    rows of one second into rows of ten seconds and of a minute
"""
