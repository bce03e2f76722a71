"""Sanitizes HTML in content before it is stored, in namespaces that are configured so.

Every string, keys included, passes nh3 (ammonia), which keeps an allow-list of tags and attributes and escapes the
rest: no script, no event handler, no `javascript:` link survives. The result is HTML: `a < b` becomes `a &lt; b`.

nh3's time grows with the square of tags and attributes (12,800 nested tags: 0.3 s), plus 4 µs for each string. So
markup beyond the limits below is refused, and strings without any special character do not pass nh3.
"""

import re
from collections import Counter
from typing import Any

import msgspec
import nh3

from services.wire.codes import ErrorCode
from services.wire.content import BadMessage, ContentTooLarge

MAX_MARKUP = 1000  # characters that start a tag or an entity, or become one
MAX_MARKUP_STRINGS = 500
# Tags times formatting elements that may be open at once, summed over strings: HTML reopens all of them after a block
# (https://html.spec.whatwg.org/multipage/parsing.html#the-list-of-active-formatting-elements).
MAX_REOPENED = 20_000
# All strings with tags together: attributes of one tag cost their number squared.
MAX_MARKUP_BYTES = 16_384

# nh3 does not change strings without these.
_SPECIAL = re.compile("[<>&\0\r\xa0\ufeff]")
# The start tag of a formatting element; the group is the rest of a plainly written tag. `a` and `nobr` end the one before.
_FORMATTING = re.compile(
    r"""<(?:b|big|code|em|font|i|s|small|strike|strong|tt|u)(?=[ \t\n\f\r/>])"""
    r"""((?:[ \t\n\f\r/]++[^ \t\n\f\r/>"'<=]++(?:="[^"<]*+"|='[^'<]*+'|=[^ \t\n\f\r>"'<=`]++)?+)*+[ \t\n\f\r/]*+>)?+""",
    re.IGNORECASE,
)
_ALIKE = 3  # HTML keeps this many elements with the same attributes open
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(float_hook=float).decode


def sanitized(content: msgspec.Raw, max_bytes: int = 0) -> msgspec.Raw:
    """Return JSON content with every string sanitized. Its depth and numbers were checked before.

    Raises:
        BadMessage: more markup than nh3 cleans in a few milliseconds, or a result over `max_bytes` (0: no limit).
    """
    found = _encode(_Cleaning().clean(_decode(content)))
    if max_bytes and len(found) > max_bytes:
        raise ContentTooLarge(
            ErrorCode.TOO_LARGE, f"content is {len(found)} bytes as HTML, the limit is {max_bytes}"
        )
    return msgspec.Raw(found)


def sanitized_text(text: str) -> str:
    return nh3.clean(text) if _SPECIAL.search(text) else text


class _Cleaning:
    """The remaining budget of one message."""

    def __init__(self) -> None:
        self._markup = MAX_MARKUP
        self._strings = MAX_MARKUP_STRINGS
        self._reopened = MAX_REOPENED
        self._bytes = MAX_MARKUP_BYTES

    def clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self.clean(item) for item in value]
        if isinstance(value, dict):
            return {self._text(key): self.clean(item) for key, item in value.items()}
        return value

    def _text(self, text: str) -> str:
        if not _SPECIAL.search(text):
            return text
        self._strings -= 1
        tags = text.count("<")
        self._markup -= tags + text.count("&") + text.count("\xa0")
        if tags:
            self._bytes -= len(text.encode())
            self._reopened -= tags * _open_at_once(text)
        if min(self._strings, self._markup, self._bytes, self._reopened) < 0:
            raise BadMessage(
                ErrorCode.INVALID_FIELD,
                f"content has too much markup for this room: {MAX_MARKUP} tags and entities in {MAX_MARKUP_STRINGS} "
                f"strings, {MAX_MARKUP_BYTES} bytes of strings with tags, and {MAX_REOPENED} tags times kinds of formatting, are the limit",
            )
        return nh3.clean(text)


def _open_at_once(text: str) -> int:
    """Return the most formatting elements that a text can have open at once."""
    tags = Counter(tag[0] if tag[1] else tag.start() for tag in _FORMATTING.finditer(text))
    return sum(min(number, _ALIKE) for number in tags.values())
