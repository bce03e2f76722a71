"""Names and their bus tokens: injective, one token, safe."""

import unicodedata
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from services.wire.names import InvalidName, normalize_name, to_token

names = st.text(min_size=1, max_size=128)


def _valid(text: str) -> str | None:
    try:
        return normalize_name(text)
    except InvalidName:
        return None


@given(names)
def test_round_trip(text: str) -> None:
    name = _valid(text)
    if name is not None:
        token = to_token(name)
        assert unquote(token.replace("=", "%")) == name
        assert set(token) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=")


@given(names, names)
def test_injective(one: str, other: str) -> None:
    first, second = _valid(one), _valid(other)
    if first is not None and second is not None:
        assert (to_token(first) == to_token(second)) is (first == second)


@given(names)
def test_normal_form_is_stable_and_small(text: str) -> None:
    name = _valid(text)
    if name is not None:
        assert normalize_name(name) == name == unicodedata.normalize("NFC", text)
        assert len(name.encode()) <= 128
