"""The client: one connection that reconnects by itself, with its rooms, channels and inbox."""

import asyncio
import logging
import unicodedata
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Self, Unpack

import httpx

from tidings_client.channels import Channels
from tidings_client.codec import CODECS
from tidings_client.connection.connection import Connection, ConnectionStatus
from tidings_client.connection.fallback import Fallback, TransportKind
from tidings_client.credentials import Credentials, Shown
from tidings_client.endpoint import Endpoint
from tidings_client.errors import Closed, ConnectionLost, ServerError, TidingsError, error_from
from tidings_client.events import Event
from tidings_client.feeds import Alerts, Feed, Logs, Metrics
from tidings_client.generated.http import Operations, Path, Query
from tidings_client.generated.wire import (
    Ack,
    Broadcast,
    ClientBroadcast,
    ClientDirectMessage,
    ClientMessage,
    ClientPresenceUpdate,
    ClientRefresh,
    ClientRoomMessage,
    ClientRpc,
    ClientStatusChange,
    DirectMessage,
    ErrorMessage,
    JoinedRoom,
    LeftRoom,
    Position,
    RoomMessage,
    RoomPast,
    RpcResult,
    ServerMessage,
    Status,
    Subscribed,
    TokenExpiring,
    UserJoined,
    UserLeft,
    Welcome,
)
from tidings_client.http import Http
from tidings_client.inbox import Inbox
from tidings_client.options import Options, OptionsDict
from tidings_client.presence import Presence
from tidings_client.requests import AT_ONCE, IN_ORDER, ONCE, Requests, Sending
from tidings_client.room import Room
from tidings_client.transport.base import Interest, Transport, TransportEvents
from tidings_client.transport.post import Post
from tidings_client.transport.socket import Socket
from tidings_client.transport.sse import EventStreamTransport, StreamSetup
from tidings_client.transport.websocket import WebSocketSetup, WebSocketTransport

_log = logging.getLogger("tidings_client")


