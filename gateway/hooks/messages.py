"""Requests and answers of the hooks, as JSON (camelCase). Pure.

```
hook     request, besides HookRequest's fields                     answer
connect  headers, query, address, origin?, dialect           userId, username?, grants?, rooms?, customData?, expiresAt?
join     room, memberData?                                   memberData?, history?
publish  room | targetUserId | broadcast, content            content? | skip?
rpc      method, data                                        data
```

Any answer may be `{"refuse": {"code"?, "message"}}` instead; those of `connect` and `join` may name a `ttl`. In an answer,
`null` is the same as absent, because many serializers write it, and unknown fields are ignored, so that an application may
answer a newer version than this one.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

import msgspec

from services.wire.codes import ErrorCode, ErrorSpec
from services.wire.records import UNSET, Record, UnsetType

MAX_MESSAGE_LENGTH = 1024  # of a refusal's text
MAX_TTL_S = 86_400.0
# A time in seconds, as in tokens, is below this, and one in milliseconds above: one is before 1973, the other after 5138.
_SECONDS_BELOW = 100_000_000_000

OWN_DIALECT = "tidings"

_PLAIN_CODE = re.compile(r"[a-z0-9_]{1,64}")
_NULL = msgspec.Raw(b"null")


class HookAnswerInvalid(ValueError):
    """An answer that is no answer of its hook. `field` names what is wrong, where it is one field."""

    def __init__(self, what: str, field: str = "") -> None:
        super().__init__(f"`{field}`: {what}" if field else what)
        self.field = field


class HookRefused(Exception):
    """The application refused. `code` and `message` are for the client, and retrying is of no use."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def spec(self) -> ErrorSpec:
        """The code as one of the table."""
        return replace(ErrorCode.REFUSED.value, code=self.code)


class HookUnavailable(Exception):
    """The application did not answer. `reason` is one of few words; asking again makes sense after `retry_after_ms`."""

    message = "the application does not answer now; try again"  # for clients

    def __init__(self, reason: str, retry_after_ms: int, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.retry_after_ms = retry_after_ms


# --- requests ---


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A request to connect, or to do something over HTTP. `headers` are looked up in lower case."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    address: Callable[[], str]
    connection_id: str = ""
    dialect: str = OWN_DIALECT


class HookRequest(Record, frozen=True, kw_only=True):
    """Base of requests. `id` stays the same where a request is sent again; `timestamp` is in ms since 1970.

    `connection_id` is empty where a request over HTTP asks, `user_id` where nothing says yet which user it is.
    """

    hook: str
    id: str
    timestamp: int
    connection_id: str = ""
    user_id: str = ""
    username: str = ""


class ConnectHookRequest(HookRequest, frozen=True, kw_only=True):
    """May this client connect, and which user is it? `user_id` is that of its ticket or token, if it has a valid one."""

    headers: dict[str, str]
    query: dict[str, str]
    address: str
    origin: str | UnsetType = UNSET
    dialect: str


class JoinHookRequest(HookRequest, frozen=True, kw_only=True):
    """May this user join a room?"""

    room: str
    member_data: msgspec.Raw | UnsetType = UNSET


class PublishHookRequest(HookRequest, frozen=True, kw_only=True):
    """May this user publish this? Exactly one of `room`, `target_user_id` and `broadcast` is set."""

    room: str | UnsetType = UNSET
    target_user_id: str | UnsetType = UNSET
    broadcast: bool | UnsetType = UNSET
    content: msgspec.Raw


class RpcHookRequest(HookRequest, frozen=True, kw_only=True):
    """Answer a call of this user."""

    method: str
    data: msgspec.Raw


# --- answers ---

Ttl = Annotated[float, msgspec.Meta(ge=0, le=MAX_TTL_S)] | None


class ConnectAnswer(Record, frozen=True, kw_only=True):
    """The user. Without `user_id` it is the user of the client's ticket or token, with its grants."""

    user_id: str | None = None
    username: str | None = None
    grants: dict[str, Any] | None = None
    rooms: list[str] | None = None
    custom_data: msgspec.Raw = _NULL
    expires_at: float | None = None
    ttl: Ttl = None

    @property
    def expires_at_s(self) -> float | None:
        """When the user has to connect again, in seconds since 1970. On the wire ms; seconds are understood too."""
        if self.expires_at is None:
            return None
        return self.expires_at if self.expires_at < _SECONDS_BELOW else self.expires_at / 1000


class JoinAnswer(Record, frozen=True, kw_only=True):
    """`member_data` replaces the client's, `history` is how many stored messages the client gets."""

    member_data: msgspec.Raw = _NULL
    history: Annotated[int, msgspec.Meta(ge=0)] | None = None
    ttl: Ttl = None


class PublishAnswer(Record, frozen=True, kw_only=True):
    """`content` replaces the client's; with `skip` the message is acknowledged and not delivered."""

    content: msgspec.Raw = _NULL
    skip: bool | None = None


class RpcAnswer(Record, frozen=True, kw_only=True):
    """What the call returns."""

    data: msgspec.Raw


class Refusal(Record, frozen=True, kw_only=True):
    """Why the application refuses. A code that is not of a-z, 0-9 and _ is replaced by `refused`."""

    message: str | None = None
    code: str | None = None

    def as_error(self) -> HookRefused:
        """Return what the client gets."""
        code, message = self.code or "", self.message or "the application refused"
        return HookRefused(
            code if _PLAIN_CODE.fullmatch(code) else ErrorCode.REFUSED.code, message[:MAX_MESSAGE_LENGTH]
        )


class MayRefuse(Record, frozen=True, kw_only=True):
    """What any answer may be instead."""

    refuse: Refusal | None = None
    ttl: Ttl = None


AnswerT = TypeVar("AnswerT", ConnectAnswer, JoinAnswer, PublishAnswer, RpcAnswer)

_decode_refusal = msgspec.json.Decoder(MayRefuse).decode


def is_given(raw: msgspec.Raw) -> bool:
    """Whether an answer has a field that may be any JSON."""
    return bytes(raw).strip() != b"null"


def decode_answer(body: bytes, type_: type[AnswerT]) -> tuple[AnswerT | HookRefused, float]:
    """Return an answer, or the application's refusal, and for how many seconds it holds.

    Raises:
        HookAnswerInvalid: no JSON object, or a field of a wrong type. A `refuse` of a wrong type refuses all the same.
    """
    try:
        said = _decode_refusal(body)
        if said.refuse is not None:
            return said.refuse.as_error(), said.ttl or 0.0
        return msgspec.json.decode(body, type=type_), said.ttl or 0.0
    except RecursionError:
        raise HookAnswerInvalid("nested too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        what, at, field = str(fault).partition(" - at `$.")
        if not at:
            raise HookAnswerInvalid(what) from None
        field = field.removesuffix("`")
        if field.partition(".")[0] == "refuse":
            return Refusal().as_error(), 0.0
        raise HookAnswerInvalid(what, field) from None
