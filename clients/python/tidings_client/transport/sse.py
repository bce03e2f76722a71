"""The fallback: receives by Server-Sent Events, sends by HTTP.

A stream names its rooms and channels when it opens, so each join or subscription opens a new stream, which resumes from
the old one's position. A server that refuses one of them refuses the stream: then they are requested one by one, see
`trial.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
from msgspec.structs import replace

from tidings_client.clock import Clock, Timer
from tidings_client.codec import JSON, Unreadable
from tidings_client.connection.fallback import TransportKind
from tidings_client.errors import ConnectionLost, ServerError, TidingsError, Unsupported
from tidings_client.generated.wire import (
    Ack,
    ClientBroadcast,
    ClientDirectMessage,
    ClientJoinRoom,
    ClientLeaveRoom,
    ClientMessage,
    ClientPresenceUpdate,
    ClientRefresh,
    ClientRoomMessage,
    ClientRpc,
    ClientStatusChange,
    ClientSubscribe,
    ClientUnsubscribe,
    Disconnect,
    ErrorMessage,
    JoinedRoom,
    LeftRoom,
    RoomMessage,
    RpcResult,
    ServerMessage,
    Subscribed,
    Unsubscribed,
    Welcome,
)
from tidings_client.transport.base import End, Interest, TransportEvents, end_of
from tidings_client.transport.eventid import INBOX_TOPIC, encode_event_id, position_in
from tidings_client.transport.eventstream import EventStreamParser, StreamEvent
from tidings_client.transport.post import Post, Sent, post_of
from tidings_client.transport.trial import Trial

_INBOX = "inbox"
_REOPEN_S = 0.02  # a program joins several rooms at once
_HEARTBEAT_MS = 5000
_NO_LIMIT = 2**53


class _Greeting(msgspec.Struct, frozen=True, rename="camel"):
    """Content of `connected`."""

    connection_id: str = ""
    user_id: str = ""
    username: str = ""
    session: str | None = None


@dataclass(frozen=True, slots=True)
class StreamSetup:
    """Functions of the client that a stream uses."""

    clock: Clock
    open: Callable[[Mapping[str, str], Mapping[str, str]], Awaitable[httpx.Response]]
    """Opens `/events` as this user, with a query and headers; raises a TidingsError if that is refused."""
    post: Callable[[Post], Awaitable[Any]]
    """Sends as this user, and returns the answer; raises a TidingsError if that is refused."""
    interest: Callable[[], Interest]


class EventStreamTransport:
    """One stream after another, until one of them ends by itself."""

    kind: TransportKind = "sse"
    probes = False

    def __init__(self, setup: StreamSetup, events: TransportEvents) -> None:
        self._setup = setup
        self._events = events
        self._is_over = False
        self._greeted = False
        self._connection_id = ""  # of the open stream
        self._reopening: Timer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = Interest({}, (), None)
        self._trial = Trial()
        self._joined: set[str] = set()
        # Messages of rooms before the answer to their join: these are the missed ones.
        self._missed: dict[str, list[RoomMessage]] = {}
        self._carried: set[str] = set()  # channels of the open stream
        # Requests that the stream answers: ids by room, and subscriptions.
        self._joins: dict[str, str | None] = {}
        self._follows: list[ClientSubscribe] = []
        # Status and custom data of this user, sent again on every new stream.
        self._said: dict[type[Sent], Sent] = {}
        # Work for the worker, one piece at a time: a stream to open, messages to send. Messages are kept by id,
        # because `Requests` repeats one that is not answered in time.
        self._due = False
        self._waiting: dict[str | None, Sent] = {}
        self._worker: asyncio.Task[None] | None = None
        # Calls under way. They are sent in order, but the messages behind them do not wait for their answers.
        self._calls: set[asyncio.Task[None]] = set()
        self._stream: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()  # the stream is open, or will not be
        self._reopen()

    def send(self, message: ClientMessage) -> None:
        """Carry out a message as a server would."""
        match message:
            case ClientJoinRoom():
                self._join(message)
            case ClientLeaveRoom():
                self._joined.discard(message.room)
                self._later()
                self._reply(LeftRoom(room=message.room, id=message.id))
            case ClientSubscribe():
                self._follow(message)
            case ClientUnsubscribe():
                self._later()
                self._reply(Unsubscribed(channels=_names_in(message), id=message.id))
            case ClientRefresh():  # a stream shows its credentials when it opens
                self._later()
                self._reply(Ack(id=message.id))
            case ClientStatusChange() | ClientPresenceUpdate():
                self._send(message)
                self._said[type(message)] = message
            case ClientRoomMessage() | ClientDirectMessage() | ClientBroadcast() | ClientRpc():
                self._send(message)

    def settled(self) -> "asyncio.Future[Any] | None":
        """Return a future that is done when all that was sent is answered; None if nothing is open."""
        open_ = {*self._calls, *((self._worker,) if self._is_working else ())}
        return asyncio.gather(*open_, return_exceptions=True) if open_ else None

    @property
    def _is_working(self) -> bool:
        return self._worker is not None and not self._worker.done()

    def close(self, *, left: bool) -> None:  # noqa: ARG002 - a stream cannot send a close code
        """Close the stream."""
        self._is_over = True
        if self._reopening is not None:
            self._reopening.cancel()
        for task in self._tasks:
            task.cancel()

    async def closed(self) -> None:
        """Wait until its tasks have ended."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        async def run() -> None:
            await work

        task = asyncio.create_task(run(), name="tidings stream")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def _wanted(self) -> Interest:
        return _carried(self._setup.interest())

    def _join(self, message: ClientJoinRoom) -> None:
        room = message.room
        if "," in room:
            fault = Unsupported("a room with a comma in its name needs a WebSocket")
            self._refuse(message.id, fault)
            return
        if message.token is not None:
            self._refuse(message.id, Unsupported("a room's token needs a WebSocket"))
            return
        self._joins[room] = message.id
        self._trial.pardon(room)
        asked = self._asked.rooms.get(room)
        is_asked = asked is not None and asked.member_data == message.member_data
        if not is_asked or room in self._joined:
            self._later()

    def _follow(self, message: ClientSubscribe) -> None:
        self._follows.append(message)
        if set(_channels_in(message)) <= {*self._asked.channels, *self._trial.refused_channels}:
            asyncio.get_running_loop().call_soon(self._answer_follows)
        else:
            self._later()

    def _answer_follows(self) -> None:
        """Answer subscriptions that the stream does not: channels that it carries, and refused ones."""
        follows, self._follows = self._follows, []
        for message in follows:
            channels = _channels_in(message)
            faults = [fault for name in channels if (fault := self._trial.refused_channels.get(name))]
            if faults:
                self._refuse(message.id, faults[0])
            elif channels and set(channels) <= self._carried:
                self._reply(Subscribed(channels=_names_in(message), id=message.id))
            else:
                self._follows.append(message)

    def _send(self, message: Sent) -> None:
        msgspec.json.encode(message)  # raises to the caller if it cannot be encoded
        self._waiting.setdefault(message.id, message)
        self._work()

    def _later(self) -> None:
        if self._reopening is not None:
            self._reopening.cancel()
        self._reopening = self._setup.clock.call_later(_REOPEN_S, self._reopen)

    def _reopen(self) -> None:
        self._due = True
        self._work()

    def _work(self) -> None:
        """Start the worker, if it is not running."""
        if not self._is_over and not self._is_working:
            self._worker = self._spawn(self._do_in_order())

    async def _do_in_order(self) -> None:
        """Do the work one piece at a time: parallel requests arrive in any order, and each names the open stream."""
        while not self._is_over and (self._due or self._waiting):
            if self._due:
                self._due = False
                if self._stream is not None:
                    self._stream.cancel()
                self._opened.clear()
                self._stream = self._spawn(self._read(self._wanted))
                await self._opened.wait()
            else:
                message = self._waiting.pop(next(iter(self._waiting)))
                if isinstance(message, ClientRpc):
                    call = self._spawn(self._call(message))
                    self._calls.add(call)
                    call.add_done_callback(self._calls.discard)
                else:
                    await self._post(message)

    async def _post(self, message: Sent) -> None:
        try:
            ack = await self._setup.post(post_of(message, self._connection_id))
        except Exception as fault:  # noqa: BLE001 - any exception is the answer
            self._refuse(message.id, fault)
        else:
            self._reply(replace(ack, id=message.id))

    async def _call(self, message: ClientRpc) -> None:
        try:
            answer = await self._setup.post(post_of(message, self._connection_id))
        except Exception as fault:  # noqa: BLE001 - any exception is the answer
            unknown = not isinstance(fault, TidingsError) or isinstance(fault.__cause__, httpx.HTTPError)
            lost = ConnectionLost("the call was lost; it may have been carried out")
            self._refuse(message.id, lost if unknown else fault)
        else:
            self._reply(RpcResult(id=message.id, data=answer.data))

    async def _read(self, wanted: Interest) -> None:
        self._asked = self._trial.choose(wanted)
        self._joined.clear()
        self._missed.clear()
        self._carried.clear()
        self._connection_id = ""
        try:
            end = await self._carry(self._asked)
        except Exception as fault:  # noqa: BLE001 - any failure to open: the next attempt may succeed
            if not self._is_replaced and self._survives(fault):
                return
            end = end_of(fault)
        if not self._is_replaced:
            self._is_over = True
            self._opened.set()
            if self._reopening is not None:
                self._reopening.cancel()
            self._events.ended(end)

    async def _carry(self, interest: Interest) -> End:
        parser = EventStreamParser()
        farewell: Disconnect | None = None
        response = await self._setup.open(*_question_of(interest))
        try:
            async for piece in response.aiter_bytes():
                if self._is_replaced:
                    break
                self._events.heard()
                for event in parser.push(piece):
                    message = self._take(event)
                    if isinstance(message, Disconnect):
                        farewell = message
        except httpx.HTTPError as fault:
            return End(str(fault) or "connection lost", retry_after=parser.retry)
        finally:
            await response.aclose()
        if farewell is None:
            return End("the stream ended", retry_after=parser.retry)
        after = parser.retry if farewell.retry_after_ms is None else farewell.retry_after_ms / 1000
        return End(farewell.reason, farewell.reconnect, farewell.code, after)

    def _survives(self, fault: Exception) -> bool:
        """Return whether the stream can open without the refused room or channel."""
        if not isinstance(fault, ServerError) or fault.retryable or fault.code == "unauthorized":
            return False
        if not self._trial.on_refused(self._asked, fault):
            return False
        for room in self._trial.refused_rooms:
            if room in self._joins:
                self._refuse(self._joins.pop(room), fault)
        self._answer_follows()
        self._opened.set()
        self._later()
        return True

    @property
    def _is_replaced(self) -> bool:
        return self._is_over or self._stream is not asyncio.current_task()

    def _take(self, event: StreamEvent) -> ServerMessage | None:
        if self._is_replaced:  # by a listener of an earlier event
            return None
        if event.type == "connected":
            self._greet(event.data)
            return None
        if event.type in ("heartbeat", "reset"):  # the rooms that were reset follow, as not recovered
            return None
        position = None if event.id is None else position_in(event.id, INBOX_TOPIC)
        if position is not None:
            self._events.inbox_at(position)
        try:
            message = JSON.decode(event.data)
        except Unreadable:
            return None  # perhaps from a proxy; the stream is still usable
        if isinstance(message, RoomMessage) and message.room not in self._joined:
            self._missed.setdefault(message.room, []).append(message)
            return None
        if isinstance(message, JoinedRoom):
            message = self._joined_by(message)
        elif isinstance(message, LeftRoom):
            self._joined.discard(message.room)
            rooms = {name: each for name, each in self._asked.rooms.items() if name != message.room}
            self._asked = Interest(rooms, self._asked.channels, self._asked.inbox)
        elif isinstance(message, Subscribed):
            asked = next((each for each in self._follows if _INBOX in _names_in(each)), None)
            if asked is not None:
                self._follows.remove(asked)
                message = replace(message, id=asked.id)
        if message is not None:
            self._events.message(message)
        return message

    def _joined_by(self, message: JoinedRoom) -> JoinedRoom:
        """Return the answer to a join as on a WebSocket: with its id, and with the messages before it."""
        self._joined.add(message.room)
        asked = self._asked.rooms.get(message.room)
        stored = self._missed.pop(message.room, [])
        # Without an id, the server joined by itself.
        message = replace(message, id=self._joins.pop(message.room, None if asked is None else ""))
        if message.recovered is not None:
            return message if message.missed is not None else replace(message, missed=stored)
        # The stream asked for one number of all rooms. There are more where the application's hook says so.
        if len(stored) <= _most_history(self._asked):
            own = 0 if asked is None else asked.history or 0
            stored = stored[max(0, len(stored) - own) :]
        return replace(message, history=stored)

    def _greet(self, data: str) -> None:
        try:
            greeting = msgspec.json.decode(data, type=_Greeting)
        except (msgspec.DecodeError, RecursionError):
            greeting = _Greeting()  # perhaps from an older server: the stream is still usable
        self._connection_id = greeting.connection_id
        if self._greeted:
            self._waiting = {**{message.id: message for message in self._said.values()}, **self._waiting}
        else:
            self._greeted = True
            self._events.message(
                Welcome(
                    protocol=1,
                    user_id=greeting.user_id,
                    username=greeting.username,
                    connection_id=greeting.connection_id,
                    session=greeting.session,
                    gateway="",
                    heartbeat_interval=_HEARTBEAT_MS,
                    max_message_bytes=_NO_LIMIT,
                )
            )
        self._opened.set()
        self._carried = set(self._asked.channels)
        if self._trial.on_admitted(self._asked, self._wanted):
            self._later()
        self._answer_follows()

    def _refuse(self, request_id: str | None, fault: Exception) -> None:
        end = end_of(fault)
        code = end.error.code if end.error else "unavailable"
        after = None if end.retry_after is None else round(end.retry_after * 1000)
        self._reply(
            ErrorMessage(
                id=request_id, code=code, message=end.reason, retryable=end.reconnect, retry_after_ms=after
            )
        )

    def _reply(self, message: ServerMessage) -> None:
        """Answer in the loop's next turn: the sender does not expect an answer within its own call."""
        asyncio.get_running_loop().call_soon(self._reply_now, message)

    def _reply_now(self, message: ServerMessage) -> None:
        if not self._is_over:
            self._events.message(message)


