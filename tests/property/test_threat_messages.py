"""Any message: understood, or refused with a reason; never an exception, and always an answer."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.auth.grants import ALL, DEFAULT
from gateway.auth.identity import Identity
from gateway.delivery.outbound import Outbound, Wire
from gateway.delivery.sanitizing import sanitized
from gateway.session.effects import PublishToAll, PublishToRoom, PublishToUser, Reply
from gateway.session.session import Session
from services.settings import Namespace, Settings
from services.wire import server
from services.wire.client import AnyClientMessage
from services.wire.codec import JSON, MSGPACK, BadMessage, Codec, json_content
from services.wire.codes import ErrorCode
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
    """Do with a message what a connection does, and check that somebody is told something."""
    session = Session(Identity("ada", "ada", grants), CHOSEN, 0.0)
    session.rooms |= {"lobby", "news:a", "slow:a"}
    try:
        message = codec.decode(data)
    except BadMessage as fault:
        effects = session.malformed(fault, 0.0)
    else:
        effects = session.receive(message, 0.0)
    assert effects
    for effect in effects:
        if isinstance(effect, Reply):
            Outbound(effect.message).on(Wire.MSGPACK)
            assert not isinstance(effect.message, server.Error) or effect.message.code in CODES
        if isinstance(effect, PublishToRoom | PublishToUser | PublishToAll):
            try:
                content = json_content(codec, effect.content, CHOSEN.max_json_depth)
            except BadMessage:
                continue
            assert b"\n" not in bytes(content)
            for text in (content, sanitized(content)):  # as short as they are, none has too much markup
                msgspec.msgpack.encode(msgspec.json.decode(text))  # every receiver can be told


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
