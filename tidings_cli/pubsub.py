"""`tidings pub` and `tidings sub`: the client protocol over one WebSocket, as any program would speak it."""

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
)

from services.wire.codec import SUBPROTOCOL_JSON
from services.wire.records import ErrorBody
from tidings_cli.checks.outcome import reason_of

_ANSWER_S = 10.0
_RETURN_S = 30.0  # a gateway that is started again is back by then
_AGAIN_S = 0.5
_PASSING = frozenset({1001, 1006, 1011, 1012, 1013})  # close codes with which another gateway may let in
_MAX_MESSAGE = 16 * 1024 * 1024  # a snapshot of presence may be large
# Answers to what this program itself asked; `--channels` snapshots and everything others do are printed.
_ANSWERS = frozenset({"welcome", "ack", "joined_room", "left_room", "subscribed", "heartbeat_ack"})
# JSON leaves these as they are, and a terminal may obey them.
_TERMINAL_CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class TalkFailed(RuntimeError):
    """The gateway was not reached, refused, or hung up; the message says which."""


class GatewayGone(TalkFailed):
    """The connection was lost, or the gateway stops: another one may be there."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where to connect, and as whom."""

    url: str
    token: str
    username: str

    def socket_url(self, channels: str = "", session: str = "") -> str:
        """Return the WebSocket address behind the page's address."""
        parts = urlsplit(self.url if "://" in self.url else f"http://{self.url}")
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        query = {"username": self.username} | ({"channels": channels} if channels else {})
        query |= {"session": session} if session else {}
        path = parts.path.rstrip("/") + "/ws"
        return urlunsplit((scheme, parts.netloc, path, urlencode(query), ""))


def content_of(text: str, *, as_json: bool) -> object:
    """Return what to publish.

    Raises:
        TalkFailed: `as_json`, and it is none.
    """
    if not as_json:
        return text
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as fault:
        raise TalkFailed(f"the content is not JSON: {fault}") from None


