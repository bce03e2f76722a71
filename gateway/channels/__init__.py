"""Channels that clients subscribe to: `presence`, `presence:ROOM`, `metrics`, `alerts`, `logs`; and broadcasts.

- `channel_names` names of channels
- `subscribe`     subscribing by name, the same for WebSocket connections and SSE streams
- `presence`      who is online, from snapshots and diffs of presence_svc; `roster` is its core without I/O
- `metrics`       the record of each second and the alerts, with their snapshot
- `logs`          the log stream
- `broadcast`     broadcasts, and orders to all gateways
"""
