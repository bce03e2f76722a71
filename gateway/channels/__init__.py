"""Channels that clients subscribe to: `presence`, `presence:ROOM`, `metrics`, `alerts`, `logs`; and broadcasts.

- `channels`      all channels, subscribed to by name; the log stream
- `channel_names` names of channels
- `presence`      presence lists, from snapshots and diffs of presence_svc; `roster` is its core without I/O
- `metrics`       the record of each second and the alerts, with their snapshot
- `broadcast`     broadcasts, and orders to all gateways
"""
