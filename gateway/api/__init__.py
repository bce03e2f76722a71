"""The HTTP surface, except for WebSocket and SSE: one module for each resource.

- `endpoint`   the one declaration of an operation: route, access, parameters, limits and contract
- `responses`  answers as JSON, and the one error body
- `body`       bounded reading of request bodies
- `pushes`     what pushes of metrics and logs share: slices of work, rejections, state
- `metric_items`, `histograms`   pushed metrics, checked and converted: pure
- `alerts`, `health`, `logs`, `messages`, `metrics`, `otlp`, `presence`, `rooms`, `users`   the operations
"""
