"""Every JSON example in the docs decodes as its type, and keeps every field."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from gateway.api.alerts import AckRequest, SilenceRequest, WindowRequest, silence_of
from gateway.api.logs import PushedLine
from gateway.api.metric_items import PushedItem, report_of
from gateway.api.publish import PublishRequest
from gateway.api.pushes import LabelSets, ReportNumbers
from gateway.api.users import TicketRequest
from gateway.auth.tokens import identity_of, room_token_of
from gateway.hooks.messages import ConnectAnswer, JoinAnswer, MayRefuse, PublishAnswer, RpcAnswer
from services.wire import codec, server
from services.wire.client import AnyClientMessage
from services.wire.codes import CloseCode, ErrorCode
from services.wire.control import ConnectionInfo
from services.wire.records import ErrorBody
from services.wire.rpc import ServiceCall
from tests.support.docs import Block, blocks, pages

NOW_MS = 1_795_996_800_000


def _leaves(base: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for kind in base.__subclasses__():
        if kind.__subclasses__():
            yield from _leaves(kind)
        else:
            yield kind


_SERVER_TYPES = {str(kind.__struct_config__.tag): kind for kind in _leaves(server.ServerMessage)}
_CODES = {error.code: error for error in ErrorCode}
_CLOSES = {close.number: close.value for close in CloseCode}


def _server_message(text: bytes) -> object:
    kind = _SERVER_TYPES[json.loads(text)["type"]]
    message = msgspec.json.decode(text, type=kind)
    if isinstance(message, server.Error):
        assert message.retryable == _CODES[message.code].retryable
    if isinstance(message, server.Disconnect):
        spec = _CLOSES[message.code]
        assert (message.reason, message.reconnect) == (spec.reason, spec.reconnect)
    return message


def _typed(kind: type) -> Callable[[bytes], object]:
    return lambda text: msgspec.json.decode(text, type=kind)


def _pushed(text: bytes) -> object:
    for _ in report_of(msgspec.Raw(text), NOW_MS, ReportNumbers(), LabelSets()):
        pass
    return msgspec.json.decode(text, type=PushedItem)


def _silence(text: bytes) -> object:
    asked = msgspec.json.decode(text, type=SilenceRequest)
    silence_of(asked, NOW_MS)
    return asked


def _claim(text: bytes) -> object:
    claim = json.loads(text)
    identity_of({"sub": "ada", "exp": 1, "tidings": claim})
    return claim


def _room_token(text: bytes) -> object:
    claims = json.loads(text)
    room_token_of(claims)
    return claims


# What may stand after ```json, and how such a block is read.
KINDS: dict[str, Callable[[bytes], object]] = {
    "client": codec.JSON.decode,
    "server": _server_message,
    "call": _typed(ServiceCall),
    "error": _typed(ErrorBody),
    "publish": _typed(PublishRequest),
    "connection": _typed(ConnectionInfo),
    "ticket": _typed(TicketRequest),
    "push": _pushed,
    "silence": _silence,
    "window": _typed(WindowRequest),
    "log": _typed(PushedLine),
    "alert-ack": _typed(AckRequest),
    "claim": _claim,
    "room-token": _room_token,
    "connect-answer": _typed(ConnectAnswer),
    "join-answer": _typed(JoinAnswer),
    "publish-answer": _typed(PublishAnswer),
    "rpc-answer": _typed(RpcAnswer),
    "refusal": _typed(MayRefuse),
}

EXAMPLES = [block for page in pages() for block in blocks(page) if block.info.split()[:1] == ["json"]]


def _documents(body: str) -> Iterator[str]:
    """Yield the JSON documents of a block, one after the other."""
    decoder = json.JSONDecoder()
    at = 0
    while rest := body[at:].lstrip():
        at = len(body) - len(rest)
        _, end = decoder.raw_decode(body, at)
        yield body[at:end]
        at = end


def _lost(example: Any, kept: Any, where: str = "") -> Iterator[str]:
    """Yield where `kept` lacks something of the example; defaults may have been added."""
    if isinstance(example, dict) and isinstance(kept, dict):
        for key, value in example.items():
            if key not in kept:
                yield f"{where}.{key}"
            else:
                yield from _lost(value, kept[key], f"{where}.{key}")
    elif isinstance(example, list) and isinstance(kept, list) and len(example) == len(kept):
        for index, (one, other) in enumerate(zip(example, kept, strict=True)):
            yield from _lost(one, other, f"{where}[{index}]")
    elif example != kept:
        yield where


def test_there_are_examples() -> None:
    assert {block.info.split()[1] for block in EXAMPLES if len(block.info.split()) > 1} == set(KINDS)


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_an_example_is_of_the_type_it_claims(block: Block) -> None:
    kind = " ".join(block.info.split()[1:])
    assert kind in KINDS, f"{block}: say after ```json what it is, one of {', '.join(KINDS)}"
    for text in _documents(block.body):
        decoded = KINDS[kind](text.encode())
        kept = json.loads(msgspec.json.encode(decoded))
        assert list(_lost(json.loads(text), kept)) == [], f"{block}: {text}"


def test_every_client_message_and_every_server_message_is_shown() -> None:
    shown: dict[str, set[str]] = {"client": set(), "server": set()}
    for block in EXAMPLES:
        kind = block.info.split()[1]
        if block.page == "docs/protocol.md" and kind in shown:
            shown[kind] |= {json.loads(text)["type"] for text in _documents(block.body)}
    known_to_clients = {str(kind.__struct_config__.tag) for kind in AnyClientMessage.__args__}
    assert known_to_clients - shown["client"] == set()
    # A list of records, said in words.
    assert set(_SERVER_TYPES) - shown["server"] - {"initial_state"} == set()
