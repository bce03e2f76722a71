"""Tidings on one machine: real brokers as child processes, and the supervisor behind `tidings up`.

- `binaries`      which nats-server and redis-server to run, and what to install where there is none
- `die_with_parent` runs a program that is killed when its parent dies
- `child_server`  one server as a child process with its own directory, port and password
- `servers`       the two there are: NATS and Redis, their configuration and users
- `external`      servers that somebody else runs: reached, and recent enough?
- `processes`     one child: started, asked whether it is ready, ended
- `supervisor`    all children: kept running, stopped in order
- `console`       what a person sees of that
- `up`            `tidings up`: checks, brokers, services, agent and gateways, wired together

Development and tests use this package; production runs the upstream servers under an init system or an
orchestrator.
"""
