"""OTLP/HTTP metrics: an export is split into pieces, converted point by point, and published as reports.

- `export`    `POST /v1/metrics`
- `split`     an export taken apart before it is parsed: pure
- `convert`   data points as reports for the bus: pure
"""
