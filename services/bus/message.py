"""NATS messages, headers and subjects as bytes: written in one go, parsed on demand (NATS ADR-4)."""

import re
from functools import lru_cache

import msgspec

_LINE = b"NATS/1.0"
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PUBLISHABLE = re.compile(r"[^\x00-\x20\x7f.*>]+(?:\.[^\x00-\x20\x7f.*>]+)*")
_WORD = r"(?:[^\x00-\x20\x7f.*>]+|\*)"
_SUBSCRIBABLE = re.compile(rf"(?:{_WORD}\.)*(?:{_WORD}|>)")
_STATUS = re.compile(rb"NATS/1\.0 (\d{3})(?: ([^\r\n]*))?\r\n")

_NO_RESPONDERS = 503
_SUBJECTS_REMEMBERED = 16_384  # a lookup costs a tenth of a check; a gateway publishes to the same rooms


@lru_cache(maxsize=_SUBJECTS_REMEMBERED)
def check_publishable(subject: str) -> None:
    """Raise ValueError for white space, control characters (CR and LF would be protocol), wildcards or empty tokens."""
    if not _PUBLISHABLE.fullmatch(subject):
        raise ValueError(f"not a subject to publish to: {subject!r}")


def check_subscribable(subject: str) -> None:
    """Raise ValueError for a malformed subject; `*` and a last `>` are allowed."""
    if not _SUBSCRIBABLE.fullmatch(subject):
        raise ValueError(f"not a subject to subscribe to: {subject!r}")


def encode_headers(headers: dict[str, str]) -> bytes:
    """Return the header block as it goes on the wire.

    Raises:
        ValueError: a name is no RFC 7230 token, or a value has control characters.
    """
    lines = [_LINE]
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a header name: {name!r}")
        if _CONTROL.search(value):
            raise ValueError(f"control characters in header {name}")
        lines.append(f"{name}: {value}".encode())
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def find_header(raw: bytes, name: str) -> str | None:
    """Return the value of the first header of that exact name, or None."""
    needle = b"\r\n%b:" % name.encode()
    at = raw.find(needle)
    if at < 0:
        return None
    start = at + len(needle)
    return raw[start : raw.find(b"\r\n", start)].strip().decode("utf-8", "replace")


def find_number(raw: bytes, name: bytes) -> int:
    """Return a header's value as an integer; 0 when it is absent or no number."""
    needle = b"\r\n%b: " % name
    at = raw.find(needle)
    if at < 0:
        return 0
    start = at + len(needle)
    digits = raw[start : raw.find(b"\r\n", start)]
    return int(digits) if digits.isdigit() else 0


def find_status(raw: bytes) -> tuple[int, str]:
    """Return the inline status and its description, such as (503, ""); (0, "") for an ordinary message."""
    found = _STATUS.match(raw)
    if not found:
        return 0, ""
    return int(found[1]), (found[2] or b"").decode("utf-8", "replace")


class BusMessage(msgspec.Struct, eq=False, gc=False):
    """One message as it arrived. `headers_raw` is the header block from its first line, empty without any."""

    subject: str
    reply: str
    data: bytes
    headers_raw: bytes

    def header(self, name: str) -> str | None:
        """Return one header's value, parsed on demand; None when absent."""
        return find_header(self.headers_raw, name)

    @property
    def seq(self) -> int:
        """`Nats-Sequence`, 0 when absent."""
        return find_number(self.headers_raw, b"Nats-Sequence")

    @property
    def last_seq(self) -> int:
        """`Nats-Last-Sequence`, 0 when absent."""
        return find_number(self.headers_raw, b"Nats-Last-Sequence")

    @property
    def status(self) -> int:
        """The server's inline status (503 no responders, 204 end of batch), 0 for an ordinary message."""
        return find_status(self.headers_raw)[0] if self.headers_raw else 0

    @property
    def is_no_responders(self) -> bool:
        """Whether the server reports that the subject of a request has no subscription."""
        return not self.data and self.status == _NO_RESPONDERS

    @property
    def description(self) -> str:
        """What the server says beside its status."""
        return find_status(self.headers_raw)[1]
