"""All cases: their peers, the setup of servers, the keys of figures."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.cases import fanout, idle, open_loop, pairs, publish, stalled
from bench.launch import Peer, Running, Setup
from bench.load.contents import documents
from bench.load.dialects import MessagePackRooms, Rooms

OURS = ("tidings", "tidings-durable")
BUN = ("bun", "bun-redis")
SOCKETIO = ("socketio", "socketio-python")
ROOMS = (*OURS, *BUN, *SOCKETIO, "starlette")  # those that have rooms at all
ALL = (*ROOMS, "c-loop")
SLOW_TO_CONNECT = (
    "socketio-python",
)  # it accepts 200 connects/s: a fifth of the connections, or the others would wait for minutes

DEPTHS = (1, 8, 32)
ROOMS_OF_TWO = 500
RATE = 50.0


@dataclass(frozen=True)
class Sizes:
    """Numbers of clients, and seconds. The page shows a run with the defaults."""

    seconds: float = 3.0
    members: int = 1000
    connections: int = 10_000
    streams: int = 2000


@dataclass(frozen=True)
class Measured:
    """Figures under a key that does not depend on sizes, and a title with them."""

    key: str
    title: str
    figures: object  # a dataclass of numbers


Run = Callable[[Peer, Running, Setup, Sizes], Iterator[Measured]]


@dataclass(frozen=True)
class Case:
    """One kind of measurement. Each setup starts each peer again."""

    name: str
    about: str
    peers: tuple[str, ...]
    run: Run
    setups: tuple[Setup, ...] = (Setup(),)


def _fanout(peer: Peer, server: Running, _setup: Setup, sizes: Sizes) -> Iterator[Measured]:
    found = fanout.by_depth(peer, server, members=sizes.members, depths=DEPTHS, seconds=sizes.seconds)
    for depth, figures in found:
        yield Measured(f"fanout-{depth}", f"One room of {sizes.members:,}, {depth} outstanding", figures)


def _open(peer: Peer, server: Running, _setup: Setup, sizes: Sizes) -> Iterator[Measured]:
    figures = open_loop.measure(peer, server, members=sizes.members, rate=RATE, seconds=sizes.seconds)
    yield Measured("open", f"One room of {sizes.members:,}, {RATE:.0f} messages/s", figures)


def _pairs(peer: Peer, server: Running, _setup: Setup, sizes: Sizes) -> Iterator[Measured]:
    figures = pairs.measure(peer, server, rooms=ROOMS_OF_TWO, seconds=sizes.seconds)
    yield Measured("pairs", f"{ROOMS_OF_TWO} rooms of 2", figures)


def _publish(peer: Peer, server: Running, _setup: Setup, sizes: Sizes) -> Iterator[Measured]:
    figures = publish.measure(peer, server, publishers=20, outstanding=16, seconds=sizes.seconds)
    yield Measured("publish", "Acknowledged publishes", figures)


def _idle(peer: Peer, server: Running, _setup: Setup, sizes: Sizes) -> Iterator[Measured]:
    connections = sizes.connections
    if peer.name in SLOW_TO_CONNECT:
        connections = max(100, connections // 5)
    durable = peer.name == "tidings-durable"
    idling, back = idle.measure(peer, server, connections=connections, durable=durable)
    many = f"{sizes.connections:,}"
    yield Measured("idle", f"{many} connections in rooms of 10", idling)
    yield Measured("reconnect", f"All {many} break and come back", back)


def _sse(peer: Peer, server: Running, _setup: Setup, sizes: Sizes) -> Iterator[Measured]:
    figures = fanout.to_streams(peer, server, streams=sizes.streams, depth=8, seconds=sizes.seconds)
    yield Measured("sse", f"{sizes.streams:,} SSE streams of one room, 8 outstanding", figures)


def _msgpack(peer: Peer, server: Running, _setup: Setup, sizes: Sizes) -> Iterator[Measured]:
    for name, dialect in (("JSON", Rooms()), ("MessagePack", MessagePackRooms())):
        found = fanout.by_depth(
            peer, server, members=sizes.members, depths=(8,), seconds=sizes.seconds, dialect=dialect
        )
        for _, figures in found:
            title = f"{name}: one room of {sizes.members:,}, 8 outstanding"
            yield Measured(f"codec-{name.lower()}", title, figures)


def _compressed(peer: Peer, server: Running, _setup: Setup, sizes: Sizes) -> Iterator[Measured]:
    found = fanout.by_depth(
        peer,
        server,
        members=sizes.members,
        depths=(1,),
        seconds=sizes.seconds,
        dialect=peer.dialect.compressed(),
        texts=documents(64),
    )
    for _, figures in found:
        title = f"Compressed messages of 4 KB to {sizes.members:,}, 1 outstanding"
        yield Measured("compressed", title, figures)


def _stalled(peer: Peer, server: Running, _setup: Setup, sizes: Sizes) -> Iterator[Measured]:
    # Long enough to fill the kernel's buffers, short enough to receive the server's close frame.
    seconds = 4.0 if sizes.seconds >= 1 else sizes.seconds
    figures = stalled.measure(peer, server, members=sizes.members, seconds=seconds)
    yield Measured("stalled", f"One among {sizes.members:,} reads no more", figures)


def _gateways(peer: Peer, server: Running, setup: Setup, sizes: Sizes) -> Iterator[Measured]:
    members = 4 * sizes.members  # however many gateways share them: with more sockets each costs more
    figures = fanout.over_gateways(peer, server, members=members, depth=8, seconds=sizes.seconds)
    plural = "s" if setup.gateways > 1 else ""
    title = f"{setup.gateways} gateway{plural}, one room of {members:,}, 8 outstanding"
    yield Measured(f"gateways-{setup.gateways}", title, figures)


CASES = {
    case.name: case
    for case in (
        Case("fanout", "one large room, 1, 8 and 32 messages outstanding", ALL, _fanout),
        Case("open", "one large room at 50 messages a second: latency", ALL, _open),
        Case("pairs", "500 rooms of 2", ROOMS, _pairs),
        Case("publish", "acknowledged publishes", ROOMS, _publish),
        Case("idle", "10,000 connections: memory, connecting, reconnecting", ALL, _idle),
        Case("sse", "2,000 SSE streams", (*OURS, *BUN, "starlette"), _sse),
        Case("codecs", "MessagePack beside JSON", OURS, _msgpack),
        Case("compressed", "compressed messages of 4 KB", ROOMS, _compressed, (Setup(compression=True),)),
        Case("stalled", "one member stops reading", (*OURS, "bun", "socketio"), _stalled),
        Case(
            "gateways",
            "1, 2 and 4 gateways",
            OURS,
            _gateways,
            (Setup(gateways=1), Setup(gateways=2), Setup(gateways=4)),
        ),
    )
}
