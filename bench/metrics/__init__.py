"""metrics_svc: ingest, history, exactness of percentiles, time to an alert. `rig` starts it."""
