"""This machine's resources: ports, file descriptors, the accept queue."""

import asyncio
import errno
import resource
from pathlib import Path

import httpx

from services.permissions import Role
from services.settings import Settings
from tidings_cli.checks.outcome import Outcome, bad, good, warning
from tidings_cli.health import local_url
from tidings_cli.local.processes import port_fault

# A gateway needs one per connection; less is not a server's limit.
_FEW_DESCRIPTORS = 4096
_OWN_DESCRIPTORS = 64  # files, the bus, the loop
_QUEUE = Path("/proc/sys/net/core/somaxconn")
_WANTED_QUEUE = 4096  # a gateway's backlog: a mass reconnect arrives faster than it is accepted
_ASK_S = 2.0


async def check_machine(settings: Settings, role: Role | None) -> list[Outcome]:
    outcomes: list[Outcome] = []
    if role in (None, Role.GATEWAY):
        outcomes.append(_descriptors())
        outcomes += _accept_queue()
        outcomes.append(await _port("port", settings.host, settings.port, "TIDINGS_PORT"))
    if settings.health_port:
        host = settings.health_host or settings.host
        outcomes.append(await _port("health port", host, settings.health_port, "TIDINGS_HEALTH_PORT"))
    return outcomes


def _descriptors() -> Outcome:
    name = "file descriptors"
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # every process raises its soft limit to this
    if hard == resource.RLIM_INFINITY:
        return good(name, "no limit")
    said = f"{hard}: room for some {max(0, hard - _OWN_DESCRIPTORS)} connections to one gateway"
    if hard >= _FEW_DESCRIPTORS:
        return good(name, said)
    return warning(name, said, "raise the hard limit: `ulimit -Hn`, or LimitNOFILE= of the systemd unit")


def _accept_queue() -> list[Outcome]:
    try:
        length = int(_QUEUE.read_text())
    except (OSError, ValueError):  # not Linux
        return []
    if length >= _WANTED_QUEUE:
        return [good("accept queue", str(length))]
    detail = f"{length}: connections beyond that are lost when all clients reconnect at once"
    return [warning("accept queue", detail, f"sysctl -w net.core.somaxconn={_WANTED_QUEUE}")]


async def _port(name: str, host: str, port: int, setting: str) -> Outcome:
    if not port:
        return good(name, "any free one")
    fault = port_fault(host, port)
    if fault is None:
        return good(name, f"{host}:{port} is free")
    if fault.errno == errno.EADDRINUSE:
        if await _answers_like_us(host, port):
            return good(name, f"{host}:{port} answers: a process of Tidings runs there")
        advice = f"stop it, or choose another {setting}"
        return bad(name, f"{host}:{port} is in use by another program", advice)
    if fault.errno == errno.EADDRNOTAVAIL:
        return bad(
            name, f"{host} is not an address of this machine", "set TIDINGS_HOST to one, or to 0.0.0.0"
        )
    advice = (
        f"choose another {setting}"
        if fault.errno == errno.EACCES
        else "remove the cause that the message names"
    )
    return bad(name, f"cannot listen on {host}:{port}: {fault.strerror or fault}", advice)


async def _answers_like_us(host: str, port: int) -> bool:
    """Return whether `/readyz` on the port has our format."""
    for scheme in ("http", "https"):
        try:
            # Its certificate is not for this name, and nothing secret is sent.
            async with httpx.AsyncClient(verify=False, timeout=_ASK_S, trust_env=False) as client:  # noqa: S501
                answer = (await client.get(f"{local_url(host, port, scheme)}/readyz")).json()
        except (httpx.HTTPError, ValueError, asyncio.IncompleteReadError):
            continue
        return isinstance(answer, dict) and "checks" in answer
    return False
