"""URLs of Redis and Valkey taken apart. No I/O; `redis_client` connects."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

_DEFAULT_PORTS = {"": 6379, "cluster": 6379, "sentinel": 26379}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A URL taken apart. `kind` is empty (one server), `cluster` or `sentinel`."""

    kind: str
    tls: bool
    nodes: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None
    master: str
    database: int


def parse_address(url: str) -> RedisAddress:
    """Take a URL apart.

    Raises:
        ValueError: it is none; the message goes on after the setting's name, and shows no piece of the URL.
    """
    scheme, _, rest = url.partition("://")
    found = re.fullmatch(r"(redis|valkey)(s?)(?:\+(cluster|sentinel))?", scheme)
    if found is None:
        raise ValueError("begins with none of redis, rediss, redis+cluster, redis+sentinel and unix")
    authority, _, path = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    username, _, password = login.partition(":")
    kind = found[3] or ""
    nodes = tuple(_node(text, _DEFAULT_PORTS[kind]) for text in hosts.split(",") if text)
    if not nodes:
        raise ValueError("names no host")
    if len(nodes) > 1 and not kind:
        raise ValueError("names several hosts: begin with redis+cluster or redis+sentinel")
    parts = [part for part in path.partition("?")[0].split("/") if part]
    master = ""
    if kind == "sentinel":
        if not parts:
            raise ValueError("names no master: put its name behind the Sentinels, /NAME/0")
        master = unquote(parts.pop(0))
    database = parts[0] if parts else "0"
    if not database.isdecimal() or len(parts) > 1 or (kind == "cluster" and database != "0"):
        raise ValueError("has a path that is no database number (0 for a cluster)")
    return RedisAddress(
        kind,
        bool(found[2]),
        nodes,
        unquote(username) or None,
        unquote(password) or None,
        master,
        int(database),
    )


def _node(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:  # not shown: where a password is not encoded, it may be a piece of that
        raise ValueError("names a host that is no host:port; percent-encode what is special in a password")
    return host, port or default_port
