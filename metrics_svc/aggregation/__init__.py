"""From reports to rows, without I/O and without a clock.

- `sources`     known sources, the limits on them, and the reasons of rejections
- `validation`  the valid part of a report, as a sample
- `totals`      the increase of cumulative totals
- `aggregator`  sums of samples per second: the fleet's row and one per series
- `rows`        sum, count, min, max, last and latency sketches of one series over a span of time
- `rollups`     resolutions and their retention; rows of ten seconds and of a minute
- `packed`      the stored form of rows, merging for long spans of history, points of one metric
"""
