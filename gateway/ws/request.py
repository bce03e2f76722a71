"""An upgrade request, and the ordinary one taken apart at once.

Nearly every upgrade is one segment with one plain head. Everything else (a head in pieces, a body, another method, another
path) is left to the HTTP protocol, which ends at the same `UpgradeRequest`.
"""

import re
from collections.abc import Callable

# What RFC 9112 §3-5 allows, and no more: a field that folds, a bare line feed or a control character is not ordinary.
_HEAD = re.compile(
    rb"GET (/[!-~]*) HTTP/1\.1\r\n((?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n)+)\r\n"
)
_WITH_MORE = ("content-length", "transfer-encoding", "expect")
_NEEDED = ("host", "upgrade")


class UpgradeRequest:
    """Method, path, query and headers. `headers` has the first line of each name; names are in lower case.

    `early` is what the client sent behind the head, before it could have an answer.
    """

    __slots__ = ("early", "headers", "lines", "method", "path", "query", "version")

    def __init__(
        self,
        method: str,
        target: str,
        lines: list[tuple[str, str]],
        *,
        version: str = "HTTP/1.1",
        early: bytes = b"",
    ) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.lines = lines
        self.version = version
        self.early = early
        self.headers = dict(lines)
        if self.repeats:
            self.headers = dict(reversed(lines))

    @property
    def repeats(self) -> bool:
        """Whether a name has more than one line."""
        return len(self.headers) != len(self.lines)

    def all(self, name: str) -> list[str]:
        """Return every line of a name."""
        return [value for known, value in self.lines if known == name]


def ordinary_upgrade(data: bytes, max_bytes: int, is_served: Callable[[str], bool]) -> UpgradeRequest | None:
    """Return the upgrade request that `data` is, whole and alone; None where it is anything else."""
    if len(data) > max_bytes:
        return None
    head = _HEAD.fullmatch(data)
    if head is None:
        return None
    lines = []
    for line in head[2].decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        lines.append((name.lower(), value.strip(" \t")))
    request = UpgradeRequest("GET", head[1].decode("ascii"), lines)
    headers = request.headers
    if not is_served(request.path) or any(name in headers for name in _WITH_MORE):
        return None
    if any(name not in headers for name in _NEEDED) or (request.repeats and len(request.all("host")) > 1):
        return None
    return request
