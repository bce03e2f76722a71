"""A simulated server: rooms with a log, inboxes, and faults. The client gets its sockets and its HTTP transport."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec

from tidings_client.errors import ServerError
from tidings_client.generated.wire import Position
from tidings_client.refusal import refusal
from tidings_client.transport.eventid import INBOX_TOPIC, encode_event_id, position_in
from tidings_client.transport.socket import SocketClosed

Message = dict[str, Any]


class FakeServer:
    """What happens to the client is set here: see the attributes."""

    def __init__(self) -> None:
        self.connections: list[FakeConnection] = []
        self.rooms: dict[str, list[Message]] = {}
        self.stored: dict[str, Message] = {}
        self.inbox: list[Message] = []
        self.seq = 0
        self.epoch = "e1"
        self.user_id = "u-me"
        self.accepting = True
        """New connections are not answered at all while False."""
        self.refusing = False
        """New connections end before the upgrade."""
        self.upgrades = "passed"
        """What becomes of upgrades on the way: `passed`, `refused` or `unanswered`. Streams and requests pass."""
        self.proxy_status = 0
        """A proxy answers every request with this status and a page of its own, where it is not 0."""
        self.departures = 0
        """How often a room had no connection of this user any more, though it was not left."""
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer_request))
        self.silent = False
        """Messages are not answered while True."""
        self.bus_down = False
        """Publishes are answered `unavailable` while True."""
        self.refuse_credentials = 0
        """Number of further connections that get `unauthorized`."""
        self.refuse_joins = 0
        """Number of further joins that get `unauthorized`."""
        self.ignores: list[str] = []
        """Types of messages that are not answered."""
        self.refuses_channels: list[str] = []
        self.answers: dict[str, Message] = {}
        """What is answered to a type of message, instead of what would be."""

    async def connect(
        self, url: str, *, subprotocol: str, headers: Mapping[str, str], options: Mapping[str, Any]
    ) -> "FakeConnection":
        connection = FakeConnection(self, url, subprotocol, headers)
        if self.refuse_credentials > 0:
            self.refuse_credentials -= 1
            raise ServerError("no", code="unauthorized")
        if self.proxy_status:
            raise refusal(self.proxy_status, None, b"<html>")
        self.connections.append(connection)
        await asyncio.sleep(0)
        if self.refusing or self.upgrades == "refused":
            connection.closed_with = 1006
            raise OSError("connection refused")
        if self.accepting and self.upgrades == "passed":
            connection.greet()
        try:
            await connection.greeted.wait()
        except asyncio.CancelledError:
            connection.end(1005)
            raise
        return connection

    async def _answer_request(self, request: httpx.Request) -> httpx.Response:
        if self.proxy_status:
            return httpx.Response(self.proxy_status, text="<html>")
        if request.url.path == "/events":
            return await self._open_stream(request)
        named = request.headers.get("Tidings-Connection")
        connection = next((each for each in self.connections if each.id == named), None)
        message = _message_of(request)
        if connection is None or message is None:
            return httpx.Response(404, json={"code": "not_found", "message": "no", "retryable": False})
        connection.received.append(message)
        if self.silent or message["type"] in self.ignores:
            await asyncio.Event().wait()
        if message["type"] == "room_message":
            connection.rooms.add(message["room"])
        answers: list[Message] = []
        self.answer(connection, message, answers.append)
        return httpx.Response(400 if answers[0]["type"] == "error" else 200, json=answers[0])

    async def _open_stream(self, request: httpx.Request) -> httpx.Response:
        if self.refusing:
            raise httpx.ConnectError("connection refused")
        connection = FakeConnection(self, str(request.url), "sse", request.headers)
        self.connections.append(connection)
        if not self.accepting:
            try:
                await asyncio.Event().wait()
            finally:
                connection.end(1005)
        who = {"connectionId": connection.id, "userId": self.user_id, "username": "me", "session": "signed"}
        connection.send_event("connected", {"status": "connected", **who})
        inbox = Position(epoch="i1", seq=len(self.inbox))
        subscribed = {"type": "subscribed", "channels": ["inbox"]}
        connection.send_event("subscribed", subscribed, encode_event_id([(INBOX_TOPIC, inbox)]))
        last = request.headers.get("Last-Event-ID", "")
        for room in filter(None, connection.query.get("rooms", "").split(",")):
            connection.rooms.add(room)
            at = position_in(last, room)
            since = None if at is None else {"epoch": at.epoch, "seq": at.seq}
            joined = self._joined(room, since, int(connection.query.get("history", "0")))
            for stored in (*joined.pop("missed", []), *joined.pop("history", [])):
                connection.send_out(stored)
            connection.send_out(joined)
        kind = {"Content-Type": "text/event-stream"}
        return httpx.Response(200, headers=kind, stream=FakeEventStream(connection))

    def welcome(self, connection: "FakeConnection") -> Message:
        return {
            "type": "welcome",
            "protocol": 1,
            "userId": self.user_id,
            "username": "me",
            "connectionId": connection.id,
            "gateway": "g",
            "session": "signed",
            "inbox": {"epoch": "i1", "seq": len(self.inbox)},
            "heartbeatInterval": 25_000,
            "maxMessageBytes": 1000,
        }

    @property
    def last(self) -> "FakeConnection":
        return self.connections[-1]

    @property
    def open(self) -> "list[FakeConnection]":
        return [connection for connection in self.connections if connection.is_open]

    def beat(self) -> None:
        """Have the streams that are open show that they live."""
        for connection in self.open:
            if connection.subprotocol == "sse":
                connection.send_event("heartbeat", {"timestamp": 1})

    def say(self, room: str, content: Any, user_id: str = "u-other") -> None:
        """Another user publishes to a room."""
        message = self.store(room, content, user_id)
        for connection in self.open:
            if room in connection.rooms:
                connection.send_out(message)

    def store(self, room: str, content: Any, user_id: str = "u-other") -> Message:
        message = {"type": "room_message", "userId": user_id, "username": user_id, "room": room}
        message |= {"content": content, "timestamp": 1}
        if not room.startswith("live:"):
            self.seq += 1
            message["seq"] = self.seq
            self.rooms.setdefault(room, []).append(message)
        return message

    def direct(self, content: Any) -> None:
        """Another user sends a direct message to this user."""
        message = {"type": "direct_message", "fromUserId": "u-other", "username": "o", "content": content}
        message |= {"timestamp": 1, "seq": len(self.inbox) + 1}
        self.inbox.append(message)
        for connection in self.open:
            connection.send_out(message)

    def answer(
        self, connection: "FakeConnection", message: Message, reply: Callable[[Message], None] | None = None
    ) -> None:
        reply = reply or connection.send_out
        kind, of = message["type"], {name: message[name] for name in ("id",) if name in message}
        if kind in self.answers:
            reply({**self.answers[kind], **of})
            return
        match kind:
            case "join_room" if self.refuse_joins > 0:
                self.refuse_joins -= 1
                fault = {"type": "error", "code": "unauthorized", "message": "no", "retryable": False}
                connection.send_out({**fault, **of})
            case "join_room":
                connection.rooms.add(message["room"])
                joined = self._joined(message["room"], message.get("since"), message.get("history"))
                connection.send_out({**joined, **of})
            case "rpc":
                reply({"type": "rpc_result", "data": [message["method"], message["data"]], **of})
            case "leave_room":
                connection.rooms.discard(message["room"])
                connection.send_out({"type": "left_room", "room": message["room"], **of})
            case "room_message":
                self._publish(connection, message, reply)
            case "subscribe":
                self._subscribe(connection, message, of)
            case "unsubscribe":
                connection.send_out({"type": "unsubscribed", "channels": message.get("channels", []), **of})
            case "heartbeat":
                connection.send_out({"type": "heartbeat_ack", **of})
            case _:
                reply({"type": "ack", **of})

    def keep(self, message: Message) -> Message:
        """Store a publish as if its answer had been lost."""
        room = message["room"]
        stored = self.store(room, message["content"], self.user_id)
        place = {"epoch": self.epoch, "seq": stored["seq"]} if "seq" in stored else {}
        self.stored[f"{room}/{message['id']}"] = {
            "type": "ack",
            "id": message["id"],
            "timestamp": 1,
            **place,
        }
        return stored

    def _joined(self, room: str, since: Message | None, history: int | None = None) -> Message:
        head: Message = {"type": "joined_room", "room": room}
        if since is None and history is not None:
            head["history"] = self.rooms.get(room, [])[-history:] if history else []
        if room.startswith("live:"):
            return {**head, **({"recovered": False, "missed": []} if since else {})}
        head |= {"epoch": self.epoch, "seq": self.seq}
        if since is None:
            return head
        if since["epoch"] != self.epoch:
            return {**head, "recovered": False, "missed": []}
        missed = [message for message in self.rooms.get(room, []) if message["seq"] > since["seq"]]
        return {**head, "recovered": True, "missed": missed}

    def _publish(
        self, connection: "FakeConnection", message: Message, reply: Callable[[Message], None]
    ) -> None:
        room, request_id = message["room"], message["id"]
        fault = {"type": "error", "id": request_id, "message": "no", "retryable": False}
        if room not in connection.rooms:
            reply({**fault, "code": "not_in_room"})
        elif self.bus_down:
            reply({**fault, "code": "unavailable", "retryable": True})
        elif f"{room}/{request_id}" in self.stored:
            reply(self.stored[f"{room}/{request_id}"])
        else:
            stored = self.keep(message)
            for other in self.open:
                if room in other.rooms and (other is not connection or message.get("echo")):
                    other.send_out(stored)
            reply(self.stored[f"{room}/{request_id}"])

    def _subscribe(self, connection: "FakeConnection", message: Message, of: Message) -> None:
        channels = message.get("channels", [message["channel"]] if "channel" in message else [])
        if set(channels) & set(self.refuses_channels):
            fault = {"type": "error", "code": "unknown_channel", "message": "no", "retryable": False}
            connection.send_out({**fault, **of})
            return
        answer = {"type": "subscribed", "channels": channels, **of}
        if since := message.get("since"):
            missed = [each for each in self.inbox if each["seq"] > since["seq"]]
            answer |= {"recovered": True, "missed": missed}
        connection.send_out(answer)


class FakeConnection:
    """The server's side of one connection, and the socket that the client holds."""

    def __init__(self, server: FakeServer, url: str, subprotocol: str, headers: Mapping[str, str]) -> None:
        self._server = server
        self._binary = subprotocol.endswith("msgpack")
        self._frames: asyncio.Queue[str | bytes | SocketClosed] = asyncio.Queue()
        self.id = f"c{len(server.connections) + 1}"
        self.greeted = asyncio.Event()
        self.query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        self.url = url
        self.subprotocol = subprotocol
        self.headers = headers
        self.received: list[Message] = []
        self.rooms: set[str] = set()
        self.closed_with: int | None = None

    @property
    def is_open(self) -> bool:
        return self.closed_with is None

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.received]

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.received if message["type"] == kind]

    def greet(self) -> None:
        """Answer the upgrade."""
        self.send_out(self._server.welcome(self))
        self.greeted.set()

    def send_out(self, message: Message) -> None:
        """Send to the client."""
        if self.subprotocol == "sse":
            self.send_event(message["type"], message)
            return
        self.send_frame(msgspec.msgpack.encode(message) if self._binary else json.dumps(message))

    def send_event(self, kind: str, data: object, event_id: str | None = None) -> None:
        named = "" if event_id is None else f"id: {event_id}\n"
        self.send_frame(f"event: {kind}\n{named}data: {json.dumps(data)}\n\n")

    def send_frame(self, frame: str | bytes) -> None:
        if self.is_open:
            self._frames.put_nowait(frame)

    def disconnect(self, code: int, *, reconnect: bool, retry_after_ms: int | None = None) -> None:
        """End it like a server, with `disconnect`."""
        message = {"type": "disconnect", "code": code, "reason": f"reason {code}", "reconnect": reconnect}
        self.send_out(message | ({} if retry_after_ms is None else {"retryAfterMs": retry_after_ms}))
        self.drop(code)

    def drop(self, code: int = 1006) -> None:
        """End it without a word."""
        if self.is_open:
            self.end(code)
            self._frames.put_nowait(SocketClosed(code))

    def end(self, code: int) -> None:
        """Note that it is gone, and which rooms it leaves without a connection."""
        if self.is_open:
            self.closed_with = code
            still = {room for each in self._server.open for room in each.rooms}
            self._server.departures += len(self.rooms - still)

    async def recv(self) -> str | bytes:
        frame = await self._frames.get()
        if isinstance(frame, SocketClosed):
            self._frames.put_nowait(frame)
            raise frame
        return frame

    async def send(self, data: str | bytes) -> None:
        if not self.is_open:
            return
        message = msgspec.msgpack.decode(data) if isinstance(data, bytes) else json.loads(data)
        self.received.append(message)
        if not self._server.silent and message["type"] not in self._server.ignores:
            self._server.answer(self, message)

    async def close(self, code: int) -> None:
        self.end(code)


class FakeEventStream(httpx.AsyncByteStream):
    """What one connection sends, as the body of an answer."""

    def __init__(self, connection: FakeConnection) -> None:
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                frame = await self._connection.recv()
            except SocketClosed:
                return
            yield frame if isinstance(frame, bytes) else frame.encode()

    async def aclose(self) -> None:
        self._connection.end(1005)


def _message_of(request: httpx.Request) -> Message | None:
    """Return a request as the message that it is on a socket."""
    kind, _, name = request.url.path.removeprefix("/api/").partition("/")
    name = name.removesuffix("/messages")
    types: dict[str, Message] = {
        "rooms": {"type": "room_message", "room": name},
        "users": {"type": "direct_message", "targetUserId": name},
        "broadcast": {"type": "broadcast"},
        "rpc": {"type": "rpc"},
        "me": {"type": "status_change" if name == "status" else "presence_update"},
    }
    return {**types[kind], **json.loads(request.content)} if kind in types else None
