"""NATS, Redis and Valkey servers as the operator names them: URLs, and which versions are recent enough. Pure."""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

Version = tuple[int, ...]

NATS_MINIMUM: Version = (2, 11)  # batched direct get and message TTL
REDIS_MINIMUM: Version = (6, 2)  # what the scripts use: ZMSCORE, HRANDFIELD, ZADD GT, SET … GET

_VERSION = re.compile(r"\d+(?:\.\d+)+")
_NATS_PORT = 4222
_REDIS_PORTS = {"": 6379, "cluster": 6379, "sentinel": 26379}


def parse_version(text: str) -> Version:
    """Return the first version in a text: (2, 15, 1) of `nats-server: v2.15.1-RC.2`. () where there is none."""
    found = _VERSION.search(text)
    return tuple(map(int, found[0].split("."))) if found else ()


def spell_version(version: Version) -> str:
    """Spell a version as people do: 2.11.0."""
    return ".".join(map(str, version)) or "of unknown version"


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """Servers and credentials, separated.

    nats-py neither decodes percent escapes in a URL nor uses its credentials for servers that the cluster advertises.
    """

    servers: list[str]
    nodes: list[tuple[str, int]]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @property
    def shown(self) -> str:
        """The servers, fit for logs and errors."""
        return ", ".join(self.servers)


def parse_nats_url(urls: str) -> NatsAddress:
    """Take apart `nats://user:password@host:port`, or several of them separated by commas.

    The first credentials found are used for all servers.

    Raises:
        ValueError: none, or not a URL; the message continues the setting's name and shows no part of the URL.
    """
    servers: list[str] = []
    nodes: list[tuple[str, int]] = []
    user = password = token = None
    for given in (part.strip() for part in urls.split(",")):
        if not given:
            continue
        try:
            url = urlsplit(given if "://" in given else f"nats://{given}")
            host, port = url.hostname, url.port or _NATS_PORT
        except ValueError:
            host = None
        if not host:
            raise ValueError("is no list of addresses like nats://host:4222")
        if url.username is not None and user is None and token is None:
            if url.password is None:
                token = unquote(url.username)
            else:
                user, password = unquote(url.username), unquote(url.password)
        servers.append(f"{url.scheme}://{_host_and_port(host, port)}")
        nodes.append((host, port))
    if not servers:
        raise ValueError("is empty: say where NATS is")
    return NatsAddress(servers, nodes, user, password, token)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A URL taken apart. `kind` is empty (one server), `cluster` or `sentinel`."""

    kind: str
    tls: bool
    nodes: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None = field(repr=False)
    master: str
    database: int

    @property
    def shown(self) -> str:
        """The servers, fit for logs and errors."""
        nodes = ", ".join(_host_and_port(host, port) for host, port in self.nodes)
        return f"{self.master} of Sentinels {nodes}" if self.kind == "sentinel" else nodes


def parse_redis_url(url: str) -> RedisAddress:
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
    nodes = tuple(_redis_node(text, _REDIS_PORTS[kind]) for text in hosts.split(",") if text)
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


def _redis_node(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:  # not shown: where a password is not encoded, it may be a piece of that
        raise ValueError("names a host that is no host:port; percent-encode what is special in a password")
    return host, port or default_port


def _host_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