def on_one_line(message: object) -> str:
    """Return JSON that a terminal shows and does not obey."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    return _TERMINAL_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


async def publish(gateway: Gateway, room: str, content: object) -> None:
    """Join the room, publish, and print the acknowledgement.

    Raises:
        TalkFailed: not reached, or refused.
    """
    async with _connected(gateway) as connection:
        await _ask(connection, {"type": "join_room", "room": room, "id": "join"})
        message = {"type": "room_message", "room": room, "content": content, "id": _new_id()}
        print(on_one_line(await _ask(connection, message)))


async def follow(gateway: Gateway, rooms: list[str], channels: str, count: int) -> None:
    """Join rooms, follow channels, and print what comes, until `count` messages came (0: for ever).

    Where the gateway goes away, connect again (to another one, behind one address) and print what was missed.

    Raises:
        TalkFailed: not reached, refused, or hung up on for a reason that lasts.
    """
    following = _Following(gateway, channels, rooms, count)
    gone_at: float | None = None
    while True:
        try:
            if await following.run():
                return
            reason = "the gateway closed the connection"
        except GatewayGone as fault:
            reason = str(fault)
        except TalkFailed:
            # At first it is final; later the gateway may be starting again.
            if not following.was_in or (gone_at is not None and time.monotonic() - gone_at > _RETURN_S):
                raise
            await asyncio.sleep(_AGAIN_S)
            gone_at = gone_at or time.monotonic()
            continue
        gone_at = time.monotonic()
        sys.stderr.write(f"{reason}; connecting again\n")


class _Following:
    """What is followed, over one connection after another."""

    def __init__(self, gateway: Gateway, channels: str, rooms: list[str], count: int) -> None:
        self.was_in = False
        self._gateway = gateway
        self._channels = channels
        self._positions: dict[str, dict[str, object]] = {room: {} for room in rooms}
        self._left = count or -1
        self._session = ""

    async def run(self) -> bool:
        """Print what comes over one connection; return whether that is enough. Raises TalkFailed."""
        async with _connected(self._gateway, self._channels, self._session) as connection:
            for number, (room, since) in enumerate(self._positions.items()):
                asked = {"type": "join_room", "room": room, "id": f"join-{number}"}
                await connection.send(json.dumps(asked | ({"since": since} if since else {})))
            async for message in _messages(connection):
                _raise_if_refused(message)
                self.was_in = True
                if self._take(message):
                    return True
        return False

    def _take(self, message: dict[str, Any]) -> bool:
        type, room = message.get("type"), str(message.get("room"))
        if type == "welcome":
            self._session = str(message.get("session", ""))
        if type == "joined_room" and "epoch" in message:
            if message.get("recovered") is False:
                sys.stderr.write(f"{room}: some messages were missed\n")
            missed = message.get("missed", [])
            enough = any(self._print(one) for one in missed)
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


def _new_id() -> str:
    import secrets

    return secrets.token_hex(8)


@asynccontextmanager
async def _connected(
    gateway: Gateway, channels: str = "", session: str = ""
) -> AsyncIterator[ClientConnection]:
    url = gateway.socket_url(channels, session)
    headers = {"Authorization": f"Bearer {gateway.token}"} if gateway.token else None
    try:
        async with connect(
            url,
            additional_headers=headers,
            subprotocols=[SUBPROTOCOL_JSON],  # type: ignore[list-item]  # a NewType of str
            max_size=_MAX_MESSAGE,
        ) as connection:
            yield connection
    except InvalidStatus as fault:
        answer = fault.response
        hint = " (give a token with --token or TIDINGS_TOKEN)" if answer.status_code == 401 else ""
        said = f": {text}" if (text := _said(answer.body or b"")) else ""
        raise TalkFailed(f"{gateway.url} answered {answer.status_code}{hint}{said}") from None
    except (InvalidURI, InvalidMessage, InvalidHandshake) as fault:
        raise TalkFailed(f"{gateway.url} is no Tidings gateway: {fault}") from None
    except ConnectionClosed as fault:
        if fault.rcvd is None:
            raise GatewayGone(
                "the connection to the gateway was lost: it was killed, or the network is away"
            ) from None
        failed = GatewayGone if fault.rcvd.code in _PASSING else TalkFailed
        raise failed(f"the gateway closed the connection: {fault.rcvd.reason or fault}") from None
    except ConnectionRefusedError:
        raise TalkFailed(
            f"cannot reach {gateway.url}: connection refused. Does Tidings run? Start it with `tidings up`,"
            " or name another address with --url."
        ) from None
    except (OSError, TimeoutError) as fault:
        raise TalkFailed(f"cannot reach {gateway.url}: {reason_of(fault)}") from None


async def _messages(connection: ClientConnection) -> AsyncIterator[dict[str, Any]]:
    async for frame in connection:
        message = json.loads(frame)
        if message.get("type") == "disconnect":
            sys.stderr.write(f"{on_one_line(message)}\n")
        yield message


async def _ask(connection: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
    """Send a request and return the message that answers it."""
    await connection.send(json.dumps(request))
    try:
        async with asyncio.timeout(_ANSWER_S):
            async for message in _messages(connection):
                if message.get("id") == request["id"]:
                    _raise_if_refused(message)
                    return message
    except TimeoutError:
        raise TalkFailed(f"no answer to {request['type']} within {_ANSWER_S:g} s") from None
    raise TalkFailed("the gateway closed the connection")


def _said(body: bytes | bytearray) -> str:
    """Return what a refusal over HTTP says, for a person: the body of an error of ours, or any text."""
    text = body.decode(errors="replace").strip()[:500]
    try:
        error = msgspec.json.decode(text, type=ErrorBody)
    except msgspec.DecodeError:
        return text
    again = f"; try again in {error.retry_after_ms / 1000:g} s" if error.retry_after_ms else ""
    return f"{error.code}: {error.message}{again}"


def _raise_if_refused(message: dict[str, Any]) -> None:
    if message.get("type") == "error":
        raise TalkFailed(f"refused: {message.get('code')}: {message.get('message')}")
