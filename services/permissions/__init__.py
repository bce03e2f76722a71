"""What each kind of process may do at NATS and Redis, declared once.

- `roles`   the kinds of process
- `nats`    subjects each role publishes and subscribes to, and their check at startup
- `redis`   keys and commands of each role (their check is in `services.redis_client`)
- `render`  the same as configuration of nats-server and redis-server

`tidings up` uses it for its own servers, so that permissions are in force every day, and `deploy/` has what
`render` writes.
"""
