"""Answers to members when messages are lost: a wiped stream, and an evicted gap."""

import shutil
from collections.abc import Iterator

import pytest

from tests.support.clients import client
from tests.support.cluster import Cluster, aside
from tests.support.deadline import eventually
from tests.support.requires import need
from tidings_cli.local.servers import NatsServer


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    need("nats-server")
    need("redis-server")
    with Cluster(tmp_path_factory.mktemp("losses")) as cluster:
        yield cluster
        for gateway in cluster.gateways:
            assert "Traceback" not in gateway.log_text()


def wipe(server: NatsServer) -> None:
    """Remove what a stopped server has stored."""
    shutil.rmtree(server.directory / "jetstream")


def cut_off(cluster: Cluster) -> None:
    """Take the first gateway's connection to NATS away until the proxy is healed."""
    cluster.proxy.refuse()
    cluster.proxy.reset()


async def test_members_are_notified_of_a_wiped_stream_and_continue(cluster: Cluster, room: str) -> None:
    async with client(cluster.gateways[0]) as ann, client(cluster.gateways[1]) as bob:
        before = await ann.join(room)
        await bob.join(room)
        for number in range(5):
            await ann.ask("room_message", room=room, content=number)
        await aside(cluster.nats.kill)
        wipe(cluster.nats)
        await aside(cluster.nats.start)
        await aside(cluster.gateways[0].wait_ready)
        await aside(cluster.gateways[1].wait_ready)
        for one in (ann, bob):
            notice = await one.expect("joined_room")
            assert (notice["room"], notice["recovered"], notice["missed"]) == (room, False, [])
            assert notice["epoch"] != before["epoch"]
            assert "id" not in notice
        bob.inbox.clear()

        async def published() -> bool:
            return (await ann.ask("room_message", room=room, content="anew", id="anew"))["type"] == "ack"

        await eventually(published)
        message = await bob.expect("room_message")
        assert message["content"] == "anew"
        assert message["seq"] > notice["seq"]
        back = await bob.join(room, since={"epoch": before["epoch"], "seq": before["seq"]})
        assert back["recovered"] is False
        assert back["epoch"] == notice["epoch"]
        await ann.ask("direct_message", targetUserId=bob.user, content="inbox works")
        await bob.expect("direct_message")
    await cluster.heal()


async def test_a_gap_is_filled_when_the_bus_recovers(cluster: Cluster, room: str) -> None:
    behind_proxy, other = cluster.gateways
    async with client(behind_proxy) as ann, client(other) as bob:
        await ann.join(room)
        await bob.join(room)
        await bob.ask("room_message", room=room, content="before")
        cut_off(cluster)
        unavailable = await ann.ask("room_message", room=room, content="nobody takes this")
        assert (unavailable["code"], unavailable["retryable"]) == ("unavailable", True)
        for number in range(30):
            await bob.ask("room_message", room=room, content=number)
        cluster.proxy.heal()
        contents = [(await ann.expect("room_message"))["content"] for _ in range(31)]
        assert contents == ["before", *range(30)]
        await ann.nothing_of("joined_room")


async def test_members_are_notified_of_an_evicted_gap(cluster: Cluster, room: str) -> None:
    behind_proxy, other = cluster.gateways
    quiet_room = f"{room}-quiet"
    async with client(behind_proxy) as ann, client(other) as bob:
        for name in (room, quiet_room):
            await ann.join(name)
            await bob.join(name)
        await bob.ask("room_message", room=room, content="before")
        await ann.expect("room_message")
        cut_off(cluster)
        for number in range(150):  # the room keeps 100
            await bob.ask("room_message", room=room, content=number)
        cluster.proxy.heal()
        notice = await ann.expect("joined_room")
        assert (notice["room"], notice["recovered"], notice["missed"]) == (room, False, [])
        messages = [await ann.expect("room_message") for _ in range(100)]
        assert [message["content"] for message in messages] == list(range(50, 150))
        assert notice["seq"] < messages[0]["seq"]
        await bob.ask("room_message", room=room, content="after")
        assert (await ann.expect("room_message"))["content"] == "after"
        await ann.nothing_of("joined_room")  # a room in which nothing happened was not interrupted
