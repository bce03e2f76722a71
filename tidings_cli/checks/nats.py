"""NATS: each server, the login and its permissions, the processes on the bus."""

import asyncio
from time import perf_counter
from typing import Any

import msgspec

from services.bus.client import Bus
from services.bus.errors import BusError, Misconfigured
from services.permissions import Role
from services.permissions.nats import prove_nats
from services.servers import parse_nats_url, spell_version
from services.settings import Settings
from tidings_cli.checks.jetstream import Cluster, check_jetstream
from tidings_cli.checks.outcome import REACH_S, Outcome, bad, good, reason_of, warning
from tidings_cli.local.external import UnusableServer, check_nats_info, nats_info

_ENVELOPE_BYTES = 1024  # a message's overhead on the bus
_GATHER_S = 0.5
_START_NATS = "start it, or correct TIDINGS_NATS_URL; a firewall must let port 4222 through"


class _Pong(msgspec.Struct, frozen=True):
    """Answer of a micro service to `$SRV.PING`."""

    name: str = ""
    version: str = ""


async def check_nats(settings: Settings, role: Role | None) -> list[Outcome]:
    """Check NATS. Checks that depend on a failed one are left out."""
    outcomes, cluster = await _servers(settings)
    if any(not outcome.ok for outcome in outcomes):
        return outcomes
    impatient = settings.model_copy(update={"bus_connect_s": REACH_S})
    try:
        # With the role's own inboxes: a user of one role may subscribe to no others.
        bus = await Bus.connect(impatient, "check", role=role)
    except Misconfigured as fault:
        advice = "correct the login in TIDINGS_NATS_URL, or what the server permits it"
        if role is None and "permissions violation" in str(fault):
            advice = "this is the user of one kind of process: name it, as in `tidings check gateway`"
        return [*outcomes, bad("NATS login", str(fault), advice)]
    except BusError as fault:
        return [*outcomes, bad("NATS login", str(fault), "look at the server's own log")]
    try:
        outcomes += await _logged_in(bus, settings, role)
        if role in (None, Role.GATEWAY):
            outcomes += await check_jetstream(bus, settings, role, cluster)
        if role is None:
            outcomes.append(await _running(bus))
    finally:
        await bus.close()
    return outcomes


async def _servers(settings: Settings) -> tuple[list[Outcome], Cluster]:
    """Probe every server of the list; return what is known of their cluster.

    Servers with `no_advertise` do not name the others: there may be more than those of the list.
    """
    outcomes: list[Outcome] = []
    infos: dict[str, dict[str, Any]] = {}
    try:
        nodes = parse_nats_url(settings.nats_url).nodes
    except ValueError as fault:
        advice = "its format is a list of nats://user:password@host:port"
        return [bad("NATS", f"TIDINGS_NATS_URL {fault}", advice)], Cluster()
    for host, port in nodes:
        since = perf_counter()
        address = f"{host}:{port}"
        try:
            async with asyncio.timeout(REACH_S):
                info = await nats_info(host, port)
            found = check_nats_info(info, address)
        except TimeoutError:
            outcomes.append(bad("NATS", f"{address} does not answer within {REACH_S:g} s", _START_NATS))
        except OSError as fault:
            outcomes.append(bad("NATS", f"{address} cannot be reached: {reason_of(fault)}", _START_NATS))
        except UnusableServer as fault:
            outcomes.append(
                bad("NATS", str(fault), "use a NATS server that is recent enough, with JetStream enabled")
            )
        else:
            infos[str(info.get("server_id", address))] = info
            outcomes.append(good("NATS", f"{spell_version(found.version)} at {address}", since))
    if any(outcome.ok for outcome in outcomes):  # one server is enough now, not after its failure
        outcomes = [
            one if one.ok else warning(one.name, one.detail, "the others serve meanwhile; bring it back")
            for one in outcomes
        ]
    advertised = max((len(info.get("connect_urls") or ()) for info in infos.values()), default=0)
    clustered = any(info.get("cluster") for info in infos.values())
    # Unreachable servers of the list count: they are named as such, and belong to the cluster.
    size = max(len(infos) + sum(not one.ok for one in outcomes), advertised, 1) if clustered else 1
    return outcomes, Cluster(size, clustered, whole=advertised > 0 or not clustered)


async def _logged_in(bus: Bus, settings: Settings, role: Role | None) -> list[Outcome]:
    since = perf_counter()
    try:
        await bus.flush(REACH_S)
    except BusError as fault:
        return [bad("NATS login", str(fault), "look at the server's own log")]
    outcomes = [good("NATS login", "accepted", since)]
    if role is None:
        try:
            for one in Role:
                await prove_nats(bus.refused, one, settings)
        except Misconfigured as fault:
            advice = "give the processes the users that `tidings permissions nats` prints"
            outcomes.append(bad("NATS permissions", str(fault), advice))
        else:
            outcomes.append(good("NATS permissions", "this user may do what every process needs"))
    else:
        outcomes.append(good("NATS permissions", f"this user may do what {role} needs"))
    needed = settings.max_message_bytes + _ENVELOPE_BYTES
    if role in (None, Role.GATEWAY) and bus.max_payload < needed:
        detail = f"the server accepts {bus.max_payload} bytes, clients may send {settings.max_message_bytes}"
        advice = "raise max_payload in the server's configuration, or lower TIDINGS_MAX_MESSAGE_BYTES"
        outcomes.append(bad("message size", detail, advice))
    return outcomes


async def _running(bus: Bus) -> Outcome:
    """Report the services that answer now; none is no fault."""
    try:
        answers = await bus.request_many("$SRV.PING", b"", timeout_s=_GATHER_S)
    except BusError:
        return good("processes", "none answers yet")
    pongs = [msgspec.json.decode(answer.data, type=_Pong) for answer in answers]
    ours = [pong for pong in pongs if pong.name.startswith("tidings-")]
    counts = {name: sum(pong.name == name for pong in ours) for name in sorted({pong.name for pong in ours})}
    said = ", ".join(f"{count} {name.removeprefix('tidings-')}" for name, count in counts.items())
    versions = sorted({pong.version for pong in ours})
    if len(versions) > 1:
        detail = f"{said}; of versions {', '.join(versions)}"
        return warning("processes", detail, "finish the upgrade: versions may differ while it lasts")
    return good("processes", f"{said}; version {versions[0]}" if ours else "none answers yet")
