"""`tidings pub` and `tidings sub`: the client protocol over one WebSocket."""

import asyncio
import json
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tidings_cli import CommandFailed
from tidings_cli.gateways import Gateways

_ANSWER_S = 10.0
_RESTART_S = 30.0  # a gateway that restarts is ready within this time
_RETRY_S = 0.5
_PASSING = frozenset({1001, 1006, 1011, 1012, 1013})  # close codes after which another gateway may accept
_MAX_BYTES = 16 * 1024 * 1024  # a snapshot of presence may be large
# Answers to this program's own requests; snapshots of `--channels` and events are printed.
_ANSWERS = frozenset({"welcome", "ack", "joined_room", "left_room", "subscribed", "heartbeat_ack"})
# JSON leaves these as they are, and a terminal may obey them.
_TERMINAL_CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class ConnectionLost(CommandFailed):
    """The connection was lost, or the gateway stops: another one may accept."""


def content_of(text: str, *, as_json: bool) -> object:
    """Return the content to publish.

    Raises:
        CommandFailed: `as_json`, and the text is not JSON.
    """
    if not as_json:
        return text
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as fault:
        raise CommandFailed(f"the content is not JSON: {fault}") from None


def on_one_line(message: object) -> str:
    """Return JSON that a terminal shows and does not obey."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    return _TERMINAL_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


async def publish(gateways: Gateways, username: str, room: str, content: object) -> None:
    """Join the room, publish, and print the acknowledgement.

    Raises:
        CommandFailed: unreachable, or refused.
    """
    async with _connected(gateways, {"username": username}) as connection:
        await _request(connection, {"type": "join_room", "room": room, "id": "join"})
        message = {"type": "room_message", "room": room, "content": content, "id": secrets.token_hex(8)}
        print(on_one_line(await _request(connection, message)))


async def subscribe(gateways: Gateways, username: str, rooms: list[str], channels: str, count: int) -> None:
    """Join rooms, follow channels, and print messages until there were `count` (0: for ever).

    If the gateway goes away, reconnect (behind one address to another gateway) and print the missed messages.

    Raises:
        CommandFailed: unreachable, refused, or closed for a permanent reason.
    """
    query = {"username": username} | ({"channels": channels} if channels else {})
    subscriber = _Subscriber(gateways, query, rooms, count)
    lost_at: float | None = None
    while True:
        try:
            if await subscriber.run():
                return
            reason = "the gateway closed the connection"
        except ConnectionLost as fault:
            reason = str(fault)
        except CommandFailed:
            # Permanent on the first attempt; later the gateway may be restarting.
            if not subscriber.connected or (lost_at is not None and time.monotonic() - lost_at > _RESTART_S):
                raise
            await asyncio.sleep(_RETRY_S)
            lost_at = lost_at or time.monotonic()
            continue
        lost_at = time.monotonic()
        sys.stderr.write(f"{reason}; connecting again\n")


class _Subscriber:
    """Rooms and channels over one connection after another. `connected`: one was accepted."""

    def __init__(self, gateways: Gateways, query: dict[str, str], rooms: list[str], count: int) -> None:
        self.connected = False
        self._gateways = gateways
        self._query = query
        self._positions: dict[str, dict[str, object]] = {room: {} for room in rooms}
        self._left = count or -1

    async def run(self) -> bool:
        """Print the messages of one connection; return whether there were enough. Raises CommandFailed."""
        async with _connected(self._gateways, self._query) as connection:
            for number, (room, since) in enumerate(self._positions.items()):
                request = {"type": "join_room", "room": room, "id": f"join-{number}"}
                await connection.send(json.dumps(request | ({"since": since} if since else {})))
            async for message in _messages(connection):
                _raise_error(message)
                self.connected = True
                if self._on_message(message):
                    return True
        return False

    def _on_message(self, message: dict[str, Any]) -> bool:
        type, room = message.get("type"), str(message.get("room"))
        if type == "welcome" and (session := message.get("session")):
            self._query["session"] = session
        if type == "joined_room" and "epoch" in message:
            if message.get("recovered") is False:
                sys.stderr.write(f"{room}: some messages were missed\n")
            enough = any(self._print(one) for one in message.get("missed", []))
            self._positions[room] = {"epoch": message["epoch"], "seq": message["seq"]}
            return enough
        if type == "room_message" and "seq" in message:
            self._positions.get(room, {})["seq"] = message["seq"]
        return type not in _ANSWERS and self._print(message)

    def _print(self, message: dict[str, Any]) -> bool:
        if self._left == 0:
            return True
        print(on_one_line(message), flush=True)
        self._left -= 1
        return self._left == 0


@asynccontextmanager
async def _connected(gateways: Gateways, query: dict[str, str]) -> AsyncIterator[ClientConnection]:
    try:
        async with await gateways.open(0, query, max_size=_MAX_BYTES) as connection:
            yield connection
    except ConnectionClosed as fault:
        if fault.rcvd is None:
            raise ConnectionLost(
                "the connection to the gateway was lost: it was killed, or the network is down"
            ) from None
        failed = ConnectionLost if fault.rcvd.code in _PASSING else CommandFailed
        raise failed(f"the gateway closed the connection: {fault.rcvd.reason or fault}") from None


async def _messages(connection: ClientConnection) -> AsyncIterator[dict[str, Any]]:
    async for frame in connection:
        message = json.loads(frame)
        if message.get("type") == "disconnect":
            sys.stderr.write(f"{on_one_line(message)}\n")
        yield message


async def _request(connection: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
    """Send a request and return its answer."""
    await connection.send(json.dumps(request))
    try:
        async with asyncio.timeout(_ANSWER_S):
            async for message in _messages(connection):
                if message.get("id") == request["id"]:
                    _raise_error(message)
                    return message
    except TimeoutError:
        raise CommandFailed(f"no answer to {request['type']} within {_ANSWER_S:g} s") from None
    raise CommandFailed("the gateway closed the connection")


def _raise_error(message: dict[str, Any]) -> None:
    if message.get("type") == "error":
        raise CommandFailed(f"refused: {message.get('code')}: {message.get('message')}")
