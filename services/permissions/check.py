"""Ask the servers, at start, whether we may do what we need: what is missing is said before it is missed.

A message that NATS refuses is only seen by who waits for its effect, and some are published without waiting. So each
subject is tried without effect: subscribed to for a moment, or published to by a message that the server traces and
does not deliver. Redis is asked; one before 7 cannot be, and there each command is tried on a key that nobody else
uses.
"""

import secrets
from collections.abc import Collection
from typing import Any, Protocol

import msgspec

from services.bus.errors import Misconfigured
from services.permissions.nats import subjects_of
from services.permissions.redis import PROBES, access_of
from services.permissions.roles import Role
from services.settings import Settings


class Trying(Protocol):
    """What is asked of the bus."""

    async def refused(self, publish: Collection[str], subscribe: Collection[str]) -> set[tuple[str, str]]:
        """See `Bus.refused`."""


async def prove_nats(bus: Trying, role: Role, settings: Settings) -> None:
    """Return if this user of NATS may do all that the role needs.

    Raises:
        Misconfigured: it may not; the message lists what is missing.
        Unavailable: the server did not answer.
    """
    needed = subjects_of(role, settings)
    publish = {_one_of(subject): subject for subject in needed.publish}
    subscribe = {_one_of(subject): subject for subject in needed.subscribe}
    refused = await bus.refused(publish, subscribe)
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
    """Return a subject that a pattern matches, and that nobody uses where it has wildcards."""
    return ".".join(secrets.token_hex(8) if word in ("*", ">") else word for word in pattern.split("."))


class Store(Protocol):
    """What is asked of a Redis client, whichever it is."""

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Run a script."""


# KEYS[1]  a key of the role that nobody else uses; not touched where the server can be asked
# ARGV     MessagePack: a list of commands, `KEY` standing for KEYS[1]
# returns  the commands that this user may not run
_CHECK = """
local function asked(command)
  local known, allowed = pcall(redis.acl_check_cmd, unpack(command))
  return allowed or not known
end

-- Before Redis 7. Permissions come first: whoever hears of a wrong type may run the command. Some commands run in no
-- script, whoever asks; those are not known to be lacking.
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


async def prove_redis(redis: Store, role: Role, settings: Settings) -> None:
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
