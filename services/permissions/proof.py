"""Ask the servers, at start, whether we may do what we need: what is missing is said before it is missed.

A message that NATS refuses is only seen by who waits for its effect, and some are published without waiting. So the
server is asked for the permissions in force, and they are compared with what the role needs; nothing is tried out,
except at a Redis before 7, which cannot be asked: there each command is tried on a key that nobody else uses.
"""

from typing import Any, Protocol

import msgspec
import structlog

from services.bus.errors import BusError, Misconfigured
from services.bus.message import BusMessage
from services.permissions.nats import USER_INFO, missing, subjects_of
from services.permissions.redis import PROBES, access_of
from services.permissions.roles import Role
from services.settings import Settings

log = structlog.get_logger(__name__)

_ASK_S = 2.0


class _Side(msgspec.Struct):
    allow: list[str] | None = None
    deny: list[str] | None = None


class _Permissions(msgspec.Struct):
    publish: _Side | None = None
    subscribe: _Side | None = None


class _User(msgspec.Struct):
    user: str = ""
    permissions: _Permissions | None = None


class _UserInfo(msgspec.Struct):
    """Answer to `$SYS.REQ.USER.INFO`."""

    data: _User | None = None


class Asking(Protocol):
    """What is asked of the bus."""

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> BusMessage:
        """Ask and wait for one answer, or raise a BusError."""


async def prove_nats(bus: Asking, role: Role, settings: Settings) -> None:
    """Return if this user of NATS may do all that the role needs, or if the server does not say.

    Raises:
        Misconfigured: it may not; the message lists what is missing.
    """
    try:
        answer = await bus.request(USER_INFO, b"", timeout_s=_ASK_S)
        found = msgspec.json.decode(answer.data, type=_UserInfo).data
    except (BusError, msgspec.DecodeError) as fault:
        log.warning("permissions at NATS not checked: the server does not say", reason=str(fault))
        return
    permissions = found.permissions if found is not None else None
    if permissions is None:
        log.debug("this user of NATS may do everything", role=role)
        return
    needed = subjects_of(role, settings)
    lacking = [
        *(f"publish {subject}" for subject in _lacking(needed.publish, permissions.publish)),
        *(f"subscribe {subject}" for subject in _lacking(needed.subscribe, permissions.subscribe)),
    ]
    if lacking:
        raise Misconfigured(
            f"the user of TIDINGS_NATS_URL lacks permissions that {role} needs: {', '.join(lacking)} "
            "(`tidings permissions nats` prints all)"
        )


def _lacking(needed: tuple[str, ...], side: _Side | None) -> list[str]:
    return [] if side is None else missing(needed, side.allow or (), side.deny or ())


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
