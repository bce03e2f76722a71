"""What each kind of process may do at NATS and Redis, declared once.

- `roles`   the kinds of process
- `nats`    subjects each role publishes and subscribes to
- `redis`   keys and commands of each role
- `render`  the same as configuration of nats-server and redis-server
- `check`   the check, at start, of the permissions this process needs

`tidings up` uses it for its own servers, so that permissions are in force every day, and `deploy/` has what
`render` writes. No I/O but in `check`.
"""