def _names_in(message: ClientSubscribe | ClientUnsubscribe) -> list[str]:
    return [*(message.channels or ()), *(() if message.channel is None else (message.channel,))]


def _channels_in(message: ClientSubscribe) -> list[str]:
    return [name for name in _names_in(message) if name != _INBOX]


def _carried(interest: Interest) -> Interest:
    """Return what a stream can carry: its URL separates rooms by commas, and no token may stand in a URL."""
    rooms = {name: each for name, each in interest.rooms.items() if "," not in name and each.token is None}
    return Interest(rooms, interest.channels, interest.inbox)


def _most_history(interest: Interest) -> int:
    """Return the number of stored messages that a stream asks for, in all rooms without a position."""
    return max((each.history or 0 for each in interest.rooms.values() if each.since is None), default=0)


def _question_of(interest: Interest) -> tuple[dict[str, str], dict[str, str]]:
    """Return the query and headers of a stream."""
    rooms = interest.rooms
    topics = [*((name, request.since) for name, request in rooms.items()), (INBOX_TOPIC, interest.inbox)]
    positions = [(topic, at) for topic, at in topics if at is not None]
    query = {"rooms": ",".join(rooms), "channels": ",".join((*interest.channels, _INBOX))}
    if history := _most_history(interest):
        query["history"] = str(history)
    return query, {"Last-Event-ID": encode_event_id(positions)} if positions else {}
