"""The golden messages of the whole project: the server and the JavaScript client read the same files."""

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from tidings_client.codec import JSON, MSGPACK
from tidings_client.generated.wire import ClientMessage, Position, ServerMessage
from tidings_client.transport.eventid import encode_event_id, position_in

FOLDER = Path(__file__).resolve().parents[3] / "tests" / "fixtures" / "wire"
ASKED = {kind.__struct_config__.tag: kind for kind in get_args(ClientMessage)}
ANSWERED = {kind.__struct_config__.tag: kind for kind in get_args(ServerMessage)}

Case = dict[str, Any]


def _cases(file: str) -> list[Case]:
    loaded: list[Case] = json.loads((FOLDER / file).read_text(encoding="utf-8"))
    return loaded


def _name(case: Case) -> str:
    return str(case["name"])


@pytest.mark.parametrize("case", _cases("client.json"), ids=_name)
def test_messages_are_encoded_as_in_the_file(case: Case) -> None:
    message = msgspec.convert(case["message"], ASKED[case["message"]["type"]])
    assert json.loads(JSON.encode(message)) == case["message"]
    assert msgspec.msgpack.decode(MSGPACK.encode(message)) == case["message"]
    assert len(MSGPACK.encode(message)) == len(bytes.fromhex(case["msgpack"]))


@pytest.mark.parametrize("case", _cases("server.json"), ids=_name)
def test_server_messages_are_read_completely_in_both_codecs(case: Case) -> None:
    from_json = JSON.decode(json.dumps(case["message"]))
    from_msgpack = MSGPACK.decode(bytes.fromhex(case["msgpack"]))
    assert from_json == from_msgpack
    assert isinstance(from_json, ANSWERED[case["message"]["type"]])
    assert json.loads(msgspec.json.encode(from_json)) == case["message"], "a field was lost"


@pytest.mark.parametrize("case", _cases("values.json"), ids=_name)
def test_a_value_survives_both_codecs(case: Case) -> None:
    head = {"type": "broadcast", "userId": "u", "username": "u", "timestamp": 1}
    packed = msgspec.msgpack.encode({**head, "content": msgspec.Raw(bytes.fromhex(case["msgpack"]))})
    for message in (
        JSON.decode(json.dumps({**head, "content": case["value"]})),
        MSGPACK.decode(packed),
    ):
        assert message.content == case["value"]  # type: ignore[union-attr]


@pytest.mark.parametrize("case", _cases("event_ids.json"), ids=_name)
def test_an_event_id_holds_these_positions(case: Case) -> None:
    positions = [(topic, Position(epoch=epoch, seq=seq)) for topic, epoch, seq in case["positions"]]
    assert encode_event_id(positions) == case["id"]
    for topic, position in positions:
        assert position_in(case["id"], topic) == position


@pytest.mark.parametrize("other", ["%%%", "W10", "", "W1sxXV0", "x"])
def test_an_event_id_of_another_form_resumes_nothing(other: str) -> None:
    assert position_in(other, "lobby") is None


def test_every_type_of_message_is_there() -> None:
    for file, kinds in (("client.json", ASKED), ("server.json", ANSWERED)):
        assert {case["message"]["type"] for case in _cases(file)} == set(kinds)
