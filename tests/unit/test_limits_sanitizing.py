"""Sanitizing of content as HTML."""

import json
from typing import Any

import msgspec
import nh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.sanitizing import sanitized, sanitized_text
from services.wire.codes import ErrorCode
from services.wire.content import BadMessage


def clean(content: Any) -> Any:
    return json.loads(bytes(sanitized(msgspec.Raw(json.dumps(content).encode()))))


@pytest.mark.parametrize(
    "attack",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<a href='javascript:alert(1)'>x</a>",
        "<svg><script>alert(1)</script></svg>",
        "<iframe srcdoc='<script>alert(1)</script>'>",
        "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
        "<style>@import 'http://evil.example'</style>",
        "<b onmouseover=alert(1)>x</b>",
        "<<script>script>alert(1)</script>",
    ],
)
def test_nothing_runs(attack: str) -> None:
    for found in (clean(attack), clean({"deep": [attack]})["deep"][0], next(iter(clean({attack: 1})))):
        assert "alert" not in found or "<" not in found.replace("<b>", "").replace("</b>", "")
        for sign in ("<script", "onerror", "onmouseover", "javascript:", "<iframe", "<svg", "<style"):
            assert sign not in found


def test_harmless_content_is_kept() -> None:
    content = {"text": "<b>bold</b> <i>and</i> plain", "n": 1.5, "list": [True, None, "x"]}
    assert clean(content) == content


def test_text_becomes_html() -> None:
    assert clean("a < b & c") == "a &lt; b &amp; c"


DISTINCT = "".join(f"<b {number:x}>" for number in range(150)) + "</div>" * 150


@pytest.mark.parametrize(
    "content",
    [
        "<b>" * 1001,
        DISTINCT,
        "&" * 1001,
        "\xa0" * 1001,
        ["a>b"] * 501,
        ["<b>" + "x" * 8200] * 2,
        {"<": "<" * 1000},
    ],
)
def test_more_markup_than_is_cleaned_in_a_few_milliseconds(content: object) -> None:
    with pytest.raises(BadMessage, match="too much markup") as caught:
        clean(content)
    assert caught.value.code is ErrorCode.INVALID_FIELD


def test_what_comes_out_has_a_size_too() -> None:
    text = json.dumps("<div>" * 1000).encode()
    assert len(sanitized(msgspec.Raw(text), 12_000)) > 2 * len(text)
    with pytest.raises(BadMessage, match="as HTML, the limit is 8000"):
        sanitized(msgspec.Raw(text), 8000)


def test_rich_text_of_a_usual_length_is_taken() -> None:
    post = "".join(
        f"<p>A <b>paragraph</b> &amp; a <a href='https://example.com/{n}'>link</a></p>" for n in range(100)
    )
    assert clean(post).count("</a>") == 100


@given(st.text(st.characters(codec="utf-8", exclude_characters="<>&\0\r\xa0\ufeff"), max_size=50))
def test_text_without_special_characters_needs_no_cleaning(text: str) -> None:
    assert nh3.clean(text) == text == clean(text)


@given(st.text("<>&\0\r\n\xa0\ufeffab/='\" ", max_size=30))
def test_what_is_short_is_cleaned_like_what_is_long(text: str) -> None:
    assert sanitized_text(text) == clean(text) == nh3.clean(text)
