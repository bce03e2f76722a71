"""Tidings on one machine: real brokers as child processes, and the supervisor behind `tidings up`.

- `binaries`      nats-server and redis-server on this machine, and what to install without them
- `die_with_parent`  wrapper: a program that is killed when its parent dies
- `processes`     child processes, and those of our own programs
- `child_server`  a server as a child process with its own directory, port and password
- `servers`       the two servers: NATS and Redis, their configuration and users
- `external`      configured servers: reachable, and recent enough?
- `supervisor`    all children: restarted, stopped in order
- `console`       its output
- `up`            `tidings up`: checks, then brokers, services, agent and gateways
- `dev_reload`    restarts a process in a container when its files change

Development and tests use this package; production runs the upstream servers under an init system or an
orchestrator.
"""
