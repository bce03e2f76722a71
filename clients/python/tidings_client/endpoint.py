"""The address of a server: `http://host` and `ws://host/ws` name the same one."""

import re
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit, urlunsplit

QueryValue = str | int | float | bool | None


class Endpoint:
    """The addresses of one server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
            raise ValueError(f"not an address of a server (such as https://host): {url!r}")
        base = urlunsplit((parts.scheme.replace("ws", "http"), parts.netloc, parts.path, "", ""))
        self.host = parts.netloc.rpartition("@")[2]
        """Host and port for log lines, without user information."""
        self._base = re.sub(r"/(ws)?$", "", base)

    def http(self, path: str, query: Mapping[str, QueryValue] | None = None) -> str:
        """Return the address of a path over HTTP."""
        return self._base + path + _search(query or {})

    def ws(self, query: Mapping[str, QueryValue] | None = None) -> str:
        """Return the address of the WebSocket."""
        return "ws" + self.http("/ws", query).removeprefix("http")


def _search(query: Mapping[str, QueryValue]) -> str:
    given = {name: _text(value) for name, value in query.items() if value is not None and value != ""}
    return f"?{urlencode(given)}" if given else ""


def _text(value: QueryValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
