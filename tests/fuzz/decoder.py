"""Coverage-guided fuzzing of the path of a client's message: `python -m tests.fuzz.decoder [libFuzzer options]`.

The first byte chooses the codec. Whatever the rest is, it is understood or refused with `BadMessage`; anything else that
is raised is a finding, and libFuzzer writes the input down. Needs the dependency group `fuzz`.
"""

import sys
from urllib.parse import unquote

import atheris

with atheris.instrument_imports():
    import msgspec

    from gateway.channels.channel_names import parse_channel
    from gateway.delivery.sanitizing import sanitized
    from services.wire.codec import JSON, MSGPACK, BadMessage
    from services.wire.names import InvalidName, normalize_name, to_token

_MAX_DEPTH = 64


def one_input(data: bytes) -> None:
    """Decode, check the content, and spell the names."""
    if not data:
        return
    codec = MSGPACK if data[0] & 1 else JSON
    try:
        message = codec.decode(data[1:])
    except BadMessage:
        return
    content = getattr(message, "content", None) or getattr(message, "custom_data", None)
    if isinstance(content, msgspec.Raw):
        try:
            text = codec.content(content, _MAX_DEPTH, 0)
        except BadMessage:
            return
        msgspec.msgpack.encode(msgspec.json.decode(sanitized(text)))
    for field in ("room", "target_user_id"):
        name = getattr(message, field, None)
        if isinstance(name, str):
            parse_channel(f"presence:{name}")
            try:
                normal = normalize_name(name)
            except InvalidName:
                continue
            assert unquote(to_token(normal).replace("=", "%")) == normal


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
