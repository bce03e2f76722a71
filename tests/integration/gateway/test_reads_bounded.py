"""Reads of one client never block the bus for others: recoveries, history, SSE streams."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.support.clients import Client, client, event_source
from tests.support.cluster import ServiceProcess, aside
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.deployment import Deployment
from tests.support.requires import need
from tidings_cli.local.processes import free_port
from tidings_cli.local.servers import NatsServer, RedisServer

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("reads bounded")]

_SIZE = 60_000
_FULL = 100  # as many as a room keeps


class Watched(NatsServer):
    """A NATS server that reports the number of clients it has cut off."""

    monitor = 0

    def cut_off(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}/varz", timeout=5) as answer:
            return int(json.load(answer)["slow_consumers"])


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    need("nats-server")
    Watched.monitor = free_port()
    with Watched(
        tmp_path_factory.mktemp("watched"), extra_config=f'http: "127.0.0.1:{Watched.monitor}"'
    ) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(
    nats: Watched, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    with Deployment(
        tmp_path_factory.mktemp("bounded"),
        nats_url=nats.url,
        redis_url=redis_server.url,
        prefix="bounded",
        gateways=1,
    ) as deployment:
        yield deployment.gateways[0]


async def _fill(ann: Client, *rooms: str) -> dict[str, dict[str, Any]]:
    """Fill rooms; return the position of each from before its last ninety messages."""
    positions = {}
    for room in rooms:
        await ann.join(room)
        for number in range(_FULL):
            ack = await _published(ann, room)
            if number == _FULL - 90:
                positions[room] = {"epoch": ack["epoch"], "seq": ack["seq"]}
    return positions


async def _published(ann: Client, room: str) -> dict[str, Any]:
    while True:
        ack = await ann.ask("room_message", room=room, content="x" * _SIZE)
        if ack["type"] == "ack":
            return ack
        assert ack["code"] == "rate_limited", ack
        await asyncio.sleep(ack["retryAfterMs"] / 1000)


@asynccontextmanager
async def _others_go_on(gateway: ServiceProcess, nats: Watched) -> AsyncIterator[None]:
    """Publish as another user meanwhile: nothing may fail, and NATS may not cut the gateway off."""
    before = await aside(nats.cut_off)
    answers: list[dict[str, Any]] = []
    done = False

    async def publish() -> None:
        async with client(gateway, "username=Bob") as bob:
            await bob.join("elsewhere")
            while not done:
                answers.append(await bob.ask("room_message", room="elsewhere", content=1))
                await asyncio.sleep(0.02)

    publishing = asyncio.create_task(publish())
    await eventually(lambda: answers or publishing.done())
    try:
        yield
    finally:
        done = True
        await publishing
    assert {answer["type"] for answer in answers} == {"ack"}, [a for a in answers if a["type"] != "ack"][:1]
    assert await aside(nats.cut_off) == before


async def test_many_recoveries_of_one_client(gateway: ServiceProcess, nats: Watched) -> None:
    async with client(gateway, "username=Ann") as ann:
        positions = await _fill(ann, "full")
        async with _others_go_on(gateway, nats), client(gateway, "username=Eve") as eve:
            for _ in range(4):
                asked = [{"type": "join_room", "room": "full", "since": positions["full"]} for _ in range(30)]
                for message in asked:
                    await eve.send_raw(message)
                for _ in asked:
                    answer = await eve.receive()
                    while answer["type"] not in ("joined_room", "error"):
                        answer = await eve.receive()
                    # More than one recovery returns: it is whole, or says that it is not.
                    assert answer["type"] == "error" or (answer["recovered"], answer["missed"]) == (False, [])


async def test_a_recovery_within_the_limit_is_complete(gateway: ServiceProcess) -> None:
    async with client(gateway, "username=Ann") as ann:
        await ann.join("some")
        acks = [await _published(ann, "some") for _ in range(16)]
        back = await ann.join("some", since={"epoch": acks[0]["epoch"], "seq": acks[0]["seq"]})
        assert back["recovered"] is True
        assert [message["seq"] for message in back["missed"]] == [ack["seq"] for ack in acks[1:]]


async def test_history_that_is_not_read(gateway: ServiceProcess, nats: Watched) -> None:
    async with client(gateway, "username=Ann") as ann:
        await _fill(ann, "told")
    async with _others_go_on(gateway, nats):
        writers = []
        for _ in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
            writer.write(b"GET /api/rooms/told/history HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            writers.append((reader, writer))
        for reader, _ in writers:  # each has begun to answer, or got a time to retry
            assert (await reader.readline()).split()[1] in (b"200", b"503")
        for _, writer in writers:
            writer.close()


async def test_pages_of_history_are_bounded_by_bytes_and_miss_nothing(gateway: ServiceProcess) -> None:
    async with (
        client(gateway, "username=Ann") as ann,
        httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http,
    ):
        await ann.join("paged")
        seqs = [(await _published(ann, "paged"))["seq"] for _ in range(40)]
        newest = (await http.get("/api/rooms/paged/history")).json()
        assert newest["seq"] == seqs[-1]
        found = [message["seq"] for message in newest["messages"]]
        assert found == seqs[-len(found) :]
        assert len(found) * _SIZE <= 1_048_576
        before = (await http.get(f"/api/rooms/paged/history?before={found[0]}")).json()["messages"]
        assert [message["seq"] for message in before] == seqs[-2 * len(found) : -len(found)]
        on, since = [], 0
        while page := (await http.get(f"/api/rooms/paged/history?since={since}")).json()["messages"]:
            on += [message["seq"] for message in page]
            since = on[-1]
        assert on == seqs


async def test_a_stream_of_events_that_resumes_a_dozen_full_rooms(
    gateway: ServiceProcess, nats: Watched
) -> None:
    rooms = [f"full-{number}" for number in range(12)]
    async with event_source(gateway, rooms=",".join(rooms)) as stream:
        for _ in rooms:
            await stream.expect("joined_room")
        last = stream.last_id
    for room in rooms:
        async with client(gateway, "username=Ann") as ann:
            await ann.join(room)
            for _ in range(30):
                await _published(ann, room)
    async with (
        _others_go_on(gateway, nats),
        event_source(gateway, rooms=",".join(rooms), last_event_id=last) as stream,
    ):
        resets = [await stream.expect("reset") for _ in rooms]
        assert {reset["reason"] for reset in resets} == {"too_many"}


async def test_a_stream_resumes_rooms_that_have_as_much_as_may_be_missed(gateway: ServiceProcess) -> None:
    rooms = [f"part-{number}" for number in range(6)]
    async with client(gateway, "username=Ann") as ann:
        async with event_source(gateway, rooms=",".join(rooms)) as stream:
            for _ in rooms:
                await stream.expect("joined_room")
            last = stream.last_id
        seqs: list[tuple[str, int]] = []
        for room in rooms:
            await ann.join(room)
            seqs += [(room, (await _published(ann, room))["seq"]) for _ in range(16)]
        async with event_source(gateway, rooms=",".join(rooms), last_event_id=last) as stream:
            got = [await stream.expect("room_message") for _ in seqs]
        assert sorted((message["room"], message["seq"]) for message in got) == sorted(seqs)
