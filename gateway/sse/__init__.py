"""Server-Sent Events (WHATWG HTML, "Server-sent events").

- `positions`  the event id: where a stream stands in each of its logs, in one string
- `stream`     one stream: a bounded buffer that fan-outs write to and one response reads from
- `endpoints`  `/events` and `/events/metrics`
"""
