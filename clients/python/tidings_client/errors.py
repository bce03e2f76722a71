"""Exceptions.

TidingsError                 base of all; has `code`, `retryable`, `retry_after`
├── ServerError              the server refused; `code` is from the protocol's table of error codes
└── LocalError               an error of the client or the connection
    ├── AckTimeout           no answer after the last try
    ├── ConnectionLost       sent but not answered; it may have arrived, and repeating it is not safe
    ├── QueueFull            not connected, and the queue is full; or a stream is not read fast enough
    ├── Closed               the client was closed, or the room was left
    ├── Removed              the server ended the membership of a room
    ├── Blocked              a proxy, firewall or portal answered instead of the server
    └── Unsupported          the current transport cannot carry it
"""

from typing import ClassVar


class TidingsError(Exception):
    """Why a request failed."""

    def __init__(
        self, message: str, *, code: str, retryable: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retryable = retryable
        """Whether the same request may succeed later."""
        self.retry_after = retry_after
        """Seconds until then, if the server named them."""

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.message, self.__dict__)


def _restore(kind: type[TidingsError], message: str, fields: dict[str, object]) -> TidingsError:
    """Unpickle an error. `__init__` needs more than the message that the default unpickling passes."""
    error = kind.__new__(kind, message)
    error.__dict__.update(fields)
    return error


class ServerError(TidingsError):
    """The server refused the request or the connection, or could not be reached."""


class LocalError(TidingsError):
    """The request did not reach the server, or it is unknown whether it did."""

    own_code: ClassVar[str]
    own_retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message, code=self.own_code, retryable=self.own_retryable, retry_after=retry_after)


class AckTimeout(LocalError):
    """No answer arrived in time, after all tries."""

    own_code = "timeout"
    own_retryable = True


class ConnectionLost(LocalError):
    """The message was sent but not answered, and must not be repeated. It may have arrived."""

    own_code = "connection_lost"


class QueueFull(LocalError):
    """A queue is full: messages that wait for a connection, or events of a stream."""

    own_code = "queue_full"
    own_retryable = True


class Closed(LocalError):
    """The client was closed, or the room was left."""

    own_code = "closed"


class Removed(LocalError):
    """The server ended the membership of a room: `code` is `removed`, or `expired` with the room's token."""

    own_code = "removed"

    def __init__(self, reason: str = own_code) -> None:
        super().__init__(f"the server ended the membership: {reason}")
        self.code = reason


class Blocked(LocalError):
    """The answer is not from the server, but for example from a proxy. It is retryable: a proxy's refusal may pass."""

    own_code = "blocked"
    own_retryable = True


class Unsupported(LocalError):
    """The current transport cannot carry the message."""

    own_code = "unsupported"


def error_from(code: str, message: str, retryable: bool, retry_after_ms: float | None) -> TidingsError:
    """Return the exception for an `error` message. `retry_after_ms` is in milliseconds, as on the wire."""
    retry_after = None if retry_after_ms is None else retry_after_ms / 1000
    for kind in (Unsupported, Blocked):
        if code == kind.own_code:  # the SSE transport's own code, in a message of the server's form
            return kind(message, retry_after=retry_after)
    return ServerError(message, code=code, retryable=retryable, retry_after=retry_after)
