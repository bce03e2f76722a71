"""Room messages through real gateways: resume, restart of NATS, drain, a crowd that reconnects. `rig` starts them."""
