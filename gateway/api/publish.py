"""Messages published by servers: one, one to several rooms or users, or an array of up to 1,000 of those.

An array is answered by an array, in its order: a member that is wrong has an `error` there, and keeps no other from
being published. Members and targets are published in their order, and acknowledged together.

The event loop is never held for long: large contents and many small ones are followed by a turn of the others. Only so
many messages wait for their acknowledgement at a time, so a batch cannot fill the buffer to the bus.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, cast

import msgspec

from gateway.api.body import decode
from gateway.api.endpoint import Call, endpoint, server
from gateway.api.responses import UNAVAILABLE_RETRY_MS, ApiError
from gateway.auth.authenticator import ServerCaller
from gateway.auth.identity import SERVER_USER_ID, AuthRefused
from gateway.delivery.publisher import OnDone, PublishRefused, Sender
from gateway.gateway import Gateway
from gateway.limits import Limit
from services.settings_values import Scope
from services.wire.client import MessageId
from services.wire.codes import ErrorCode, ErrorSpec
from services.wire.content import BadMessage, TooDeep, content_from_json
from services.wire.names import InvalidName, normalize_name
from services.wire.records import UNSET, Record, UnsetType
from services.wire.server import Ack, Error

MAX_BATCH = 1000
MAX_TARGETS = 1000
MAX_MESSAGES = 10_000  # of one request: members times their targets
# What the names of all targets may add to a member.
_TARGETS_BYTES = 262_144
_MAX_CONNECTION_ID = 64
# Published before others have their turn: some milliseconds of work, whichever is reached first.
_TURN_MESSAGES = 32
_TURN_BYTES = 65_536
# Not acknowledged yet. The buffer to the bus holds more, also for other publishers.
_WINDOW_MESSAGES = 2000
_WINDOW_BYTES = 1_048_576

_PENDING = PublishRefused(ErrorCode.INTERNAL, "an internal error occurred")

Targets = Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_TARGETS)]


class PublishedAs(Record, frozen=True, kw_only=True):
    """The user of a message; the `username` is the id where it is absent."""

    user_id: str
    username: str | UnsetType = UNSET


class PublishRequest(Record, frozen=True, kw_only=True):
    """Exactly one of `room`, `rooms`, `user_id`, `user_ids` and `broadcast` says where to. `id` makes a retry no duplicate.

    `exclude` names a connection that gets no copy, whichever user it belongs to. With `as` the message is that user's,
    and not that of user `server`.
    """

    content: msgspec.Raw
    room: str | UnsetType = UNSET
    rooms: Targets | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    user_ids: Targets | UnsetType = UNSET
    broadcast: bool = False
    username: str = "server"
    id: MessageId | UnsetType = UNSET
    exclude: Annotated[str, msgspec.Meta(max_length=_MAX_CONNECTION_ID)] = ""
    as_: PublishedAs | UnsetType = msgspec.field(name="as", default=UNSET)


# An array of raw members. A list would be decoded to its end, however long, before its length is checked.
_Members: Any = msgspec.defstruct(
    "_Members",
    [(f"member{number}", msgspec.Raw, UNSET) for number in range(MAX_BATCH)],
    array_like=True,
    forbid_unknown_fields=True,
)
_decode_members = msgspec.json.Decoder(_Members).decode


@endpoint(
    "POST",
    "/api/publish",
    server(Scope.PUBLISH, Scope.IMPERSONATE),
    body=PublishRequest | list[PublishRequest],
)
async def publish(call: Call) -> Ack | list[Ack | Error]:
    """Publish to rooms, to users or to everyone, as user `server`: one message, or an array of up to 1,000.

    Several targets have one `answer` each in the ack, an `ack` or an `error`; if none was accepted, the first error is
    the answer. An array is answered by an array.
    """
    batch, data = _PublishBatch(call.gateway, await call.server()), await call.text()
    if data.lstrip()[:1] != b"[":
        await batch.add(data or b"{}")
        return await batch.answer()
    for member in split_members(data):
        try:
            await batch.add(member)
        except (ApiError, AuthRefused, InvalidName) as fault:
            batch.add_error(fault)
    return await batch.answers()


def split_members(data: bytes) -> Sequence[msgspec.Raw]:
    """Return the members of an array. Raises ApiError."""
    try:
        members = _decode_members(data)
    except msgspec.ValidationError:
        text = f"an array has at most {MAX_BATCH} members"
        raise ApiError(ErrorCode.TOO_LARGE, text) from None
    except msgspec.DecodeError as fault:
        raise ApiError(ErrorCode.BAD_MESSAGE, f"malformed JSON: {fault}") from None
    except RecursionError:  # msgspec raises this for a nesting bomb
        raise ApiError(ErrorCode.BAD_MESSAGE, "malformed JSON: nested too deep") from None
    return [member for member in msgspec.structs.astuple(members) if member is not UNSET]


@dataclass(frozen=True, slots=True)
class _Publication:
    """A member of a batch that may be published, and what became of each of its targets."""

    sender: Sender
    content: msgspec.Raw
    id: str | UnsetType
    exclude: str
    kind: str  # what the targets are: `room` or `userId`; empty for a broadcast
    targets: list[str]
    several: bool  # given as a list, maybe of one
    outcomes: list[Ack | PublishRefused]


class _PublishBatch:
    """Publishes members one after the other, and keeps the answers."""

    def __init__(self, gateway: Gateway, caller: ServerCaller) -> None:
        self._gateway = gateway
        self._caller = caller
        self._members: list[_Publication | Error] = []
        self._messages = 0  # so far
        self._turn_messages = self._turn_bytes = 0
        self._open_messages = self._open_bytes = 0  # not acknowledged yet
        self._resume_at = 0  # open messages
        self._resume: asyncio.Future[None] | None = None

    async def add(self, data: bytes | msgspec.Raw) -> None:
        """Publish one member. Raises ApiError, AuthRefused, InvalidName."""
        await self._give_way(len(data))
        member = self._checked(data)
        self._members.append(member)
        size = len(bytes(member.content))
        for number, target in enumerate(member.targets):
            if number:
                await self._give_way(size)
            self._open_messages += 1
            self._open_bytes += size
            self._start(member, target, partial(self._done, member.outcomes, number, size))

    def add_error(self, fault: ApiError | AuthRefused | InvalidName) -> None:
        """Answer a member that cannot be published."""
        if isinstance(fault, InvalidName):
            self._members.append(_error(ErrorCode.INVALID_NAME, str(fault)))
            return
        if isinstance(fault, ApiError) and fault.limit is not None:
            self._gateway.on_limit(fault.limit)
        self._members.append(_error(fault.code, fault.message))

    async def answers(self) -> list[Ack | Error]:
        """Wait until everything is acknowledged or refused, and return the answers to all members."""
        await self._wait_for_open(0)
        return [member if isinstance(member, Error) else _answer(member) for member in self._members]

    async def answer(self) -> Ack:
        """Return the answer to the only member, when there is one. Raises PublishRefused."""
        (answer,), (member,) = await self.answers(), self._members
        if isinstance(answer, Error) and isinstance(member, _Publication):
            raise cast("PublishRefused", member.outcomes[0])
        return cast("Ack", answer)

    # --- one member ---

    def _checked(self, data: bytes | msgspec.Raw) -> _Publication:
        settings = self._gateway.settings
        most = settings.max_message_bytes + _TARGETS_BYTES
        if len(data) > most:
            text = f"one message with its targets has at most {most} bytes"
            raise ApiError(ErrorCode.TOO_LARGE, text, Limit.MESSAGE_BYTES)
        asked = decode(data, PublishRequest)
        if len(bytes(asked.content)) > settings.max_message_bytes:
            text = f"`content` is larger than {settings.max_message_bytes} bytes"
            raise ApiError(ErrorCode.TOO_LARGE, text, Limit.MESSAGE_BYTES)
        kind, targets, several = _targets(asked)
        if self._messages + len(targets) > MAX_MESSAGES:
            text = f"one request publishes at most {MAX_MESSAGES} messages"
            raise ApiError(ErrorCode.TOO_LARGE, text)
        try:
            content = content_from_json(asked.content, settings.max_json_depth)
        except BadMessage as fault:
            limit = Limit.JSON_DEPTH if isinstance(fault, TooDeep) else None
            raise ApiError(fault.code, fault.message, limit) from None
        sender = self._sender(asked)
        self._messages += len(targets)
        outcomes: list[Ack | PublishRefused] = [_PENDING] * len(targets)
        return _Publication(sender, content, asked.id, asked.exclude, kind, targets, several, outcomes)

    def _sender(self, asked: PublishRequest) -> Sender:
        if isinstance(asked.as_, UnsetType):
            self._caller.require(Scope.PUBLISH)
            return Sender(SERVER_USER_ID, normalize_name(asked.username, "username"))
        self._caller.require(Scope.IMPERSONATE)
        user_id = normalize_name(asked.as_.user_id, "userId")
        username = asked.as_.username
        return Sender(
            user_id, user_id if isinstance(username, UnsetType) else normalize_name(username, "username")
        )

    def _start(self, member: _Publication, target: str, done: OnDone) -> None:
        gateway, sender, content = self._gateway, member.sender, member.content
        id, exclude = member.id, member.exclude
        try:
            name = normalize_name(target, member.kind) if member.kind else ""
        except InvalidName as fault:
            done(PublishRefused(ErrorCode.INVALID_NAME, str(fault)))
            return
        if member.kind == "room":
            route = gateway.streams.route(name)
            gateway.publisher.to_room(sender, route, content, done, id=id, exclude=exclude)
        elif member.kind == "userId":
            gateway.publisher.to_user(sender, name, content, done, id=id, exclude=exclude)
        else:
            gateway.publisher.to_all(sender, content, done, id=id, exclude=exclude)

    def _done(
        self, outcomes: list[Ack | PublishRefused], number: int, size: int, outcome: Ack | PublishRefused
    ) -> None:
        outcomes[number] = outcome
        self._open_messages -= 1
        self._open_bytes -= size
        if self._resume is not None and self._open_messages <= self._resume_at and not self._resume.done():
            self._resume.set_result(None)

    # --- turns ---

    async def _give_way(self, size: int) -> None:
        """Wait for acknowledgements where too many are open, and give others their turn in time."""
        if self._open_messages >= _WINDOW_MESSAGES or self._open_bytes + size > _WINDOW_BYTES:
            await self._wait_for_open(self._open_messages // 2)
        self._turn_messages += 1
        self._turn_bytes += size
        if self._turn_messages > _TURN_MESSAGES or self._turn_bytes > _TURN_BYTES:
            self._turn_messages, self._turn_bytes = 1, size
            await asyncio.sleep(0)

    async def _wait_for_open(self, most: int) -> None:
        """Wait until at most so many messages are not acknowledged: each is, or fails at its deadline."""
        if self._open_messages > most:
            self._resume_at, self._resume = most, asyncio.get_running_loop().create_future()
            await self._resume


def _targets(asked: PublishRequest) -> tuple[str, list[str], bool]:
    """Return what the targets are, their names, and whether they came as a list. Raises ApiError."""
    given = (asked.room, asked.rooms, asked.user_id, asked.user_ids)
    if sum(each is not UNSET for each in given) + asked.broadcast != 1:
        text = "exactly one of `room`, `rooms`, `userId`, `userIds` and `broadcast` is needed"
        raise ApiError(ErrorCode.INVALID_FIELD, text)
    if not isinstance(asked.room, UnsetType):
        return "room", [asked.room], False
    if not isinstance(asked.rooms, UnsetType):
        return "room", asked.rooms, True
    if not isinstance(asked.user_id, UnsetType):
        return "userId", [asked.user_id], False
    if not isinstance(asked.user_ids, UnsetType):
        return "userId", asked.user_ids, True
    return "", [""], False


def _answer(member: _Publication) -> Ack | Error:
    """Return one answer: of several targets the ack has the answers, unless none was accepted."""
    answers = [
        outcome
        if isinstance(outcome, Ack)
        else _error(outcome.code, outcome.message, outcome.retry_after_ms, member.id)
        for outcome in member.outcomes
    ]
    if member.several and any(isinstance(answer, Ack) for answer in answers):
        return Ack(id=member.id, answers=answers)
    return answers[0]


def _error(
    code: ErrorCode | ErrorSpec, message: str, retry_after_ms: int = 0, id: str | UnsetType = UNSET
) -> Error:
    if not retry_after_ms and code is ErrorCode.UNAVAILABLE:
        retry_after_ms = UNAVAILABLE_RETRY_MS
    return Error(
        code=code.code,
        message=message,
        retryable=code.retryable,
        retry_after_ms=retry_after_ms or UNSET,
        id=id,
    )
