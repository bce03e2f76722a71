"""The connection to Redis: short time limits, few retries, and a server that can run our scripts.

What the URL says decides the client; all of them take `user:password@`, several addresses where that makes sense,
and Valkey as well as Redis:

- `redis://host:port/0`, `rediss://` (TLS), `unix:///path`: one server
- `redis+cluster://host:port,host:port`, `rediss+cluster://`: Redis Cluster; all keys are in one slot
- `redis+sentinel://host:port,host:port/NAME/0`, `rediss+sentinel://`: the master that Sentinels call NAME
- `valkey` may stand for `redis` in all of them

A call that timed out may have run, so it is repeated once only, and every script may be repeated.
"""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialBackoff

from services.lifecycle import CannotStart
from services.settings import Settings
from services.tls import redis_options

log = structlog.get_logger(__name__)

AnyRedis = Redis | RedisCluster

LEAST_VERSION = (6, 2)  # ZMSCORE, HRANDFIELD, ZADD GT
COMMAND_TIMEOUT_S = 1.0
RETRIES = 1
MAX_CONNECTIONS = 16
_CLIENT_NAME = "tidings-presence"
_DEFAULT_PORTS = {"": 6379, "cluster": 6379, "sentinel": 26379}


@dataclass(frozen=True, slots=True)
class Address:
    """A URL taken apart. `kind` is empty (one server), `cluster` or `sentinel`."""

    kind: str
    tls: bool
    nodes: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None
    master: str
    database: int


def parse_address(url: str) -> Address:
    """Take a URL apart. Raises ValueError."""
    scheme, _, rest = url.partition("://")
    found = re.fullmatch(r"(redis|valkey)(s?)(?:\+(cluster|sentinel))?", scheme)
    if found is None:
        raise ValueError("expected redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://")
    authority, _, path = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    username, _, password = login.partition(":")
    kind = found[3] or ""
    nodes = tuple(_node(text, _DEFAULT_PORTS[kind]) for text in hosts.split(",") if text)
    if not nodes:
        raise ValueError("names no host")
    if len(nodes) > 1 and not kind:
        raise ValueError("several hosts need redis+cluster:// or redis+sentinel://")
    parts = [part for part in path.partition("?")[0].split("/") if part]
    master = ""
    if kind == "sentinel":
        if not parts:
            raise ValueError("a sentinel URL names the master: redis+sentinel://host:port/NAME")
        master = unquote(parts.pop(0))
    database = parts[0] if parts else "0"
    if not database.isdecimal() or len(parts) > 1 or (kind == "cluster" and database != "0"):
        raise ValueError("the path must be a database number (0 for a cluster)")
    return Address(
        kind,
        bool(found[2]),
        nodes,
        unquote(username) or None,
        unquote(password) or None,
        master,
        int(database),
    )


def _node(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} is no host:port")
    return parts.hostname, parts.port or default_port


def open_redis(settings: Settings) -> AnyRedis:
    """Return a client; it connects when first used.

    Raises:
        CannotStart: no URL, or none that can be understood.
    """
    if not settings.redis_url:
        raise CannotStart("TIDINGS_REDIS_URL is not set: presence needs a Redis or Valkey server")
    try:
        if settings.redis_url.startswith("unix://"):
            return _single(settings.redis_url, {})
        address = parse_address(settings.redis_url)
        tls = redis_options(settings)
        if address.kind == "cluster":
            return _cluster(address, tls)
        if address.kind == "sentinel":
            return _sentinel(address, tls)
        return _single(re.sub(r"^valkey", "redis", settings.redis_url), tls)
    except ValueError as fault:
        raise CannotStart(f"TIDINGS_REDIS_URL: {fault}") from fault


def _common() -> dict[str, Any]:
    return {
        "socket_timeout": COMMAND_TIMEOUT_S,
        "socket_connect_timeout": COMMAND_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": 0,
        "retry": Retry(ExponentialBackoff(cap=0.2, base=0.02), RETRIES),
        "client_name": _CLIENT_NAME,
    }


def _single(url: str, tls: dict[str, Any]) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url, max_connections=MAX_CONNECTIONS, timeout=COMMAND_TIMEOUT_S, **_common(), **tls
    )
    return Redis.from_pool(pool)


def _cluster(address: Address, tls: dict[str, Any]) -> RedisCluster:
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.nodes],
        username=address.username,
        password=address.password,
        ssl=address.tls,
        max_connections=MAX_CONNECTIONS,
        require_full_coverage=False,  # one slot is ours; others may be anybody's trouble
        **_common(),
        **tls,
    )


def _sentinel(address: Address, tls: dict[str, Any]) -> Redis:
    access: dict[str, Any] = {"username": address.username, "password": address.password}
    if address.tls:
        access |= {"ssl": True, **tls}
    timeouts = {"socket_timeout": COMMAND_TIMEOUT_S, "socket_connect_timeout": COMMAND_TIMEOUT_S}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py has no types for it
        list(address.nodes), sentinel_kwargs={**access, **timeouts}
    )
    master: Redis = sentinel.master_for(
        address.master, db=address.database, max_connections=MAX_CONNECTIONS, **access, **_common()
    )
    return master


async def close_redis(redis: AnyRedis) -> None:
    """Close a client, and what it asks for the master's address."""
    await redis.aclose()
    if isinstance(redis, Redis) and isinstance(redis.connection_pool, SentinelConnectionPool):
        for sentinel in redis.connection_pool.sentinel_manager.sentinels:
            await sentinel.aclose()


async def check_server(redis: AnyRedis) -> None:
    """Return if the server can hold presence; warn where it may lose it. Every node of a cluster is looked at.

    Raises:
        CannotStart: too old.
        redis.exceptions.RedisError: it cannot be reached now.
    """
    if isinstance(redis, RedisCluster):
        answers: dict[str, dict[str, Any]] = await redis.info(target_nodes=RedisCluster.PRIMARIES)
        found = (
            list(answers.values()) if all(isinstance(one, dict) for one in answers.values()) else [answers]
        )
    else:
        found = [await redis.info()]
    for info in found:
        _judge(info)


def _judge(info: dict[str, Any]) -> None:
    version = str(info.get("redis_version", ""))
    if parse_version(version) < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        raise CannotStart(
            f"TIDINGS_REDIS_URL: the server is Redis {version}, presence needs {least} or later"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        log.warning("redis may evict presence", maxmemory_policy=policy, advice="set noeviction")


def parse_version(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: `7.2.4-rc1` is (7, 2, 4). Nothing readable is ()."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match.group().split(".")) if match else ()
