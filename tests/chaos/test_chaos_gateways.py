"""A gateway dies, stops, or freezes."""

import asyncio
import json
import time

from websockets.asyncio.client import connect

from services.wire.codes import CloseCode
from tests.chaos.load import StartLoad
from tests.support.cluster import Cluster
from tests.support.deadline import eventually
from tests.support.faults import eventually_ended, killed, paused, stopped
from tidings_cli.gateways import socket_url
from tidings_cli.verify.history import AcknowledgedRecord

# The deployment's lease and grace: a false `user_offline` comes within their sum.
_FALSE_OFFLINE_S = 8.0


async def test_clients_of_a_killed_gateway_reconnect_elsewhere_and_miss_nothing(
    cluster: Cluster, load: StartLoad
) -> None:
    async with load() as running, killed(cluster.gateways[0]):
        await eventually(lambda: running.lost, "connections lost")
        await running.everybody_in()
        await running.acknowledged(20)
    assert not running.report.gaps
    assert running.report.resumed > 0


async def test_users_of_a_killed_gateway_who_reconnect_in_time_stay_online(
    cluster: Cluster, load: StartLoad
) -> None:
    offline: list[str] = []
    url = socket_url(cluster.gateways[1].url, {"username": "observer", "channels": "presence"})

    async def observe() -> None:
        async with connect(url, proxy=None) as connection:
            async for frame in connection:
                message = json.loads(frame)
                if message["type"] == "user_offline":
                    offline.append(message["userId"])

    observing = asyncio.create_task(observe())
    async with load() as running:
        users = running.users
        async with killed(cluster.gateways[0]):
            await eventually(lambda: running.lost, "connections lost")
            await running.everybody_in()
        over = time.monotonic() + _FALSE_OFFLINE_S
        await eventually(lambda: time.monotonic() > over, "lease and grace over", 2 * _FALSE_OFFLINE_S)
        gone = users.intersection(offline)
    observing.cancel()
    await asyncio.gather(observing, return_exceptions=True)
    assert not gone


async def test_a_stopping_gateway_sends_its_clients_away_and_ends_in_time(
    cluster: Cluster, load: StartLoad
) -> None:
    gateway = cluster.gateways[0]
    async with load() as running:
        # A stream also gets `disconnect` with a time to reconnect, and ends.
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /events HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        await reader.readuntil(b"event: connected")
        started = time.monotonic()
        gateway.terminate()
        rest = await asyncio.wait_for(reader.read(), 12)
        code = await eventually_ended(gateway)
        took_s = time.monotonic() - started
        writer.close()
        await running.everybody_in()
    assert code == 0
    assert took_s < 10
    assert b"event: disconnect" in rest
    assert b"retry: " in rest
    assert rest.endswith(b"0\r\n\r\n"), "the stream was cut, not ended"
    assert {lost.sent_away for lost in running.lost} <= {CloseCode.DRAIN.number, 0}
    assert any(lost.sent_away == CloseCode.DRAIN.number for lost in running.lost)
    assert not running.report.gaps


async def test_readiness_fails_while_a_gateway_still_serves_those_it_sends_away(cluster: Cluster) -> None:
    gateway = cluster.gateways[0]
    connections = [
        await connect(socket_url(gateway.url, {"username": f"guest-{n}"}), proxy=None) for n in range(100)
    ]
    gateway.terminate()
    statuses: list[int] = []

    def refuses() -> bool:
        statuses.append(gateway.get("/readyz")[0])
        return statuses[-1] != 200

    await eventually(refuses, "readiness to fail")
    assert any(connection.close_code is None for connection in connections)
    assert await eventually_ended(gateway) == 0
    await asyncio.gather(*(connection.wait_closed() for connection in connections))
    assert {connection.close_code for connection in connections} == {CloseCode.DRAIN.number}


async def test_gateways_replaced_one_after_the_other_lose_nothing(cluster: Cluster, load: StartLoad) -> None:
    async with load() as running:
        for gateway in cluster.gateways:
            async with stopped(gateway):
                await running.everybody_in()
            await running.acknowledged(10)
    assert not running.report.gaps


async def test_a_gateway_that_froze_delivers_what_it_missed(cluster: Cluster, load: StartLoad) -> None:
    async with load() as running:
        async with paused(cluster.gateways[0]):
            start = len(running.events)
            # Publishers elsewhere go on.
            await eventually(
                lambda: running.count(lambda event: isinstance(event, AcknowledgedRecord), start) > 20,
                "publishes through the other gateway",
                timeout_s=20.0,
            )
        await running.acknowledged(20)
    assert not running.report.gaps
