"""The HTTP surface, except for WebSocket and SSE: one file for each thing that can be asked for.

- `routes`     all paths; what the application mounts
- `deps`       what the handlers need from the rest of the gateway
- `operations` what each path takes and answers, for the contract at `/openapi.json`
- `access`     who may call what
- `errors`     the one error body, and how faults become it
- `body`, `query`, `responses`   bounded reading of requests, and answers as JSON
- `reports`, `otlp_points`, `log_lines`, `histograms`   what applications push, checked item by item: pure
- `headers`    middleware: foreign origins, and headers that keep browsers out of trouble

Access is decided in the handler that a route leads to, never by comparing the URL's text: a proxy, a router
and a browser may read one URL in three ways.
"""
