"""presence_svc under simulated gateways: joins, idle cost, pages, convergence after a crash. `rig` starts it."""
