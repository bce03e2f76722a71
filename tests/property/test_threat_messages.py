"""Any message: understood, or refused with a reason; never an exception, and always an answer."""

from functools import partial
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.auth.identity import Identity
from gateway.client.commands import ClientState, CommandError
from gateway.delivery.encoded_message import EncodedMessage, Encoding
from gateway.delivery.sanitizing import sanitized
from gateway.delivery.streams import route_of
from services.settings import Settings
from services.settings_values import Namespace
from services.wire.client import (
    AnyClientMessage,
    PublishBroadcastCommand,
    PublishDirectCommand,
    PublishRoomCommand,
)
from services.wire.codec import JSON, MSGPACK, BadMessage, Codec
from services.wire.codes import ErrorCode
from services.wire.grants import ALL, DEFAULT
from tests.support.properties import examples

TYPES = [str(kind.__struct_config__.tag) for kind in AnyClientMessage.__args__]
FIELDS = sorted(
    {field.encode_name for kind in AnyClientMessage.__args__ for field in msgspec.structs.fields(kind)}
)
CODES = {code.code for code in ErrorCode}
CHOSEN = Settings(
    message_rate=0, namespaces={"news": Namespace(publish="server"), "slow": Namespace(message_rate=1)}
)

VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=30), st.binary(max_size=20),
        st.sampled_from(["lobby", "news:a", "slow:a", "presence", "presence:x", "inbox", "online", "*", ">", "\x00", ""]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)),
    max_leaves=12,
)  # fmt: skip
MESSAGES = st.fixed_dictionaries(
    {"type": st.one_of(st.sampled_from(TYPES), VALUES)},
    optional=dict.fromkeys(FIELDS, VALUES),
)
FUZZ = settings(max_examples=examples(500))


def encoded(codec: Codec, value: Any) -> bytes | None:
    """Return a value as a client would send it; None where the codec has no form for it."""
    try:
        return msgspec.msgpack.encode(value) if codec.binary else msgspec.json.encode(value)
    except (OverflowError, UnicodeEncodeError, msgspec.EncodeError):
        return None


def answered(codec: Codec, data: bytes, grants: Any = ALL) -> None:
    """Do with a message what a connection does, and check that it is carried out or refused with a code."""
    state = ClientState(Identity("ada", "ada", grants), CHOSEN, partial(route_of, CHOSEN, {}), 0.0)
    state.restore(state.identity, {"lobby", "news:a", "slow:a"})
    try:
        command = state.check(codec.decode(data), 0.0)
    except (BadMessage, CommandError) as fault:
        reply = CommandError(fault.code, fault.message).reply()
        command = None
    else:
        reply = None
    if reply is not None:
        EncodedMessage(reply).encode(Encoding.MSGPACK)
        assert reply.code in CODES
    if isinstance(command, PublishRoomCommand | PublishDirectCommand | PublishBroadcastCommand):
        try:
            content = codec.content(command.content, CHOSEN.max_json_depth, 0)
        except BadMessage:
            return
        assert b"\n" not in bytes(content)
        for text in (content, sanitized(content)):  # as short as they are, none has too much markup
            msgspec.msgpack.encode(msgspec.json.decode(text))  # deliverable to every receiver


@FUZZ
@given(data=st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    answered(JSON, data)
    answered(MSGPACK, data)


@FUZZ
@given(text=st.text(max_size=300))
def test_any_text(text: str) -> None:
    answered(JSON, text.encode("utf-8", "surrogatepass"))


@FUZZ
@given(message=MESSAGES, grants=st.sampled_from([ALL, DEFAULT]))
def test_any_fields(message: dict[str, Any], grants: Any) -> None:
    for codec in (JSON, MSGPACK):
        data = encoded(codec, message)
        if data is not None:
            answered(codec, data, grants)


@FUZZ
@given(message=MESSAGES, at=st.integers(0, 400), byte=st.integers(0, 255))
def test_one_wrong_byte(message: dict[str, Any], at: int, byte: int) -> None:
    for codec in (JSON, MSGPACK):
        data = encoded(codec, message)
        if data:
            at %= len(data)
            answered(codec, data[:at] + bytes((byte,)) + data[at + 1 :])
            answered(codec, data[:at])
