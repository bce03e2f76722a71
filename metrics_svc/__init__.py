"""Metrics of the fleet, their history, and alerts on them.

- `intake`            reports and log lines from the bus
- `aggregation`       reports to seconds, seconds to rows, rows to rollups: pure
- `alerts`            rules, the state machine of an alert, muting: pure
- `store`             the interface of the store; `store_redis` and `lua` implement it
- `leader_lease`      which replica leads, and the clock of all replicas
- `leader_state`      state of the leader during one term
- `evaluation_loop`   each second: aggregate, evaluate, store, publish
- `history`           queries about the past
- `notify`            from alerts to messages for receivers
- `log_stream`        the fleet's log lines, stored and republished
- `endpoints`, `alert_endpoints`   the requests this service answers
- `agent`             the process that measures one machine

All replicas receive all reports and close every second; the leader, which holds the lease, writes and publishes. A new
leader therefore has the seconds that its predecessor did not write, and the history has no hole.
"""
