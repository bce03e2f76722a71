"""Bytes that are not a message: the error, and the request id that it answers."""

import msgspec
import pytest

from services.wire.codec import JSON, MSGPACK, BadMessage, Codec
from services.wire.codes import ErrorCode


def refusal(codec: Codec, data: bytes) -> BadMessage:
    with pytest.raises(BadMessage) as caught:
        codec.decode(data)
    return caught.value


@pytest.mark.parametrize(
    ("data", "code", "id"),
    [
        (b"", ErrorCode.BAD_MESSAGE, None),
        (b"{", ErrorCode.BAD_MESSAGE, None),
        (b"[]", ErrorCode.BAD_MESSAGE, None),
        (b'"heartbeat"', ErrorCode.BAD_MESSAGE, None),
        (b'{"type":"heartbeat"} trailing', ErrorCode.BAD_MESSAGE, None),
        (b"[" * 100_000, ErrorCode.BAD_MESSAGE, None),
        (b'{"id":"7"}', ErrorCode.UNKNOWN_TYPE, "7"),
        (b'{"type":5,"id":"7"}', ErrorCode.UNKNOWN_TYPE, "7"),
        (b'{"type":"explode","id":"7"}', ErrorCode.UNKNOWN_TYPE, "7"),
        (b'{"type":"join_room","id":"7"}', ErrorCode.INVALID_FIELD, "7"),
        (b'{"type":"join_room","room":5,"id":"7"}', ErrorCode.INVALID_FIELD, "7"),
        (b'{"type":"join_room","room":5,"id":{"a":1}}', ErrorCode.INVALID_FIELD, None),
        (b'{"type":"heartbeat","id":"' + b"x" * 65 + b'"}', ErrorCode.INVALID_FIELD, None),
        (b'{"type":"heartbeat","id":7}', ErrorCode.INVALID_FIELD, None),
    ],
)
def test_json(data: bytes, code: ErrorCode, id: str | None) -> None:
    fault = refusal(JSON, data)
    assert (fault.code, fault.id) == (code, id)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", ErrorCode.BAD_MESSAGE),
        (b"\xc1", ErrorCode.BAD_MESSAGE),
        (b"\x91" * 100_000, ErrorCode.BAD_MESSAGE),
        (b"\x81\xa4type\xa2\xff\xfe", ErrorCode.BAD_MESSAGE),
        (msgspec.msgpack.encode({"type": "explode"}), ErrorCode.UNKNOWN_TYPE),
        (msgspec.msgpack.encode({"type": "join_room", "room": b"bytes"}), ErrorCode.INVALID_FIELD),
    ],
)
def test_messagepack(data: bytes, code: ErrorCode) -> None:
    assert refusal(MSGPACK, data).code is code


def test_an_id_of_64_characters_is_echoed() -> None:
    assert JSON.decode(b'{"type":"heartbeat","id":"' + b"\xc3\xbc" * 64 + b'"}').id == "ü" * 64


def content(codec: Codec, value: bytes, max_depth: int = 64) -> bytes:
    return bytes(codec.content(msgspec.Raw(value), max_depth, 0))


@pytest.mark.parametrize(
    ("value", "size"), [([None] * 40, 201), (["\x01"] * 10, 91), ([b"x" * 50], 72), ("ü" * 60, 122)]
)
def test_content_is_as_large_as_its_json(value: object, size: int) -> None:
    raw = msgspec.Raw(msgspec.msgpack.encode(value))
    assert len(raw) <= 122
    assert len(bytes(MSGPACK.content(raw, 64, size))) == size
    with pytest.raises(BadMessage, match=f"the limit is {size - 1}") as caught:
        MSGPACK.content(raw, 64, size - 1)
    assert caught.value.code is ErrorCode.TOO_LARGE


@pytest.mark.parametrize("seq", [-1, 2**63, 2**64, 2**80, 1.5, 9e307])
def test_a_position_that_no_stream_has(seq: float) -> None:
    text = msgspec.json.encode(
        {"type": "join_room", "room": "r", "since": {"epoch": "e", "seq": 0}, "id": "7"}
    )
    fault = refusal(JSON, text.replace(b'"seq":0', f'"seq":{seq}'.encode()))
    assert (fault.code, fault.id) == (ErrorCode.INVALID_FIELD, "7")


def test_content_crosses_the_bus_as_json() -> None:
    assert content(JSON, b'{"a": [1, 2]}') == b'{"a": [1, 2]}'
    assert content(MSGPACK, msgspec.msgpack.encode({"a": [1, 2.5, None], "b": "ü"})) == (
        '{"a":[1,2.5,null],"b":"ü"}'.encode()
    )


@pytest.mark.parametrize("raw", [b'{\n "a":\r\n [1,\n2]}', b'\r\n{"a":[1,2]}\n', b'{"a":\r[1,2]}'])
def test_content_is_one_line(raw: bytes) -> None:
    assert content(JSON, raw) == b'{"a":[1,2]}'
    assert content(JSON, b'"\\n \\r"') == b'"\\n \\r"'  # escaped ones are no line breaks


@pytest.mark.parametrize(
    "raw", [b"1e999", b'"\xff"', b"[" * 65 + b"]" * 65, b"[" * 900 + b"]" * 900, b"9" * 30, b"9" * 5000]
)
def test_content_that_some_receiver_could_not_read(raw: bytes) -> None:
    with pytest.raises(BadMessage) as caught:
        content(JSON, raw)
    assert caught.value.code is ErrorCode.INVALID_FIELD


@pytest.mark.parametrize(
    "raw",
    [
        msgspec.msgpack.encode(msgspec.msgpack.Ext(5, b"x")),
        msgspec.msgpack.encode({(1, 2): 3}),
        b"\xa2\xff\xfe",
        b"\x91" * 65 + b"\xc0",
        b"\x91" * 5000 + b"\xc0",
    ],
)
def test_messagepack_content_without_a_json_form(raw: bytes) -> None:
    with pytest.raises(BadMessage) as caught:
        content(MSGPACK, raw)
    assert caught.value.code is ErrorCode.INVALID_FIELD


def test_depth_is_counted_outside_of_strings() -> None:
    assert content(JSON, b'["' + b"[" * 500 + b'"]', max_depth=1)
    assert content(JSON, b"[[],[],[[]]]", max_depth=3)
    with pytest.raises(BadMessage):
        content(JSON, b"[[],[],[[]]]", max_depth=2)
