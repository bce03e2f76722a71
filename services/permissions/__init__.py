"""The kinds of process, and what each may do at NATS and Redis, declared once.

- `nats`    subjects each role publishes and subscribes to, and their check at startup
- `redis`   keys and commands of each role (their check is in `services.redis_client`)
- `render`  the same as configuration of nats-server and redis-server

`tidings up` uses it for its own servers, so that permissions are in force every day, and `deploy/` has what
`render` writes.
"""

from enum import StrEnum


class Role(StrEnum):
    """A kind of process: a user of NATS, and where it needs one, of Redis.

    `app` is the application's: its micro services, which answer calls of clients.
    """

    GATEWAY = "gateway"
    PRESENCE = "presence"
    METRICS = "metrics"
    AGENT = "agent"
    APP = "app"


# The user with all rights: the operator's own of the embedded servers, and of `tidings check`.
OPERATOR = "tidings"
