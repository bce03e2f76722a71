"""One room of many members, some messages outstanding: in text, in MessagePack, compressed, as SSE, over gateways."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from bench.launch import Peer, Running
from bench.load.clients import Clients
from bench.load.closed_loop import FanoutFigures, Publisher, closed_loop
from bench.load.contents import content
from bench.load.dialects import Dialect, Rooms, Streams
from bench.load.meter import Meter

_WARM_S = 0.3  # what is compiled or loaded once


@dataclass(frozen=True)
class GatewayFigures(FanoutFigures):
    """`bus_messages`: deliveries of NATS to all gateways together, per published message."""

    bus_messages: float


@dataclass(frozen=True)
class StreamFigures(FanoutFigures):
    """SSE streams are also counted as connections."""

    connects_per_s: float
    cpu_us_per_connect: float
    kib_per_connection: float


def by_depth(
    peer: Peer,
    server: Running,
    *,
    members: int,
    depths: Sequence[int],
    seconds: float,
    dialect: Dialect | None = None,
    texts: Sequence[str] = (),
) -> Iterator[tuple[int, FanoutFigures]]:
    """Measure one room at several depths, on the same connections."""
    dialect = dialect or peer.dialect
    with Clients(dialect, *server.ports) as clients:
        fds = clients.connect(members + 1, lambda _: peer.room)
        clients.drain()
        publisher = _publisher(clients, fds[-1], peer, dialect, texts)
        closed_loop(server, clients, publisher, fds[:-1], depth=8, seconds=min(_WARM_S, seconds))
        for depth in depths:
            yield (
                depth,
                closed_loop(server, clients, publisher, fds[:-1], depth=depth, seconds=seconds),
            )


def over_gateways(peer: Peer, server: Running, *, members: int, depth: int, seconds: float) -> GatewayFigures:
    """Measure one room whose members are spread over all gateways, and its load on the bus."""
    with Clients(peer.dialect, *server.ports) as clients:
        fds = clients.connect(members + 1, lambda _: peer.room)
        clients.drain()
        publisher = _publisher(clients, fds[-1], peer, peer.dialect, ())
        closed_loop(server, clients, publisher, fds[:-1], depth=depth, seconds=min(_WARM_S, seconds))
        before = server.bus_messages()
        figures = closed_loop(server, clients, publisher, fds[:-1], depth=depth, seconds=seconds)
        carried = server.bus_messages() - before
    common = {field.name: getattr(figures, field.name) for field in fields(figures)}
    return GatewayFigures(**common, bus_messages=carried / max(1, publisher.sent))


def to_streams(peer: Peer, server: Running, *, streams: int, depth: int, seconds: float) -> StreamFigures:
    """Measure a room whose members use Server-Sent Events; one WebSocket client publishes."""
    with Clients(Streams(), server.port) as clients:
        warm = clients.connect(min(50, streams), lambda _: peer.room)
        for fd in warm:
            clients.forget(fd).close()
        clients.drain()
        before, meter = server.memory(), Meter(server)
        fds = clients.connect(streams, lambda _: peer.room)
        elapsed = meter.elapsed_s
        clients.drain()
        cpu_us = meter.cpu_us(streams)
        grown = server.memory() - before
        speaker = clients.connect(1, lambda _: peer.room, dialect=Rooms())[0]
        clients.drain()
        publisher = _publisher(clients, speaker, peer, Rooms(), ())
        figures = closed_loop(server, clients, publisher, fds, depth=depth, seconds=seconds)
    common = {field.name: getattr(figures, field.name) for field in fields(figures)}
    return StreamFigures(
        **common,
        connects_per_s=streams / elapsed,
        cpu_us_per_connect=cpu_us,
        kib_per_connection=grown / streams / 1024,
    )


def _publisher(clients: Clients, fd: int, peer: Peer, dialect: Dialect, texts: Sequence[str]) -> Publisher:
    return Publisher(clients, fd, [dialect.publish(peer.room, text) for text in texts or [content()]])