class TidingsClient(Operations):
    """A client with one connection to a Tidings server.

    `async with TidingsClient("https://host", username="Ada") as client:` connects, and closes at the end. `url` is
    `https://host` or `wss://host/ws`; the options are the fields of `Options`, with times in seconds. It reconnects by
    itself, recovers missed messages and restores rooms, channels and status. Methods raise a TidingsError when a
    request fails. A client belongs to the event loop that first uses it; elsewhere its methods raise RuntimeError.
    """

    def __init__(self, url: str, **options: Unpack[OptionsDict]) -> None:
        self.options = chosen = Options(**options)
        self.clock = chosen.clock
        self.statuses: Event[ConnectionStatus] = Event()
        """Changes of the connection's state; `status` is the current one."""
        self.broadcasts: Event[Broadcast] = Event()
        self.errors: Event[TidingsError] = Event()
        """Errors that no call raises: a refused channel, an outage behind a snapshot, a failed refresh."""
        self.messages: Event[ServerMessage] = Event()
        """Every message of the server, unchanged."""
        self.welcome: Welcome | None = None
        """The `welcome` of the last connection."""
        self.session: str | None = chosen.session
        """Under `TIDINGS_AUTH=open`: the signed session, with which a later client is the same user."""
        self._endpoint = Endpoint(url)
        self._credentials = Credentials(chosen.token, chosen.ticket)
        self._http = Http(self._endpoint, self._credentials, chosen.http)
        self._requests = Requests(
            self,
            clock=self.clock,
            ack_timeout=chosen.ack_timeout,
            tries=chosen.tries,
            queue_limit=chosen.queue_limit,
        )
        self._channels = Channels(self)
        self._rooms: dict[str, Room] = {}
        self._presences: dict[str, Presence] = {}
        # Status and custom data of this user, sent again on every connection.
        self._said: dict[type[ClientMessage], ClientMessage] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._shown: str | None = None  # the token with which the connection was opened
        self._loop: asyncio.AbstractEventLoop | None = None  # the loop of the first use, until `close`
        self.presence = Presence(self._channels, None)
        """The users who are online, while `follow()` is in effect."""
        self.metrics = Metrics(self._channels, chosen.history_limit)
        self.alerts = Alerts(self._channels)
        self.logs = Logs(self._channels)
        self._feeds: tuple[Feed, ...] = (self.metrics, self.alerts, self.logs)
        self.inbox = Inbox(self._requests.submit)
        self._connection = Connection(
            self,
            clock=self.clock,
            fallback=Fallback(chosen.transports, chosen.last_transport),
            backoff=chosen.backoff,
            connect_timeout=chosen.connect_timeout,
        )

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def status(self) -> ConnectionStatus:
        """State of the connection."""
        return self._connection.status

    @property
    def is_up(self) -> bool:
        """Whether the client is connected now."""
        return self.status.state == "connected"

    @property
    def user_id(self) -> str | None:
        """Id of this user; None before the first `welcome`."""
        return self.welcome.user_id if self.welcome else None

    async def connect(self) -> None:
        """Connect, and stay connected until `close`.

        Returns when the first connection is open, without a time limit of its own (use `asyncio.timeout`). Raises a
        TidingsError if the connection is refused. Cancellation ends the wait, not the attempts.
        """
        self._take_loop()
        self._requests.begin()
        async with self.statuses.stream() as statuses:
            self._connection.connect()
            while True:
                status = self.status
                if status.state == "connected":
                    return
                if status.state == "closed":
                    raise Closed("the client was closed")
                if status.state == "failed":
                    reason = status.reason or "the server refused the connection"
                    raise status.error or ServerError(reason, code="forbidden")
                if await anext(statuses, None) is None:
                    raise Closed("the client was closed")

    async def close(self) -> None:
        """Close the connection and leave its rooms. Waiting requests raise Closed and streams end. `connect` opens it again."""
        self.check_loop()
        self._connection.close()
        for task in list(self._tasks):
            task.cancel()
        for event in self._events():
            event.end()
        try:
            async with asyncio.timeout(self.options.close_timeout):
                await self._connection.closed()
        except TimeoutError:
            pass  # the server need not answer a close
        finally:
            await self._http.close()
            if self.status.state == "closed":
                self._loop = None

    def wake(self) -> None:
        """Reconnect now, or probe whether the connection is alive. Call it when the network or the machine is back."""
        self.check_loop()
        self._connection.wake()

    def room(self, name: str) -> Room:
        """Return the room of that name, always the same object. Does not join it."""
        normal = unicodedata.normalize("NFC", name)  # two spellings of one name are one room
        if normal not in self._rooms:
            self._rooms[normal] = Room(normal, self)
        return self._rooms[normal]

    async def send_direct(self, user_id: str, content: Any, *, id: str | None = None) -> Ack:
        """Send a direct message to all connections of one user, now or when they reconnect. Returns when it is stored."""
        message = ClientDirectMessage(target_user_id=user_id, content=content, id=id)
        answer: Ack = await self.submit(message, IN_ORDER)
        return answer

    async def broadcast(self, content: Any, *, echo: bool | None = None) -> Ack:
        """Send to every connection. A broadcast is not stored, so it is not repeated when its answer is lost."""
        answer: Ack = await self.submit(ClientBroadcast(content=content, echo=echo), ONCE)
        return answer

    async def call(self, method: str, data: Any = None, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - of the answer alone
        """Call a method of the application behind the server, and return its answer.

        Waits for a connection. `timeout` is the time limit of the answer in seconds, from when the call is sent; without
        it, the option `ack_timeout`. Raises a ServerError with the application's code, or `unknown_method`. A call is never
        sent twice: if its answer is lost it raises ConnectionLost or AckTimeout, and the method may have been carried out.
        """
        sending = Sending(queued=True, once=True, answer_timeout=timeout)
        answer: RpcResult = await self.submit(ClientRpc(method=method, data=data), sending)
        return answer.data

    async def set_status(self, status: Status) -> None:
        """Set this user's status, now and on every later connection."""
        await self._say(ClientStatusChange(status=status))

    async def set_custom_data(self, custom_data: Any) -> None:
        """Replace this user's custom data, which others see in presence; now and on every later connection."""
        await self._say(ClientPresenceUpdate(custom_data=custom_data))

    # What rooms, channels, requests and the connection need from the client.

    def submit(self, message: ClientMessage, sending: Sending = AT_ONCE) -> "asyncio.Future[Any]":
        """Send a message. The future resolves to its answer."""
        self._take_loop()
        return self._requests.submit(message, sending)

    def send(self, message: ClientMessage) -> None:
        """Send on the current connection."""
        self._connection.send(message)

    def suspect(self) -> None:
        """Probe the connection: an answer did not arrive in time."""
        self._connection.suspect()

    def flush(self) -> None:
        """Send the messages that are ready."""
        self._requests.flush()

    def unsettled(self, topic: str) -> Awaitable[object] | None:
        """Return an awaitable for the open requests of a topic; None if there are none."""
        return self._requests.unsettled(topic)

    def drop(self, topic: str, fault: TidingsError) -> None:
        """Send nothing more of a topic."""
        self._requests.drop(topic, fault)

    @property
    def over(self) -> TidingsError | None:
        """Why there will be no connection until `connect`, if so."""
        return self._requests.over

    def check_loop(self) -> None:
        """Raise a RuntimeError outside of the client's event loop."""
        if self._loop is not None and self._loop is not _running_loop():
            raise RuntimeError(
                "this client belongs to another event loop: from another thread, use"
                " asyncio.run_coroutine_threadsafe or loop.call_soon_threadsafe with the loop it is used in"
            )

    @property
    def heard_at(self) -> float:
        """When the last byte arrived from the server, in seconds since 1970."""
        return self._connection.heard_at

    def presence_of(self, room: str) -> Presence:
        """Return the presence of a room."""
        if room not in self._presences:
            self._presences[room] = Presence(self._channels, room)
        return self._presences[room]

    async def history_of(
        self, room: str, limit: int | None, before: int | None, since: int | None
    ) -> RoomPast:
        """Read a room's stored messages."""
        query = {"limit": limit, "before": before, "since": since}
        return await self.request("GET /api/rooms/{room}/history", path={"room": room}, query=query)

    def spawn(self, work: Awaitable[object]) -> asyncio.Task[None]:
        """Run a task until it is done or the client is closed."""

        async def run() -> None:
            await work

        task = asyncio.create_task(run(), name="tidings client")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def open(self, kind: TransportKind, events: TransportEvents) -> Transport:
        """Open a transport."""
        if kind == "websocket":
            codec = CODECS[self.options.codec]
            setup = WebSocketSetup(
                self._endpoint, self.options.connect, self.options.websocket, codec, self._open_socket
            )
            return WebSocketTransport(setup, events)
        stream = StreamSetup(
            clock=self.clock, open=self._open_stream, post=self._post, interest=self._interest
        )
        return EventStreamTransport(stream, events)

    def on_status(self, status: ConnectionStatus) -> None:
        """The connection's state changed."""
        if status.state in ("failed", "closed"):
            fault = status.error or Closed(status.reason or "the client was closed")
            self._requests.end(fault)
            for room in self._rooms.values():
                room.on_end(fault)
            if status.state == "failed":
                for event in self._events():
                    if event not in (self.statuses, self.errors):
                        event.end(fault)
        _log.log(
            logging.WARNING if status.state == "failed" else logging.INFO,
            "%s: %s",
            self._endpoint.host,
            status,
        )
        self.statuses.emit(status)

    def on_up(self, welcome: Welcome) -> None:
        """A connection opened."""
        self._requests.up()
        self.inbox.on_up(welcome)
        self._channels.on_up()
        for room in list(self._rooms.values()):
            room.on_up()
        for message in self._said.values():
            self.submit(message)  # if it is lost, the next connection sends it again
        self._requests.flush()

    def on_down(self) -> None:
        """The connection ended."""
        self._requests.down()
        for presence in self._all_presences():
            presence.on_down()
        for room in self._rooms.values():
            room.on_down()

    def on_inbox_at(self, position: Position) -> None:
        """The inbox's position, from an SSE stream."""
        self.inbox.on_position(position)

    def on_token_expired(self) -> None:
        """The connection ended because its token expired."""
        self._credentials.expire(self._shown)

    def on_channel_refused(self, channel: str, fault: TidingsError) -> None:
        """A channel was refused."""
        self._fault(ServerError(f"channel {channel}: {fault.message}", code=fault.code))

    def on_message(self, message: ServerMessage) -> None:
        """Handle a message of the server."""
        match message:
            case Welcome():
                self.welcome = message
                self.session = message.session or self.session
            case RoomMessage():
                self._in_room(message.room, lambda room: room.on_message(message))
            case JoinedRoom(id=None):
                self.room(message.room).on_joined(message)  # the server may have joined it by itself
            case JoinedRoom():
                self._in_room(message.room, lambda room: room.on_joined(message))
            case LeftRoom(reason=str(reason)):
                self._in_room(message.room, lambda room: room.on_removed(reason))
            case UserJoined():
                self._in_room(message.room, lambda room: room.user_joins.emit(message))
            case UserLeft():
                self._in_room(message.room, lambda room: room.user_leaves.emit(message))
            case DirectMessage():
                self.inbox.take(message)
            case Subscribed() if message.recovered is not None:
                self.inbox.on_resumed(message)
            case Broadcast():
                self.broadcasts.emit(message)
            case TokenExpiring():
                self.spawn(self._refresh())
            case ErrorMessage() if message.id is None:
                fault = error_from(message.code, message.message, message.retryable, message.retry_after_ms)
                self._fault(fault)
            case _:
                for part in (*self._all_presences(), *self._feeds):
                    part.take(message)
        self._settle(message)
        self.messages.emit(message)

    def _settle(self, message: ServerMessage) -> None:
        request_id = getattr(message, "id", None)
        request = None if request_id is None else self._requests.on_answer(message, request_id)
        if isinstance(request, ClientRoomMessage) and isinstance(message, Ack):
            echo = request.echo
            self._in_room(request.room, lambda room: room.on_stored(message, echo))

    def _in_room(self, name: str, take: Callable[[Room], None]) -> None:
        room = self._rooms.get(name)
        if room is not None:
            take(room)

    async def _say(self, message: ClientMessage) -> None:
        await self.submit(message, IN_ORDER)
        self._said[type(message)] = message

    async def _open_socket(
        self, connect: Callable[[Mapping[str, str], Mapping[str, str]], Awaitable[Socket]]
    ) -> Socket:
        async def attempt(shown: Shown) -> Socket:
            socket = await connect({**self._names, **shown.query}, shown.headers)
            self._shown = shown.token
            return socket

        return await self._credentials.show(attempt)

    async def _open_stream(self, query: Mapping[str, str], headers: Mapping[str, str]) -> httpx.Response:
        response = await self._http.open("/events", {**self._names, **query}, headers)
        self._shown = self._credentials.kept
        return response

    async def _post(self, post: Post) -> Any:
        headers = {"Tidings-Connection": post.connection_id} if post.connection_id else {}
        return await self._http.request(
            post.operation, post.path, self._names, post.body, headers, post.timeout
        )

    async def _carry_out(self, operation: str, path: Path, query: Query, body: object) -> Any:
        self._take_loop()
        return await self._http.request(operation, path, query, body)

    async def _refresh(self) -> None:
        """Send a new token on the open connection, so that it does not end with the old one."""
        if not self._credentials.can_refresh:
            return  # the connection ends with its token, with a close code of its own
        try:
            self._credentials.expire(self._shown)
            self._shown = token = await self._credentials.token()
            ticket = await self._credentials.ticket() if token is None else None
            await self.submit(ClientRefresh(token=token, ticket=ticket))
        except ConnectionLost:
            return  # the next connection sends a new token anyway
        except TidingsError as fault:
            self._fault(fault)
        except Exception as fault:  # noqa: BLE001 - of the application's callback
            self._fault(ServerError(f"no new token: {fault}", code="unauthorized"))

    def _fault(self, fault: TidingsError) -> None:
        """Report an error that no call raises; without a listener, to the log."""
        if not self.errors.is_heard:
            _log.warning("%s: %s (%s)", self._endpoint.host, fault, fault.code)
        self.errors.emit(fault)

    def _take_loop(self) -> None:
        """Bind the client to this event loop. Raises a RuntimeError if it belongs to another."""
        self.check_loop()
        self._loop = asyncio.get_running_loop()

    @property
    def _names(self) -> dict[str, str]:
        known = {"username": self.options.username, "session": self.session}
        return {name: value for name, value in known.items() if value is not None}

    def _interest(self) -> Interest:
        rooms = {room.name: request for room in self._rooms.values() if (request := room.request)}
        return Interest(rooms, self._channels.wanted, self.inbox.position)

    def _all_presences(self) -> tuple[Presence, ...]:
        return (self.presence, *self._presences.values())

    def _events(self) -> Iterator[Event[Any]]:
        for part in (self, self.inbox, *self._feeds, *self._rooms.values(), *self._all_presences()):
            yield from (value for value in vars(part).values() if isinstance(value, Event))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None  # a thread without a loop
