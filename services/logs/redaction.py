"""Make one log line safe to keep, print and send. Pure functions.

Untrusted clients choose names with escape sequences or direction overrides, and an exception may quote a URL with a
password. Secrets are recognised by the *name* of their field.
"""

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

REDACTED = "***"

_SECRET_WORDS = frozenset(
    {"token", "ticket", "password", "passwd", "secret", "authorization", "session", "cookie", "credentials"}
)
_SECRET_KEYS = frozenset({"api_key", "apikey", "x-api-key"})
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
# C0 and C1 controls, marks and overrides of direction, line separators, and surrogates (no UTF-8 has them).
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNPRINTABLE_BUT_NEWLINE = re.compile(_UNPRINTABLE.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))
# A password may hold any character but white space, where it is not encoded.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://\S*")
_NEXT_URL = re.compile(r",(?=[A-Za-z][A-Za-z0-9+.-]{0,20}://)")
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::\d+)?"
_HOSTS = re.compile(rf"{_HOST}(?:,{_HOST})*,?")
_DATABASE = re.compile(r"/(?:[\w-]+/)?\d+")
_PUNCTUATION = ")]}>.,;:!?'\"`…"  # what ends a URL in a sentence
_WEB = ("http", "https", "ws", "wss")

_MAX_TEXT = 2048
_LOOKAHEAD = 2048  # a URL's login may end behind the limit
_MAX_TRACEBACK = 16_384
_MAX_ITEMS = 50
_MAX_DEPTH = 4


def is_secret(key: str) -> bool:
    """Whether a field of this name holds a secret: `jwt_token`, `Authorization`, `sessionSecret`."""
    return key.lower() in _SECRET_KEYS or any(word.lower() in _SECRET_WORDS for word in _WORD.findall(key))


def clean_urls(text: str) -> str:
    """Return text whose URLs say where they lead and no more: logins, paths and queries may be secrets.

    Of brokers' URLs the database stays, `redis://***@host:6379/0`. What cannot be understood is hidden whole.
    """
    return _URL.sub(lambda found: ",".join(map(_shown, _NEXT_URL.split(found[0]))), text)


def _shown(url: str) -> str:
    scheme, _, all_of_it = url.partition("://")
    rest = all_of_it.rstrip(_PUNCTUATION)
    end = all_of_it[len(rest) :]
    if scheme.lower() in _WEB:
        # The first of these ends the host's part (RFC 3986 §3.2), unless a login holds it.
        cut = re.search(r"[/?#]", rest)
        authority, path = (rest[: cut.start()], rest[cut.start() :]) if cut else (rest, "")
        login, _, hosts = authority.rpartition("@")
        if "@" in path:
            return f"{scheme}://{REDACTED}{end}"
        kept = path if path in ("", "/") else f"/{REDACTED}"
    else:
        login, _, address = rest.rpartition("@")
        hosts, path = re.match(r"([^/?#]*)([^?#]*)", address).groups()  # type: ignore[union-attr]  # always matches
        kept = path if _DATABASE.fullmatch(path) or scheme == "unix" else ""
    if not _HOSTS.fullmatch(hosts) and not (scheme == "unix" and not hosts):
        return f"{scheme}://{REDACTED}{end}"
    return f"{scheme}://{f'{REDACTED}@' if login else ''}{hosts}{kept}{end}"


def clean_text(text: str, limit: int = _MAX_TEXT) -> str:
    """Return text on one line, without control characters and secrets in URLs, cut to `limit` characters."""
    length = len(text)
    if length > limit + _LOOKAHEAD:  # what is cut off below need not be cleaned
        text = text[: limit + _LOOKAHEAD]
    text = text.replace("\r\n", " ").replace("\n", " ").replace("\t", " ")
    text = clean_urls(_UNPRINTABLE.sub("", text))
    return f"{text[:limit]}… ({length} characters)" if length > limit else text


def clean_traceback(text: str) -> str:
    """Return a traceback with its lines kept and the rest as in `clean_text`; of a long one, the end."""
    is_long = len(text) > _MAX_TRACEBACK
    text = clean_urls(_UNPRINTABLE_BUT_NEWLINE.sub("", text[-_MAX_TRACEBACK - _LOOKAHEAD :]))
    return f"…{text[-_MAX_TRACEBACK:]}" if is_long else text


def clean(value: Any, depth: int = 0) -> Any:
    """Return a value made of JSON types only, cleaned throughout. Bytes may be payload: only counted."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        items = list(value.items())[:_MAX_ITEMS]
        return {clean_text(str(key)): clean_field(str(key), item, depth + 1) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item, depth + 1) for item in list(value)[:_MAX_ITEMS]]
    return clean_text(str(value))


def clean_field(key: str, value: Any, depth: int = 0) -> Any:
    """Clean one field, or hide it if its name says that it is a secret. Counts and flags never are."""
    if is_secret(key) and value is not None and not isinstance(value, bool | int | float):
        return REDACTED
    return clean(value, depth)


def redact(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: clean every field of a line."""
    for key, value in line.items():
        if key.startswith("_"):  # structlog's own, for the formatter
            continue
        if key in {"exception", "stack"} and isinstance(value, str):
            line[key] = clean_traceback(value)
        else:
            line[key] = clean_field(key, value)
    return line
