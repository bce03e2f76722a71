"""The kinds of process, as the servers know them."""

from enum import StrEnum


class Role(StrEnum):
    """A user of NATS, and where it needs one, of Redis."""

    GATEWAY = "gateway"
    PRESENCE = "presence"
    METRICS = "metrics"
    AGENT = "agent"


# Who may do everything: the operator's own user of the embedded servers, and what `tidings check` uses.
OPERATOR = "tidings"
