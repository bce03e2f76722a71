"""The servers under test: Tidings twice (durable rooms or not), its peers, and the limit."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from bench.launch import PROGRAMS, Peer, Running, Setup, program, tidings
from bench.load.dialects import Rooms, SocketIo
from bench.machine import version_of, versions
from tidings_cli.local.binaries import NoBinary, nats_binary, redis_binary

_MODULES = PROGRAMS / "node_modules"
_ROOT = PROGRAMS.parent.parent
_NODE = ["sh", str(_ROOT / "scripts" / "node.sh"), "node"]


@cache
def bun() -> str:
    """Return the Bun of the `bun` package that runs here, or nothing.

    The package's install script, where npm lets it run, moves the program out of the package of the platform.
    """
    for path in (_MODULES / "bun" / "bin" / "bun.exe", *sorted(_MODULES.glob("@oven/bun-*/bin/bun"))):
        if path.exists():
            try:
                done = subprocess.run([path, "--version"], capture_output=True, timeout=20, check=False)
            except OSError:
                continue
            if done.returncode == 0 and done.stdout.strip():
                return str(path)
    return ""


@cache
def _node_runs() -> bool:
    return version_of(*_NODE, "--version").startswith("v")


@cache
def _no_redis() -> str:
    try:
        redis_binary()
    except NoBinary as absent:
        return str(absent)
    return ""


@cache
def _no_nats() -> str:
    try:
        nats_binary()
    except NoBinary as absent:
        return str(absent)
    return _no_redis()


def _no_bun() -> str:
    return "" if bun() else "the bun package is not in bench/peers/node_modules (make bench installs it)"


def _no_socketio() -> str:
    if not (_MODULES / "socket.io").exists():
        return "socket.io is not in bench/peers/node_modules (make bench installs it)"
    return _no_redis() if _node_runs() else "Node.js was not found"


def _no_python_socketio() -> str:
    try:
        import socketio  # noqa: F401  # tests whether it can be imported
    except ModuleNotFoundError:
        return "python-socketio is not installed (make bench installs it)"
    return _no_redis()


def _no_compiler() -> str:
    return "" if shutil.which("cc") else "no C compiler (cc) was found"


def _bun(script: str, *, redis: bool = False) -> Callable[[ExitStack, Setup], Running]:
    def start(stack: ExitStack, setup: Setup) -> Running:
        return program(bun(), str(PROGRAMS / script), redis=redis)(stack, setup)

    return start


def _c_loop(stack: ExitStack, setup: Setup) -> Running:
    return program(str(compiled_loop()))(stack, setup)


def compiled_loop() -> Path:
    """Return the program of the C loop, compiled if its source is newer."""
    target = PROGRAMS / "epoll_loop"
    source = PROGRAMS / "epoll_loop.c"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-o", str(target), str(source)], check=True)  # noqa: S607  # the system's compiler
    return target


def _python(script: str, *, redis: bool = False) -> Callable[[ExitStack, Setup], Running]:
    return program(sys.executable, str(PROGRAMS / script), redis=redis)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("tidings", "Tidings, ephemeral", Rooms(), tidings, room="live:bench", missing=_no_nats),
        Peer("tidings-durable", "Tidings, durable", Rooms(), tidings, missing=_no_nats),
        Peer("bun", "Bun", Rooms(), _bun("bun_native.ts"), missing=_no_bun),
        Peer(
            "bun-redis",
            "Bun + Redis",
            Rooms(),
            _bun("bun_redis.ts", redis=True),
            missing=lambda: _no_bun() or _no_redis(),
        ),
        Peer(
            "socketio",
            "Socket.IO + Redis",
            SocketIo(),
            program(*_NODE, str(PROGRAMS / "socketio_redis.mjs"), redis=True),
            missing=_no_socketio,
        ),
        Peer(
            "socketio-python",
            "python-socketio + Redis",
            SocketIo(),
            _python("socketio_python.py", redis=True),
            missing=_no_python_socketio,
        ),
        Peer("starlette", "Starlette loop", Rooms(), _python("starlette_loop.py")),
        Peer("c-loop", "C epoll loop", Rooms(), _c_loop, missing=_no_compiler),
    )
}


def labels() -> dict[str, str]:
    """Return the labels of peers, by name."""
    return {name: peer.label for name, peer in PEERS.items()}


def peer_versions() -> dict[str, str]:
    """Return the versions of all programs and packages."""
    nats = [str(nats_binary().path), "--version"] if not _no_nats() else []
    redis = [str(redis_binary().path), "--version"] if not _no_redis() else []
    found = versions(
        bun=[bun(), "--version"] if bun() else [],
        node=[*_NODE, "--version"] if _node_runs() else [],
        cc=["cc", "--version"] if not _no_compiler() else [],
        nats_server=nats,
        redis_server=redis,
    )
    for name in ("socket.io", "@socket.io/redis-adapter"):
        package = _MODULES / name / "package.json"
        if package.exists():
            found[name] = version_of(*_NODE, "-p", f"require('{package}').version")
    return found
