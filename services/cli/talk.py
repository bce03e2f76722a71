"""`tidings pub` and `tidings sub`: the client protocol over one WebSocket, as any program would speak it."""

import asyncio
import json
import re
import sys
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

_ANSWER_S = 10.0
_MAX_MESSAGE = 16 * 1024 * 1024  # a snapshot of presence may be large
# Answers to what this program itself asked; `--channels` snapshots and everything others do are printed.
_ANSWERS = frozenset({"welcome", "ack", "joined_room", "left_room", "subscribed", "heartbeat_ack"})
# JSON leaves these as they are, and a terminal may obey them.
_TERMINAL_CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class TalkFailed(RuntimeError):
    """The gateway was not reached, refused, or hung up; the message says which."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where to connect, and as whom."""

    url: str
    token: str
    username: str

    def socket_url(self, channels: str = "") -> str:
        """Return the WebSocket address behind the page's address."""
        parts = urlsplit(self.url if "://" in self.url else f"http://{self.url}")
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        query = {"username": self.username} | ({"channels": channels} if channels else {})
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

    Raises:
        TalkFailed: not reached, refused, or hung up on.
    """
    async with _connected(gateway, channels) as connection:
        for number, room in enumerate(rooms):
            await connection.send(json.dumps({"type": "join_room", "room": room, "id": f"join-{number}"}))
        printed = 0
        async for message in _messages(connection):
            _raise_if_refused(message)
            if message.get("type") in _ANSWERS:
                continue
            print(on_one_line(message), flush=True)
            printed += 1
            if printed == count:
                return
    raise TalkFailed("the gateway closed the connection")


def _new_id() -> str:
    import secrets

    return secrets.token_hex(8)


@asynccontextmanager
async def _connected(gateway: Gateway, channels: str = "") -> AsyncIterator[ClientConnection]:
    url = gateway.socket_url(channels)
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
        reason = fault.rcvd.reason if fault.rcvd else "no close frame"
        raise TalkFailed(f"the gateway closed the connection: {reason or fault}") from None
    except ConnectionRefusedError:
        raise TalkFailed(
            f"cannot reach {gateway.url}: connection refused. Does Tidings run? Start it with `tidings up`,"
            " or name another address with --url."
        ) from None
    except (OSError, TimeoutError) as fault:
        raise TalkFailed(f"cannot reach {gateway.url}: {fault or 'no answer in time'}") from None


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
