"""NATS: each server, the login and its permissions, JetStream and our streams."""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from services.bus.client import Bus
from services.bus.errors import BusError, Misconfigured, NoAnswer
from services.bus.jsapi import STREAM_NOT_FOUND, JetStreamError
from services.bus.specs import StreamSpec, changes, disk_specs
from services.permissions.check import prove_nats
from services.permissions.roles import Role
from services.servers import parse_nats_url, spell_version
from services.settings import Settings
from tidings_cli.checks.outcome import Outcome, Stopwatch, bad, clock, good, reason_of, warning
from tidings_cli.local.external import UnusableServer, check_nats_info, nats_info

REACH_S = 3.0
_ENVELOPE_BYTES = 1024  # what a message carries on the bus besides its content
_GATHER_S = 0.5
_NEARLY_FULL = 0.9
_CHECK_BYTES = 65_536
_AGAIN_S = 0.1

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
    error: JetStreamError | None = None

    @property
    def copies(self) -> int:
        """On how many servers it is meant to be."""
        return int(self.config.get("num_replicas", 1))


class _Limits(msgspec.Struct, frozen=True):
    max_storage: int = -1


@dataclass(frozen=True, slots=True)
class _Cluster:
    """What is known of how many servers there are. `whole`: no more than these, as they say themselves."""

    size: int = 1
    clustered: bool = False
    whole: bool = True


class _Account(msgspec.Struct):
    """What JetStream says of this account (`$JS.API.INFO`). `storage` is in bytes."""

    streams: int = 0
    storage: int = 0
    limits: _Limits = _Limits()
    error: JetStreamError | None = None


class _Pong(msgspec.Struct, frozen=True):
    """Answer of a micro service to `$SRV.PING`."""

    name: str = ""
    version: str = ""


async def check_nats(settings: Settings, role: Role | None) -> list[Outcome]:
    """Try NATS as far as it can be tried: what stands on something that failed is left out."""
    outcomes, cluster = await _servers(settings)
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
            outcomes += await _jetstream(bus, settings, role, cluster)
        if role is None:
            outcomes.append(await _running(bus))
    finally:
        await bus.close()
    return outcomes


async def _servers(settings: Settings) -> tuple[list[Outcome], _Cluster]:
    """Reach every server of the list; return what is known of their cluster.

    Servers with `no_advertise` name nobody else: then those of the list are known, and there may be more.
    """
    outcomes: list[Outcome] = []
    infos: dict[str, dict[str, Any]] = {}
    try:
        nodes = parse_nats_url(settings.nats_url).nodes
    except ValueError as fault:
        advice = "it is a list of nats://user:password@host:port"
        return [bad("NATS", f"TIDINGS_NATS_URL {fault}", advice)], _Cluster()
    for host, port in nodes:
        watch = Stopwatch()
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
            outcomes.append(bad("NATS", str(fault), "install a server that will do, with JetStream on"))
        else:
            infos[str(info.get("server_id", address))] = info
            outcomes.append(good("NATS", f"{spell_version(found.version)} at {address}", watch.ms))
    if any(outcome.ok for outcome in outcomes):  # one is enough to work, not enough to go on working
        outcomes = [
            one if one.ok else warning(one.name, one.detail, "the others serve meanwhile; bring it back")
            for one in outcomes
        ]
    advertised = max((len(info.get("connect_urls") or ()) for info in infos.values()), default=0)
    clustered = any(info.get("cluster") for info in infos.values())
    # Those of the list that are away count: they are named as such, and belong to it.
    size = max(len(infos) + sum(not one.ok for one in outcomes), advertised, 1) if clustered else 1
    return outcomes, _Cluster(size, clustered, whole=advertised > 0 or not clustered)


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
        detail = f"the server takes {bus.max_payload} bytes, clients may send {settings.max_message_bytes}"
        advice = "raise max_payload in the server's configuration, or lower TIDINGS_MAX_MESSAGE_BYTES"
        outcomes.append(bad("message size", detail, advice))
    return outcomes


async def _jetstream(bus: Bus, settings: Settings, role: Role | None, cluster: _Cluster) -> list[Outcome]:
    outcomes: list[Outcome] = []
    if role is None:  # the gateway's own user may not ask for this
        outcomes.append(await _account(bus))
        if outcomes[0].ok:
            outcomes.append(await _store_takes(bus, settings))
    specs = {spec.name: spec for spec in disk_specs(settings)}
    found, streams = await _streams(bus, list(specs))
    outcomes += found
    outcomes += [one for name, stream in streams.items() for one in _in_force(specs[name], stream)]
    most_copies = max((stream.copies for stream in streams.values()), default=0)
    return outcomes + _replicas(settings.replicas, cluster, most_copies)


