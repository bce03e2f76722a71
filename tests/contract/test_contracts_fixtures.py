"""The golden messages in tests/fixtures/wire: the TypeScript suite reads the same files.

A message that is encoded or decoded differently from the file breaks existing clients.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.contracts.schemas import client_messages, server_messages, tag_of
from gateway.sse.event_id import decode_id, encode_id
from services.wire.codec import JSON, MSGPACK
from services.wire.records import Position

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "wire"
SERVER_TYPES = {tag_of(kind): kind for kind in server_messages()}

Case = dict[str, Any]


def _cases(file: str) -> list[Case]:
    loaded: list[Case] = json.loads((FOLDER / file).read_text(encoding="utf-8"))
    return loaded


def _name(case: Case) -> str:
    return str(case["name"])


def _plain(message: object) -> Any:
    return json.loads(msgspec.json.encode(message))


@pytest.mark.parametrize("case", _cases("client.json"), ids=_name)
def test_a_client_message_is_the_same_in_both_codecs(case: Case) -> None:
    text = json.dumps(case["message"]).encode()
    packed = bytes.fromhex(case["msgpack"])
    assert msgspec.msgpack.decode(packed) == case["message"]
    from_json, from_msgpack = JSON.decode(text), MSGPACK.decode(packed)
    assert type(from_json) is type(from_msgpack)
    assert from_json.id == from_msgpack.id


@pytest.mark.parametrize("case", _cases("server.json"), ids=_name)
def test_a_server_message_is_encoded_as_in_the_file(case: Case) -> None:
    message = msgspec.convert(case["message"], SERVER_TYPES[case["message"]["type"]])
    assert _plain(message) == case["message"]
    assert msgspec.msgpack.encode(message).hex() == case["msgpack"]


@pytest.mark.parametrize("case", _cases("values.json"), ids=_name)
def test_a_value_has_one_form_in_messagepack(case: Case) -> None:
    assert msgspec.msgpack.encode(case["value"]).hex() == case["msgpack"]
    assert msgspec.msgpack.decode(bytes.fromhex(case["msgpack"])) == case["value"]


@pytest.mark.parametrize("case", _cases("event_ids.json"), ids=_name)
def test_an_event_id_holds_these_positions(case: Case) -> None:
    positions = {topic: Position(epoch, seq) for topic, epoch, seq in case["positions"]}
    assert encode_id(positions) == case["id"]
    assert decode_id(case["id"], positions) == positions


def test_every_message_type_is_there() -> None:
    for file, kinds in (("client.json", client_messages()), ("server.json", server_messages())):
        shown = {case["message"]["type"] for case in _cases(file)}
        assert {tag_of(kind) for kind in kinds} - shown == set(), f"add them to {file}"
