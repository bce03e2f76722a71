"""JetStream: the account, the store, our streams and their copies."""

import asyncio
import time
from dataclasses import dataclass

import msgspec

from services.bus.client import Bus
from services.bus.errors import BusError, NoAnswer
from services.bus.jsapi import STREAM_NOT_FOUND, JetStreamError, StreamInfo
from services.bus.specs import StreamSpec, changes, disk_specs
from services.permissions import Role
from services.settings import Settings
from tidings_cli.checks.outcome import REACH_S, Outcome, bad, clock, good, warning

_NEARLY_FULL = 0.9
_CHECK_BYTES = 65_536
_RETRY_S = 0.1

_MAJORITY = (
    "bring a majority of the NATS servers back; after a failure they need some seconds to elect a leader"
)


class _Peer(msgspec.Struct, frozen=True):
    name: str = ""
    current: bool = False
    offline: bool = False
    lag: int = 0


class _ReplicaGroup(msgspec.Struct, frozen=True):
    leader: str = ""
    replicas: list[_Peer] = []


class _Stream(StreamInfo):
    """Answer to STREAM.INFO, with the state of its copies."""

    cluster: _ReplicaGroup | None = None

    @property
    def copies(self) -> int:
        return int(self.config.get("num_replicas", 1))


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is known of the cluster. `whole`: it has no other servers, by their own report."""

    size: int = 1
    clustered: bool = False
    whole: bool = True


class _Limits(msgspec.Struct, frozen=True):
    max_storage: int = -1


class _Account(msgspec.Struct):
    """Answer to `$JS.API.INFO`: this account. `storage` is in bytes."""

    streams: int = 0
    storage: int = 0
    limits: _Limits = _Limits()
    error: JetStreamError | None = None


async def check_jetstream(bus: Bus, settings: Settings, role: Role | None, cluster: Cluster) -> list[Outcome]:
    """Check JetStream as far as the role's user may."""
    outcomes: list[Outcome] = []
    if role is None:  # the gateway's own user may not request this
        outcomes.append(await _account(bus))
        if outcomes[0].ok:
            outcomes.append(await _store_takes(bus, settings))
    specs = {spec.name: spec for spec in disk_specs(settings)}
    found, streams = await _streams(bus, list(specs))
    outcomes += found
    outcomes += [one for name, stream in streams.items() for one in _in_force(specs[name], stream)]
    most_copies = max((stream.copies for stream in streams.values()), default=0)
    return outcomes + _replicas(settings.replicas, cluster, most_copies)


def _replicas(wanted: int, cluster: Cluster, most_copies: int) -> list[Outcome]:
    """Check TIDINGS_REPLICAS against the servers. `most_copies` is the largest number of copies of a stream."""
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
    """Store a message in a temporary stream: nothing else shows that the store is full."""
    name, since = "JetStream store", time.perf_counter()
    stream, subject = f"{settings.prefix}-check", f"{settings.prefix}.check"
    config = {"name": stream, "subjects": [subject], "storage": "file", "max_msgs": 1}
    try:
        error = (await _request(bus, f"$JS.API.STREAM.CREATE.{stream}", msgspec.json.encode(config))).error
        if error is None:
            error = await _stored(bus, subject)
            await _request(bus, f"$JS.API.STREAM.DELETE.{stream}", b"")
    except (BusError, msgspec.DecodeError) as fault:
        return bad(name, f"a message cannot be stored: {fault}", _MAJORITY)
    if error is None:
        return good(name, "takes messages", since)
    advice = "the store is full or its disk is: give it more (max_file_store), or keep less per namespace"
    return bad(name, f"a message is refused: {error.description} ({error.err_code})", advice)


async def _stored(bus: Bus, subject: str) -> JetStreamError | None:
    deadline = time.monotonic() + REACH_S
    while True:
        try:
            return (await _request(bus, subject, bytes(_CHECK_BYTES))).error
        except NoAnswer:  # the cluster does not know yet of the new stream
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_RETRY_S)


async def _request(bus: Bus, subject: str, payload: bytes) -> _Stream:
    return msgspec.json.decode((await bus.request(subject, payload, timeout_s=REACH_S)).data, type=_Stream)


def _in_force(spec: StreamSpec, stream: _Stream) -> list[Outcome]:
    """Compare a stream with the settings, and its size with its limit."""
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
        detail = f"{stream.state.bytes} of {most} bytes: the oldest messages are removed early"
        if spec.discard == "new":
            detail = f"{stream.state.bytes} of {most} bytes: revocations are refused when it is full"
        outcomes.append(warning(name, detail, "give it more room (`max_bytes`), or keep less per namespace"))
    return outcomes


def _advice(error: JetStreamError, lasting: str) -> str:
    """Return the advice on an error. Codes from 500 on are temporary; with 503 the servers have no leader."""
    return lasting if error.code < 500 else _MAJORITY


async def _account(bus: Bus) -> Outcome:
    name, since = "JetStream", time.perf_counter()
    try:
        answer = await bus.request("$JS.API.INFO", b"", timeout_s=REACH_S)
        account = msgspec.json.decode(answer.data, type=_Account)
    except (BusError, msgspec.DecodeError) as fault:
        return bad(name, str(fault), _MAJORITY)
    if account.error is not None:
        advice = _advice(account.error, "enable JetStream for the account of this user")
        return bad(name, account.error.description or "refused", advice)
    said = f"{account.streams} streams, {account.storage} bytes stored"
    most = account.limits.max_storage
    if most > 0 and account.storage > _NEARLY_FULL * most:
        advice = "raise the account's storage, or keep less per namespace: a full stream refuses messages"
        return warning(name, f"{said} of {most}", advice, since)
    return good(name, said, since)


async def _streams(bus: Bus, names: list[str]) -> tuple[list[Outcome], dict[str, _Stream]]:
    """Check that each stream of the gateways exists with all its copies. Return the existing ones."""
    there: dict[str, _Stream] = {}
    absent: list[str] = []
    outcomes: list[Outcome] = []
    skew: Outcome | None = None
    for stream in names:
        try:
            info = await _request(bus, f"$JS.API.STREAM.INFO.{stream}", b"")
        except (BusError, msgspec.DecodeError) as fault:
            outcomes.append(bad(f"stream {stream}", f"does not answer: {fault}", _MAJORITY))
            continue
        if info.error is not None and info.error.err_code == STREAM_NOT_FOUND:
            absent.append(stream)
            continue
        if info.error is not None:
            advice = _advice(info.error, "look at the server's own log")
            outcomes.append(bad(f"stream {stream}", info.error.description, advice))
            continue
        there[stream] = info
        if skew is None and info.ts.year > 1:  # older servers do not send it
            skew = clock("clock of NATS", info.ts.timestamp(), time.time())
        if info.cluster is not None:
            outcomes += _copies(stream, info.cluster)
    if there:
        messages = sum(info.state.messages for info in there.values())
        size = sum(info.state.bytes for info in there.values())
        outcomes.append(good("streams", f"{len(there)} with {messages} messages, {size} bytes"))
    if absent and not there:
        outcomes.append(good("streams", "none yet: the first gateway makes them"))
    elif absent:
        outcomes.append(good("streams", f"not there yet: {', '.join(absent)}; gateways make them"))
    return (outcomes if skew is None else [*outcomes, skew]), there


def _copies(stream: str, group: _ReplicaGroup) -> list[Outcome]:
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