def _replicas(wanted: int, cluster: _Cluster, most_copies: int) -> list[Outcome]:
    """Judge TIDINGS_REPLICAS by the servers there are. `most_copies` is what a stream has already."""
    name = "replicas"
    size = max(cluster.size, most_copies)
    if wanted > size and not cluster.clustered:
        detail = f"TIDINGS_REPLICAS={wanted}, and NATS is one server that belongs to no cluster"
        return [bad(name, detail, f"run {wanted} servers as a cluster: gateways do not start like this")]
    if wanted > size and cluster.whole:
        detail = f"TIDINGS_REPLICAS={wanted}, and the cluster has {size} server(s)"
        return [bad(name, detail, "add servers to the cluster: gateways do not start like this")]
    if wanted > size:
        detail = f"TIDINGS_REPLICAS={wanted}; {size} server(s) of the cluster are known, and they do not name the others"
        return [warning(name, detail, "name every server of the cluster in TIDINGS_NATS_URL")]
    if size > 1 and wanted == 1:
        detail = f"NATS is {size} servers, and TIDINGS_REPLICAS=1 puts each new stream on one of them only"
        return [warning(name, detail, "set TIDINGS_REPLICAS=3")]
    return []


async def _store_takes(bus: Bus, settings: Settings) -> Outcome:
    """Store a message in a stream that is made for it and deleted again: nothing else says that the store is full."""
    name, watch = "JetStream store", Stopwatch()
    stream, subject = f"{settings.prefix}-check", f"{settings.prefix}.check"
    config = {"name": stream, "subjects": [subject], "storage": "file", "max_msgs": 1}
    try:
        made = await _asked(bus, f"$JS.API.STREAM.CREATE.{stream}", msgspec.json.encode(config))
        error = made.error
        if error is None:
            error = await _stored(bus, subject)
            await _asked(bus, f"$JS.API.STREAM.DELETE.{stream}", b"")
    except (BusError, msgspec.DecodeError) as fault:
        return bad(name, f"a message cannot be stored: {fault}", _MAJORITY)
    if error is None:
        return good(name, "takes messages", watch.ms)
    advice = "the store is full or its disk is: give it more (max_file_store), or keep less per namespace"
    return bad(name, f"a message is refused: {error.description} ({error.err_code})", advice)


async def _stored(bus: Bus, subject: str) -> JetStreamError | None:
    deadline = time.monotonic() + REACH_S
    while True:
        try:
            return (await _asked(bus, subject, bytes(_CHECK_BYTES))).error
        except NoAnswer:  # the cluster has not passed on yet that there is a stream
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_AGAIN_S)


async def _asked(bus: Bus, subject: str, payload: bytes) -> _Stream:
    return msgspec.json.decode((await bus.request(subject, payload, timeout_s=REACH_S)).data, type=_Stream)


def _in_force(spec: StreamSpec, stream: _Stream) -> list[Outcome]:
    """Compare a stream with the settings, and what it holds with the room it has."""
    name, outcomes = f"stream {spec.name}", []
    needed = changes(stream.config, spec, stream.state.bytes)
    differing = {
        **{option: (stream.config.get(option), wanted) for option, wanted in needed.update.items()},
        **needed.lowered,
    }
    if differing:
        said = ", ".join(
            f"{option} {found} (settings: {wanted})" for option, (found, wanted) in differing.items()
        )
        advice = "give every process the same settings; `tidings streams` says what would change"
        outcomes.append(warning(name, f"has {said}", advice))
    most = int(stream.config.get("max_bytes", -1))
    if most > 0 and stream.state.bytes > _NEARLY_FULL * most:
        goes = (
            "revocations are refused when it is full"
            if spec.discard == "new"
            else "what is oldest goes early"
        )
        detail = f"{stream.state.bytes} of {most} bytes: {goes}"
        outcomes.append(warning(name, detail, "give it more room (`max_bytes`), or keep less per namespace"))
    return outcomes


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


async def _streams(bus: Bus, names: list[str]) -> tuple[list[Outcome], dict[str, _Stream]]:
    """Look at each stream that gateways use: is it there, and are all its copies? Return those there are."""
    there: dict[str, _Stream] = {}
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
        there[stream] = info
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
    return (outcomes if skew is None else [*outcomes, skew]), there


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
