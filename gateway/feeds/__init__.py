"""Feeds of the whole deployment, as channels.

- `metrics`   the record each second and the alerts, with their snapshot
- `logs`      the log stream
- `everyone`  broadcasts, and orders to all gateways
- `following` following channels by name
"""
