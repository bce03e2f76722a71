"""Lua scripts, run by hash, or by source on a server that does not know the hash. For processes that own a store.

A change in Redis is one script, in a file of its own that opens with a table of KEYS and ARGV.
"""

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Any, Self

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

Argument = str | bytes | int

_OUT_OF_REACH = (
    ConnectionError,
    TimeoutError,
    ReadOnlyError,
    OutOfMemoryError,
    ClusterDownError,
    MasterDownError,
)
# Refusals that redis-py has no class for; they pass as the server recovers.
_PASSING = ("BUSY", "MISCONF", "NOREPLICAS", "TRYAGAIN", "UNKILLABLE")


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its source, and the hash that Redis knows it by."""

    name: str
    source: str
    sha: str

    @classmethod
    def read(cls, package: str, name: str, *parts: str) -> Self:
        """Read `lua/PART.lua` of a package for each part (default: `name`), joined: Redis scripts cannot include others."""
        folder = resources.files(package) / "lua"
        source = "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts or (name,))
        return cls(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def is_out_of_reach(fault: RedisError) -> bool:
    """Whether Redis cannot serve now; else the fault is ours."""
    passing = isinstance(fault, ResponseError) and str(fault).startswith(_PASSING)
    return passing or isinstance(fault, _OUT_OF_REACH)


async def run(redis: Redis | RedisCluster, script: Script, keys: list[str], arguments: list[Argument]) -> Any:
    """Run a script on its own. Raises RedisError."""
    try:
        return await redis.evalsha(script.sha, len(keys), *keys, *arguments)
    except NoScriptError:
        return await redis.eval(script.source, len(keys), *keys, *arguments)
