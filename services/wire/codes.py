"""The one table of codes: what went wrong, and what the client does next.

`docs/protocol.md` renders these tables and a test compares them. Close codes 1000-1015 mean what RFC 6455 §7.4.1
says. 4000-4499 ask the client to reconnect, 4500-4999 forbid it: no client needs a list.
"""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """One `error` code: of the table below, or of an application. `http_status` is what HTTP answers for the same fault."""

    code: str
    retryable: bool
    http_status: int
    meaning: str


class ErrorCode(Enum):
    """Codes of the `error` message and of HTTP error bodies."""

    BAD_MESSAGE = ErrorSpec(
        "bad_message", False, 400, "not a message: malformed JSON or MessagePack, or nested too deep"
    )
    UNKNOWN_TYPE = ErrorSpec(
        "unknown_type", False, 400, "`type` is missing or is none this protocol version knows"
    )
    INVALID_FIELD = ErrorSpec(
        "invalid_field", False, 400, "a field is missing, has the wrong type or is out of range"
    )
    INVALID_NAME = ErrorSpec(
        "invalid_name", False, 400, "a room or user name is empty, too long or has control characters"
    )
    UNKNOWN_CHANNEL = ErrorSpec("unknown_channel", False, 404, "no such channel, or not for this user")
    NOT_IN_ROOM = ErrorSpec("not_in_room", False, 409, "join the room first")
    TOO_LARGE = ErrorSpec("too_large", False, 413, "the message or field is over its size limit")
    TOO_MANY_ROOMS = ErrorSpec(
        "too_many_rooms", False, 409, "the connection is in as many rooms as it may be"
    )
    RATE_LIMITED = ErrorSpec(
        "rate_limited", True, 429, "too many messages; `retryAfterMs` says when there is room again"
    )
    UNAUTHORIZED = ErrorSpec("unauthorized", False, 401, "no credentials, or they are not valid (any more)")
    FORBIDDEN = ErrorSpec("forbidden", False, 403, "not allowed, or no such thing: both answer alike")
    REFUSED = ErrorSpec("refused", False, 403, "the application refused; it may use codes of its own instead")
    NOT_FOUND = ErrorSpec("not_found", False, 404, "no such resource")
    UNKNOWN_METHOD = ErrorSpec("unknown_method", False, 404, "nothing answers a call of that method")
    CONFLICT = ErrorSpec("conflict", False, 409, "the request contradicts the present state")
    UNAVAILABLE = ErrorSpec(
        "unavailable",
        True,
        503,
        "the part that answers this is out of reach; nothing was done that an equal `id` would repeat",
    )
    INTERNAL = ErrorSpec("internal", True, 500, "a fault of the server; its log has the details")

    @property
    def code(self) -> str:
        """The code on the wire."""
        return self.value.code

    @property
    def retryable(self) -> bool:
        """Whether the same message may succeed later."""
        return self.value.retryable

    @property
    def http_status(self) -> int:
        """What HTTP answers."""
        return self.value.http_status


OUR_CODES = frozenset(each.code for each in ErrorCode)


# A close frame has room for 123 bytes of reason (RFC 6455 §5.5).
MAX_REASON_BYTES = 120


@dataclass(frozen=True, slots=True)
class CloseSpec:
    """One close code: its number, the reason sent with it, and whether the client should reconnect."""

    number: int
    reason: str
    reconnect: bool
    meaning: str


class CloseCode(Enum):
    """Codes with which the server closes a WebSocket."""

    NORMAL = CloseSpec(1000, "normal", False, "the client closed, or asked to")
    GOING_AWAY = CloseSpec(1001, "going away", True, "the server stops at once")
    PROTOCOL_ERROR = CloseSpec(1002, "protocol error", False, "the bytes are no WebSocket frames")
    UNSUPPORTED_DATA = CloseSpec(
        1003,
        "unsupported data",
        False,
        "a binary frame under the JSON subprotocol, or a text frame under MessagePack",
    )
    INVALID_DATA = CloseSpec(1007, "invalid data", False, "a text frame that is not UTF-8")
    TOO_BIG = CloseSpec(1009, "message too big", False, "a message over `maxMessageBytes`")
    INTERNAL = CloseSpec(1011, "internal error", True, "a fault of the server; its log has the details")
    DRAIN = CloseSpec(1012, "service restart", True, "this gateway stops; another one is ready")
    OVERLOADED = CloseSpec(1013, "try again later", True, "this gateway takes no more connections now")
    SLOW_CLIENT = CloseSpec(
        4000,
        "slow client",
        True,
        "more bytes wait for this client than may, or it has been behind for too long",
    )
    IDLE_TIMEOUT = CloseSpec(4001, "idle timeout", True, "nothing came from the client, not even a pong")
    TOKEN_EXPIRED = CloseSpec(4002, "token expired", True, "fetch a new token and reconnect")
    REPLACED = CloseSpec(
        4003, "connection limit", True, "the user has more connections than allowed; the oldest is closed"
    )
    BAD_TOKEN = CloseSpec(4500, "bad token", False, "the token or session was revoked")
    FORBIDDEN = CloseSpec(4501, "forbidden", False, "this user may not do that")
    DISCONNECTED = CloseSpec(
        4502, "disconnected by the server", False, "an administrator ended the connections of this user"
    )
    FLOODING = CloseSpec(
        4503, "flooding", False, "far over the message rate, or over the rate of pings, pongs and fragments"
    )

    @property
    def number(self) -> int:
        """The close code as RFC 6455 sends it."""
        return self.value.number
