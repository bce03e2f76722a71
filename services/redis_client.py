"""The connection to Redis, for services with state there: short time limits, few retries, a check of the server.

The URL decides the client; every form takes `user:password@`:

- `redis://host:port/0`, `rediss://` (TLS), `unix:///path`: one server
- `redis+cluster://host:port,host:port`, `rediss+cluster://`: Redis Cluster; a service's keys are all in one slot
- `redis+sentinel://host:port,host:port/NAME/0`, `rediss+sentinel://`: the master that Sentinels call NAME
- `valkey` may stand for `redis` in all of them

A call that timed out may have run: it is repeated once, and every script tolerates that.
"""

import asyncio
import re
from typing import Any

import msgspec
import structlog
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialBackoff
from redis.exceptions import NoPermissionError, RedisClusterException, RedisError

from services.bus.errors import Misconfigured
from services.lifecycle import CannotStart
from services.permissions import Role
from services.permissions.redis import PROBES, access_of
from services.servers import REDIS_MINIMUM, RedisAddress, parse_redis_url, parse_version, spell_version
from services.settings import Settings

log = structlog.get_logger(__name__)

AnyRedis = Redis | RedisCluster

COMMAND_TIMEOUT_S = 1.0
RETRIES = 1
# To each server. A cluster's client refuses a call where one more would be needed; the others let it wait.
MAX_CONNECTIONS = 16
MAX_CONNECTIONS_IN_CLUSTER = 64
NO_LOGIN = "none"
_CHECK_AGAIN_S = 1.0

_Login = tuple[str | None, str | None]


def open_redis(settings: Settings, name: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> AnyRedis:
    """Return a client that connects when first used, and calls itself `tidings-NAME` at the server.

    Raises:
        CannotStart: no URL, or none that can be understood.
    """
    if not settings.redis_url:
        raise CannotStart(f"TIDINGS_REDIS_URL is not set: {name} needs a Redis or Valkey server")
    common = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "health_check_interval": 0,
        "retry": Retry(ExponentialBackoff(cap=0.2, base=0.02), RETRIES),
        "client_name": f"tidings-{name}",
        **_tls_options(settings),
    }
    try:
        if settings.redis_url.startswith("unix://"):
            return _single(settings.redis_url, common)
        address = parse_redis_url(settings.redis_url)
        if address.kind == "cluster":
            return _cluster(address, common)
        if address.kind == "sentinel":
            return _sentinel(address, _sentinel_login(settings, address), common)
        return _single(re.sub(r"^valkey", "redis", settings.redis_url), common)
    except ValueError as fault:
        raise CannotStart(f"TIDINGS_REDIS_URL: {fault}") from fault


def _tls_options(settings: Settings) -> dict[str, Any]:
    """Return redis-py's options for a `rediss://` URL. It verifies certificates by default."""
    server, _, _ = settings.redis_url.partition("://")[0].partition("+")  # rediss+cluster, rediss+sentinel
    if server not in ("rediss", "valkeys"):
        return {}
    files = {
        "ssl_ca_certs": settings.redis_ca,
        "ssl_certfile": settings.redis_cert,
        "ssl_keyfile": settings.redis_key,
    }
    return {name: str(path) for name, path in files.items() if path is not None}


def _single(url: str, common: dict[str, Any]) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url, max_connections=MAX_CONNECTIONS, timeout=common["socket_timeout"], **common
    )
    return Redis.from_pool(pool)


def _cluster(address: RedisAddress, common: dict[str, Any]) -> RedisCluster:
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.nodes],
        username=address.username,
        password=address.password,
        ssl=address.tls,
        max_connections=MAX_CONNECTIONS_IN_CLUSTER,
        require_full_coverage=False,  # one slot is ours; others do not matter to us
        **common,
    )


class _MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the current master; a caller waits where none is free."""


def _sentinel(address: RedisAddress, login: _Login, common: dict[str, Any]) -> Redis:
    tls = {"ssl": address.tls, **{name: value for name, value in common.items() if name.startswith("ssl_")}}
    timeouts = {name: common[name] for name in ("socket_timeout", "socket_connect_timeout")}
    sentinels = Sentinel(  # type: ignore[no-untyped-call]  # redis-py has no types for it
        list(address.nodes),
        sentinel_kwargs={"username": login[0], "password": login[1], **tls, **timeouts},
    )
    master: Redis = sentinels.master_for(
        address.master,
        connection_pool_class=_MasterPool,
        db=address.database,
        username=address.username,
        password=address.password,
        max_connections=MAX_CONNECTIONS,
        timeout=common["socket_timeout"],
        ssl=address.tls,
        **common,
    )
    return master


def _sentinel_login(settings: Settings, address: RedisAddress) -> _Login:
    """Return the login at the Sentinels: that of the URL, unless a setting says otherwise."""
    text = settings.redis_sentinel_login.get_secret_value()
    if not text:
        return address.username, address.password
    if text == NO_LOGIN:
        return None, None
    username, colon, password = text.partition(":")
    if not (colon and password):
        raise CannotStart(
            f"TIDINGS_REDIS_SENTINEL_LOGIN must be `user:password`, `:password` or `{NO_LOGIN}`"
        )
    return username or None, password


def one_line(fault: Exception) -> str:
    """Return a fault's text in one line: one of Sentinels quotes its clients with all their options."""
    return str(fault).partition(" : <")[0] or type(fault).__name__


