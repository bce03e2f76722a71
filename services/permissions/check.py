"""Startup check of our permissions at NATS and Redis, so that a missing one is reported before it is needed.

A message that NATS refuses is only noticed where its effect is waited for, and some are published without waiting. So
each subject is tried without effect: subscribed to for a moment, or published to by a message that the server traces
and does not deliver. Redis has a command for the question; before version 7 each command is tried on an unused key.
"""

import secrets
from collections.abc import Awaitable, Callable, Collection

import msgspec
from redis.asyncio import Redis, RedisCluster

from services.bus.errors import Misconfigured
from services.permissions.nats import subjects_of
from services.permissions.redis import PROBES, access_of
from services.permissions.roles import Role
from services.settings import Settings


async def prove_nats(
    try_subjects: Callable[[Collection[str], Collection[str]], Awaitable[set[tuple[str, str]]]],
    role: Role,
    settings: Settings,
) -> None:
    """Return if this user of NATS may do all that the role needs.

    Raises:
        Misconfigured: it may not; the message lists what is missing.
        Unavailable: the server did not answer.
    """
    needed = subjects_of(role, settings)
    publish = {_one_of(subject): subject for subject in needed.publish}
    subscribe = {_one_of(subject): subject for subject in needed.subscribe}
    refused = await try_subjects(publish, subscribe)
    lacking = [
        *(
            f"publish {pattern}"
            for tried, pattern in publish.items()
            if ("publish", tried.lower()) in refused
        ),
        *(
            f"subscribe {pattern}"
            for tried, pattern in subscribe.items()
            if ("subscription", tried.lower()) in refused
        ),
    ]
    if lacking:
        raise Misconfigured(
            f"the user of TIDINGS_NATS_URL lacks permissions that {role} needs: {', '.join(lacking)} "
            "(`tidings permissions nats` prints all)"
        )


def _one_of(pattern: str) -> str:
    """Return a subject that a pattern matches, an unused one where it has wildcards."""
    return ".".join(secrets.token_hex(8) if word in ("*", ">") else word for word in pattern.split("."))


# KEYS[1]  an unused key of the role; not touched where the server can be asked
# ARGV     MessagePack: a list of commands, `KEY` standing for KEYS[1]
# returns  the commands that this user may not run
_CHECK = """
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


async def prove_redis(redis: Redis | RedisCluster, role: Role, settings: Settings) -> None:
    """Return if this user of Redis may do all that the role needs.

    Raises:
        Misconfigured: it may not; the message lists what is missing.
        Exception: whatever the client raises; where not even scripts may run, that says so.
    """
    key = f"{access_of(role, settings).key_prefix}:probe"
    found = await redis.eval(_CHECK, 1, key, msgspec.msgpack.encode(PROBES))
    lacking = [name.decode() if isinstance(name, bytes) else str(name) for name in found]
    if lacking:
        raise Misconfigured(
            f"the user of TIDINGS_REDIS_URL lacks permissions that {role} needs: {', '.join(lacking)} on its "
            "keys (`tidings permissions redis` prints all)"
        )
