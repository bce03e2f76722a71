"""What can go wrong.

TidingsError                 catches all of them; has `code`, `retryable`, `retry_after`
├── ServerError              the server refused: `code` is from the table of the protocol
└── LocalError               this side of the connection
    ├── AckTimeout           no answer, and no more tries
    ├── ConnectionLost       sent, not answered, and not safe to send again: it may have arrived
    ├── QueueFull            offline, and the queue holds as much as it may; or a stream nobody reads
    ├── Closed               the client was closed, or the room was left
    ├── Blocked              something on the way answered instead of the server: a proxy, a portal
    └── Unsupported          this transport cannot carry it
"""

from typing import ClassVar


class TidingsError(Exception):
    """Why something was not done."""

    def __init__(
        self, message: str, *, code: str, retryable: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retryable = retryable
        """Whether the same may succeed later."""
        self.retry_after = retry_after
        """If so, perhaps in how many seconds."""

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.message, self.__dict__)


def _restore(kind: type[TidingsError], message: str, fields: dict[str, object]) -> TidingsError:
    """Unpickle: errors cross process boundaries, and `__init__` takes more than a message."""
    error = kind.__new__(kind, message)
    error.__dict__.update(fields)
    return error


class ServerError(TidingsError):
    """The server did not do it, or would not let us in."""


class LocalError(TidingsError):
    """It did not get as far as a server, or nobody knows whether it did."""

    own_code: ClassVar[str]
    own_retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message, code=self.own_code, retryable=self.own_retryable, retry_after=retry_after)


class AckTimeout(LocalError):
    """No answer came in time, however often it was asked for."""

    own_code = "timeout"
    own_retryable = True


class ConnectionLost(LocalError):
    """It was sent and not answered, and must not be sent again. It may have arrived."""

    own_code = "connection_lost"


class QueueFull(LocalError):
    """More waits than may wait."""

    own_code = "queue_full"
    own_retryable = True


class Closed(LocalError):
    """What it needed was closed."""

    own_code = "closed"


class Blocked(LocalError):
    """Something on the way answered, and not the server. What it refuses today it may let pass tomorrow."""

    own_code = "blocked"
    own_retryable = True


class Unsupported(LocalError):
    """The transport in use cannot carry it."""

    own_code = "unsupported"


def error_from(code: str, message: str, retryable: bool, retry_after_ms: float | None) -> TidingsError:
    """Return the error that an `error` message stands for; times on the wire are milliseconds."""
    retry_after = None if retry_after_ms is None else retry_after_ms / 1000
    for kind in (Unsupported, Blocked):
        if code == kind.own_code:  # a stream answers like a server, but this is its own word
            return kind(message, retry_after=retry_after)
    return ServerError(message, code=code, retryable=retryable, retry_after=retry_after)
