"""NATS: each server, the login and its permissions, JetStream and our streams."""

import asyncio
import time
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from services.bus.client import Bus
from services.bus.errors import BusError, Misconfigured
from services.bus.jsapi import STREAM_NOT_FOUND, ApiError
from services.cli.checks.outcome import Outcome, Stopwatch, bad, clock, good, reason_of, warning
from services.local.binaries import spell
from services.local.existing import Unusable, judge_nats, nats_info
from services.permissions.proof import prove_nats
from services.permissions.roles import Role
from services.settings import Settings

REACH_S = 3.0
_NATS_PORT = 4222
_ENVELOPE_BYTES = 1024  # what a message carries on the bus besides its content
_GATHER_S = 0.5
_NEARLY_FULL = 0.9

_UNAVAILABLE = 500  # codes from here on pass, with 503 the servers have no leader

_MAJORITY = "bring a majority of the NATS servers back; after a failure they take some seconds to elect"
_START_NATS = "start it, or correct TIDINGS_NATS_URL; a firewall must let port 4222 through"


class _Peer(msgspec.Struct, frozen=True):
    name: str = ""
    current: bool = False
    offline: bool = False
    lag: int = 0


class _Group(msgspec.Struct, frozen=True):
    leader: str = ""
    replicas: list[_Peer] = []


class _State(msgspec.Struct, frozen=True):
    messages: int = 0
    bytes: int = 0


class _Stream(msgspec.Struct):
    """What STREAM.INFO says, as far as it is looked at."""

    config: dict[str, Any] = {}
    state: _State = _State()
    cluster: _Group | None = None
    ts: str = ""
    error: ApiError | None = None


class _Limits(msgspec.Struct, frozen=True):
    max_storage: int = -1


class _Account(msgspec.Struct):
    """What JetStream says of this account (`$JS.API.INFO`). `storage` is in bytes."""

    streams: int = 0
    storage: int = 0
    limits: _Limits = _Limits()
    error: ApiError | None = None


class _Pong(msgspec.Struct, frozen=True):
    """Answer of a micro service to `$SRV.PING`."""

    name: str = ""
    version: str = ""


async def check_nats(settings: Settings, role: Role | None) -> list[Outcome]:
    """Try NATS as far as it can be tried: what stands on something that failed is left out."""
    outcomes, cluster_size = await _servers(settings)
    if any(not outcome.ok for outcome in outcomes):
        return outcomes
    impatient = settings.model_copy(update={"bus_connect_s": REACH_S})
    try:
        # With the role's own inboxes: a user of one role may hear no others.
        bus = await Bus.connect(impatient, "check", role=role)
    except Misconfigured as fault:
        if role is None and "permissions violation" in str(fault):
            advice = "this is the user of one kind of process: say which, like `tidings check gateway`"
            return [*outcomes, bad("NATS login", str(fault), advice)]
        advice = "correct the login in TIDINGS_NATS_URL, or what the server permits it"
        return [*outcomes, bad("NATS login", str(fault), advice)]
    except BusError as fault:
        return [*outcomes, bad("NATS login", str(fault), "look at the server's own log")]
    try:
        outcomes += await _logged_in(bus, settings, role)
        if role in (None, Role.GATEWAY):
            outcomes += await _jetstream(bus, settings, role, cluster_size)
        if role is None:
            outcomes.append(await _running(bus))
    finally:
        await bus.close()
    return outcomes


async def _servers(settings: Settings) -> tuple[list[Outcome], int]:
    """Reach every server of the list; return how many their cluster has, as they say."""
    outcomes: list[Outcome] = []
    size = 1
    for url in settings.nats_url.split(","):
        parts = urlsplit(url.strip() if "://" in url else f"nats://{url.strip()}")
        try:
            host, port = parts.hostname or "127.0.0.1", parts.port or _NATS_PORT
        except ValueError:
            advice = "it is a list of nats://user:password@host:port"
            return [bad("NATS", "TIDINGS_NATS_URL cannot be read", advice)], size
        watch = Stopwatch()
        address = f"{host}:{port}"
        try:
            async with asyncio.timeout(REACH_S):
                info = await nats_info(host, port)
            found = judge_nats(info, address)
        except TimeoutError:
            outcomes.append(bad("NATS", f"{address} does not answer within {REACH_S:g} s", _START_NATS))
        except OSError as fault:
            outcomes.append(bad("NATS", f"{address} cannot be reached: {reason_of(fault)}", _START_NATS))
        except Unusable as fault:
            outcomes.append(bad("NATS", str(fault), "install a server that will do, with JetStream on"))
        else:
            size = max(size, len(info.get("connect_urls") or ()))
            outcomes.append(good("NATS", f"{spell(found.version)} at {address}", watch.ms))
    if any(outcome.ok for outcome in outcomes):  # one is enough to work, not enough to go on working
        outcomes = [
            one if one.ok else warning(one.name, one.detail, "the others serve meanwhile; bring it back")
            for one in outcomes
        ]
    return outcomes, size


