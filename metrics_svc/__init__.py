"""metrics_svc: what the fleet measures, the history of it, and the alerts that follow from it.

- `intake`        reports and log lines as they come from the bus, checked, counted
- `aggregation`   reports to seconds, seconds to rows, rows to rollups: pure
- `alerts`        rules, the state machine of an alert, what mutes it: pure
- `store`         the interface to what must outlive a process; `store_redis`, `lua`
- `lease`         which replica ticks
- `ticker`        the second of the replica that ticks: aggregate, judge, store, publish
- `history`       which rows answer a question about the past
- `notify`        from alerts to messages that people receive
- `log_stream`    the fleet's log lines, stored and republished
- `endpoints`, `alert_endpoints`   the questions this service answers
- `agent`         the process that measures one machine

All replicas hear all reports and close every second; the one that holds the lease writes and publishes. So a
replica that takes over already has the seconds its predecessor did not write, and the history has no hole.
"""
