"""Server-Sent Events (WHATWG HTML, "Server-sent events").

- `event_id`   the event id: a stream's position in each of its topics, in one string
- `stream`     one stream: a bounded buffer that fan-outs write to and one response reads from
- `subscriptions` the rooms, channels and inbox of one `/events` stream
- `endpoints`  `/events` and `/events/metrics`
"""