async def _logged_in(bus: Bus, settings: Settings, role: Role | None) -> list[Outcome]:
    watch = Stopwatch()
    try:
        await bus.flush(REACH_S)
    except BusError as fault:
        return [bad("NATS login", str(fault), "look at the server's own log")]
    outcomes = [good("NATS login", "accepted", watch.ms)]
    if role is None:
        try:
            for one in Role:
                await prove_nats(bus, one, settings)
        except Misconfigured as fault:
            advice = "give the processes the users that `tidings permissions nats` prints"
            outcomes.append(bad("NATS permissions", str(fault), advice))
        else:
            outcomes.append(good("NATS permissions", "this user may do what every process needs"))
    else:
        outcomes.append(good("NATS permissions", f"this user may do what {role} needs"))
    needed = settings.max_message_bytes + _ENVELOPE_BYTES
    if role in (None, Role.GATEWAY) and bus.max_payload < needed:
        detail = f"the server takes {bus.max_payload} bytes, clients may send {settings.max_message_bytes}"
        advice = "raise max_payload in the server's configuration, or lower TIDINGS_MAX_MESSAGE_BYTES"
        outcomes.append(bad("message size", detail, advice))
    return outcomes


async def _jetstream(bus: Bus, settings: Settings, role: Role | None, servers: int) -> list[Outcome]:
    outcomes: list[Outcome] = []
    if settings.replicas > servers:
        detail = f"TIDINGS_REPLICAS={settings.replicas}, and NATS is {servers} server(s)"
        advice = "add servers to the cluster, or lower TIDINGS_REPLICAS: gateways do not start like this"
        outcomes.append(bad("replicas", detail, advice))
    elif servers > 1 and settings.replicas == 1:
        detail = f"NATS is {servers} servers, and each stream is on one of them only"
        outcomes.append(warning("replicas", detail, "set TIDINGS_REPLICAS=3"))
    if role is None:  # the gateway's own user may not ask for this
        outcomes.append(await _account(bus))
    subjects = settings.subjects
    durable = [name for name, options in settings.namespaces.items() if options.durable]
    names = [
        *(subjects.rooms_stream(name) for name in durable),
        subjects.inbox_stream,
        subjects.revocations_stream,
    ]
    return outcomes + await _streams(bus, names)


async def _account(bus: Bus) -> Outcome:
    name, watch = "JetStream", Stopwatch()
    try:
        answer = await bus.request("$JS.API.INFO", b"", timeout_s=REACH_S)
        account = msgspec.json.decode(answer.data, type=_Account)
    except (BusError, msgspec.DecodeError) as fault:
        return bad(name, str(fault), _MAJORITY)
    if account.error is not None:
        lasting = account.error.code < _UNAVAILABLE
        advice = "enable JetStream for the account of this user" if lasting else _MAJORITY
        return bad(name, account.error.description or "refused", advice)
    said = f"{account.streams} streams, {account.storage} bytes stored"
    most = account.limits.max_storage
    if most > 0 and account.storage > _NEARLY_FULL * most:
        advice = "raise the account's storage, or keep less per namespace: a full stream refuses messages"
        return warning(name, f"{said} of {most}", advice, watch.ms)
    return good(name, said, watch.ms)


async def _streams(bus: Bus, names: list[str]) -> list[Outcome]:
    """Look at each stream that gateways use: is it there, and are all its copies?"""
    there: list[str] = []
    absent: list[str] = []
    outcomes: list[Outcome] = []
    messages = size = 0
    skew: Outcome | None = None
    for stream in names:
        try:
            answer = await bus.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout_s=REACH_S)
            info = msgspec.json.decode(answer.data, type=_Stream)
        except (BusError, msgspec.DecodeError) as fault:
            outcomes.append(bad(f"stream {stream}", f"does not answer: {fault}", _MAJORITY))
            continue
        if info.error is not None and info.error.err_code == STREAM_NOT_FOUND:
            absent.append(stream)
            continue
        if info.error is not None:
            lasting = info.error.code < _UNAVAILABLE
            advice = "look at the server's own log" if lasting else _MAJORITY
            outcomes.append(bad(f"stream {stream}", info.error.description, advice))
            continue
        there.append(stream)
        messages, size = messages + info.state.messages, size + info.state.bytes
        skew = skew or _clock(info.ts)
        if info.cluster is not None:
            outcomes += _copies(stream, info.cluster)
    if there:
        outcomes.append(good("streams", f"{len(there)} with {messages} messages, {size} bytes"))
    if absent and not there:
        outcomes.append(good("streams", "none yet: the first gateway makes them"))
    elif absent:
        outcomes.append(good("streams", f"not there yet: {', '.join(absent)}; gateways make them"))
    return outcomes if skew is None else [*outcomes, skew]


def _copies(stream: str, group: _Group) -> list[Outcome]:
    name = f"stream {stream}"
    if not group.leader:
        advice = "bring back a majority of the NATS servers that hold it"
        return [bad(name, "has no leader: nothing can be stored", advice)]
    late = [peer for peer in group.replicas if peer.offline or not peer.current]
    if not late:
        return []
    described = ", ".join(
        f"{peer.name} {f'lags by {peer.lag}' if peer.lag and not peer.offline else 'is away'}"
        for peer in late
    )
    if 2 * len(late) > len(group.replicas) + 1:
        return [bad(name, f"most of its servers are away: {described}", _MAJORITY)]
    advice = "bring the server back; one more loss and nothing can be stored"
    return [warning(name, f"not on all its servers: {described}", advice)]


def _clock(ts: str) -> Outcome | None:
    try:
        theirs = datetime.fromisoformat(ts).timestamp()
    except ValueError:
        return None
    return clock("clock of NATS", theirs, time.time())


async def _running(bus: Bus) -> Outcome:
    """Say which services answer now; that none does is no fault."""
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
