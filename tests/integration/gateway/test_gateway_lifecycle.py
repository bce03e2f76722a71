"""Clients that do not read, clients that go silent, gateways that stop."""

import asyncio
import contextlib
import socket
import time

import httpx
import pytest

from tests.support.clients import Client, client, event_source
from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.deployment import Deployment, resident_bytes
from tests.support.faults import eventually_ended
from tests.support.rawsocket import CLOSE, FIN, PING, client_frame, raw_socket

Gateways = tuple[ServiceProcess, ServiceProcess]

_MIB = 1024 * 1024


def small_windows() -> socket.socket:
    """Return a socket whose receive buffer is small, so that not reading is noticed soon."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    small.setblocking(False)
    return small


async def connected(gateway: ServiceProcess) -> socket.socket:
    small = small_windows()
    await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", gateway.port))
    return small


async def flood(gateway: ServiceProcess, room: str, messages: int) -> None:
    """Publish large messages as a server does: no connection's rate limits it."""
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:
        for _ in range(messages):
            body = {"room": room, "content": "x" * 60_000}
            (await http.post("/api/publish", json=body)).raise_for_status()


async def test_a_client_that_does_not_read_is_sent_away_alone(gateways: Gateways, room: str) -> None:
    fast, slow_at = gateways
    async with (
        client(fast) as ann,
        client(slow_at) as reader,
        client(slow_at, sock=await connected(slow_at), max_queue=1) as slow,
    ):
        for one in (ann, reader, slow):
            await one.join(room)
        slow.socket.transport.pause_reading()
        before, slow_before = resident_bytes(slow_at), await _slow_clients(slow_at)
        async with asyncio.timeout(2 * PATIENCE_S):
            while await _slow_clients(slow_at) == slow_before:
                await flood(fast, room, 20)
                ack = await ann.ask("room_message", room=room, content="last")
                await reader.expect("room_message", seq=ack["seq"])
                reader.inbox.clear()
        assert resident_bytes(slow_at) - before < 20 * _MIB
        slow.socket.transport.resume_reading()
        close = await slow.closed()
        assert close is None or close.code == 4000  # it may be cut off before it gets to the close frame
        await eventually(lambda: _left(reader, slow), "the others learn that it left")


async def _slow_clients(gateway: ServiceProcess) -> float:
    _, body = await asyncio.to_thread(gateway.get, "/metrics")
    return float(body.partition(b"\ntidings_gateway_slow_clients_total ")[2].split(maxsplit=1)[0])


async def _left(reader: Client, gone: Client) -> bool:
    await reader.ask("heartbeat")
    return any(m["type"] == "user_left" and m["userId"] == gone.user for m in reader.inbox)


async def test_a_client_that_only_pings_and_never_reads_costs_bounded_memory(gateways: Gateways) -> None:
    gateway = gateways[0]
    before = resident_bytes(gateway)
    async with client(gateway) as other, raw_socket(gateway.port, "/ws") as hostile:
        hostile.writer.transport.pause_reading()  # type: ignore[attr-defined]
        burst = client_frame(FIN | PING, b"x" * 125) * 1000
        with pytest.raises((ConnectionError, TimeoutError)):  # noqa: PT012  # whichever write notices
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    hostile.send(burst)
                    await hostile.writer.drain()
        assert resident_bytes(gateway) - before < 20 * _MIB
        assert (await other.ask("heartbeat"))["type"] == "heartbeat_ack"


async def test_a_stream_that_is_not_read_ends(gateways: Gateways, room: str) -> None:
    gateway = gateways[0]
    request = f"GET /events?rooms={room} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    async with client(gateways[1]) as ann:
        await ann.join(room)
        with contextlib.closing(await connected(gateway)) as stuck:
            await asyncio.get_running_loop().sock_sendall(stuck, request)
            await ann.expect("user_joined")
            async with asyncio.timeout(2 * PATIENCE_S):
                while not await _left_stream(gateway):
                    await flood(gateway, room, 50)
            await ann.expect("user_left")


async def _left_stream(gateway: ServiceProcess) -> bool:
    _, body = await asyncio.to_thread(gateway.get, "/metrics")
    return b"tidings_gateway_sse_streams 0.0" in body


async def test_silence_ends_a_connection_and_a_pong_does_not(deployment: Deployment) -> None:
    gateway = deployment.extra_gateway("impatient", heartbeat_interval_ms=1000, idle_timeout_s=2)
    async with client(gateway) as alive, raw_socket(gateway.port, "/ws") as silent:
        while (frame := await silent.frame()).opcode != CLOSE:  # it reads the pings and answers none
            pass
        assert frame.close_code == 4001
        assert (await alive.ask("heartbeat"))["type"] == "heartbeat_ack"
        await alive.nothing_of("disconnect")
    gateway.terminate()
    assert await eventually_ended(gateway) == 0


async def test_a_stopping_gateway_sends_disconnect(deployment: Deployment, room: str) -> None:
    gateway = deployment.extra_gateway("leaving")
    async with (
        client(gateway) as ann,
        client(gateway, subprotocol="tidings.v1.msgpack") as bob,
        event_source(gateway, rooms=room) as stream,
        raw_socket(gateway.port) as echo,
        raw_socket(gateway.port, "/ws") as mute,  # reads nothing, closes nothing
    ):
        await stream.expect("joined_room")
        await ann.join(room)
        mute.writer.transport.pause_reading()  # type: ignore[attr-defined]
        gateway.terminate()
        for one in (ann, bob):
            said = await one.expect("disconnect")
            assert (said["code"], said["reconnect"]) == (1012, True)
            assert said["retryAfterMs"] >= 0
            close = await one.closed()
            assert close is not None
            assert close.code == 1012
        assert (await stream.ended())[-1] == "disconnect"
        await echo.closed(1012)
        assert await eventually_ended(gateway) == 0
    assert "Traceback" not in gateway.log_text()


@pytest.mark.timing
async def test_an_idle_gateway_stops_soon(deployment: Deployment) -> None:
    gateway = deployment.extra_gateway("idle")
    started = time.monotonic()
    gateway.terminate()
    assert await eventually_ended(gateway) == 0
    assert time.monotonic() - started < 5