async def close_redis(redis: AnyRedis) -> None:
    """Close a client, and what it asks for the master's address."""
    await redis.aclose()
    if isinstance(redis, Redis) and isinstance(redis.connection_pool, SentinelConnectionPool):
        for sentinel in redis.connection_pool.sentinel_manager.sentinels:
            await sentinel.aclose()


async def check_server(redis: AnyRedis) -> None:
    """Check the server, or every master of a cluster; warn where it may evict data.

    Raises:
        CannotStart: too old.
        redis.exceptions.RedisError: it cannot be reached now.
    """
    for info in await infos(redis):
        _check_info(info)


async def infos(redis: AnyRedis) -> list[dict[str, Any]]:
    """Return INFO of the server, or of each master of a cluster. Raises RedisError."""
    if not isinstance(redis, RedisCluster):
        return [await redis.info()]
    answers: dict[str, dict[str, Any]] = await redis.info(target_nodes=RedisCluster.PRIMARIES)
    # Of one node the answer comes as it is, of several by their names.
    return list(answers.values()) if all(isinstance(one, dict) for one in answers.values()) else [answers]


# KEYS[1]  an unused key of the role; not touched where the server can be asked
# ARGV     MessagePack: a list of commands, `KEY` standing for KEYS[1]
# returns  the commands that this user may not run
_CHECK_RIGHTS = """
local function asked(command)
  local known, allowed = pcall(redis.acl_check_cmd, unpack(command))
  return allowed or not known
end

-- Before Redis 7. Permissions are checked first: an error about the type means that the command is allowed. Some
-- commands run in no script; those are not known to be lacking.
local function tried(command)
  local answer = redis.pcall(unpack(command))
  local fault = type(answer) == 'table' and answer.err or ''
  redis.pcall('DEL', KEYS[1])
  for _, sign in ipairs({"can't run this command", "can't access", 'no permissions'}) do
    if fault:find(sign, 1, true) then return false end
  end
  return true
end

local may_run = redis.acl_check_cmd and asked or tried
local lacking = {}
for _, command in ipairs(cmsgpack.unpack(ARGV[1])) do
  for i, word in ipairs(command) do
    if word == 'KEY' then command[i] = KEYS[1] end
  end
  if not may_run(command) then table.insert(lacking, command[1]) end
end
return lacking
"""


async def prove_redis(redis: AnyRedis, role: Role, settings: Settings) -> None:
    """Check that this user of Redis has all rights of a role.

    Redis has a command for the question; before version 7 each command is tried on an unused key.

    Raises:
        Misconfigured: it may not; the message lists what is missing.
        Exception: whatever the client raises; where not even scripts may run, that says so.
    """
    key = f"{access_of(role, settings).key_prefix}:probe"
    found = await redis.eval(_CHECK_RIGHTS, 1, key, msgspec.msgpack.encode(PROBES))
    lacking = [name.decode() if isinstance(name, bytes) else str(name) for name in found]
    if lacking:
        raise Misconfigured(
            f"the user of TIDINGS_REDIS_URL lacks permissions that {role} needs: {', '.join(lacking)} on its "
            "keys (`tidings permissions redis` prints all)"
        )


async def wait_for_redis(redis: AnyRedis, role: Role, settings: Settings) -> None:
    """Check the server's version and our permissions there, as soon as it can be reached.

    Raises:
        CannotStart: too old, or our user may not even be checked.
        Misconfigured: a permission is missing.
    """
    while True:
        try:
            # Permissions first: the message names every missing one, where the version check would stop at its own.
            await prove_redis(redis, role, settings)
            await check_server(redis)
        except NoPermissionError as fault:
            raise CannotStart(f"TIDINGS_REDIS_URL: {fault}") from None
        except (RedisError, RedisClusterException) as fault:
            log.debug("redis not checked yet", reason=str(fault))
            await asyncio.sleep(_CHECK_AGAIN_S)
        else:
            return


def display_address(url: str) -> str:
    """Where a URL leads, for people and without its login. Raises ValueError."""
    return url.partition("?")[0] if url.startswith("unix://") else parse_redis_url(url).shown


def _check_info(info: dict[str, Any]) -> None:
    version = str(info.get("redis_version", ""))
    if parse_version(version) < REDIS_MINIMUM:
        least = spell_version(REDIS_MINIMUM)
        raise CannotStart(f"TIDINGS_REDIS_URL: the server is Redis {version}; {least} or later is needed")
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        log.warning("redis may evict what we keep", maxmemory_policy=policy, advice="set noeviction")
