"""What every presence store does, on the one in memory and the one in Redis."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from presence_svc.changes import Changes, Outcome
from presence_svc.store import PresenceStore
from presence_svc.store_memory import MemoryPresenceStore
from presence_svc.store_redis import RedisPresenceStore
from services.redis_link import close_redis, open_redis
from services.settings import Settings
from services.wire.rpc import PresenceBatch
from tests.support.presence import (
    TIMING,
    SimulatedGateway,
    TurnedClock,
    connected,
    data,
    disconnected,
    joined,
    left,
    plain_page,
    status,
    sweep_whole,
)


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture(params=["memory", "redis", "valkey", "cluster"])
async def store(
    request: pytest.FixtureRequest, clock: TurnedClock, prefix: str
) -> AsyncIterator[PresenceStore]:
    if request.param == "memory":
        yield MemoryPresenceStore(TIMING, clock)
        return
    url = request.getfixturevalue(f"{request.param}_server").url
    redis = open_redis(Settings(redis_url=url), "presence")
    redis_store = RedisPresenceStore(redis, prefix, TIMING, clock=clock)
    yield redis_store
    await redis_store.close()
    await close_redis(redis)


@pytest.fixture
def gateway(store: PresenceStore) -> SimulatedGateway:
    return SimulatedGateway(store)


@pytest.fixture
def other(store: PresenceStore) -> SimulatedGateway:
    return SimulatedGateway(store, "g2")


def told(changes: Changes) -> list[Any]:
    """Return the changes of everyone and the notices, as `type user ...` lines."""
    lines = []
    for one in [*changes.users, *changes.notices]:
        fields = msgspec.json.decode(msgspec.json.encode(one))
        user = fields.get("userId") or fields["user"]["userId"]
        extra = fields.get("status") or fields.get("room") or fields.get("customData")
        lines.append(f"{fields['type']} {user}" + (f" {extra}" if extra else ""))
    return lines


async def swept(store: PresenceStore) -> list[Any]:
    return [line for step in await sweep_whole(store) for line in told(step.changes)]


async def test_first_connection_brings_a_user_online_and_the_last_takes_them_off(store, gateway):
    assert told((await gateway.send(connected("c1", "ann"))).changes) == ["user_online ann"]
    assert told((await gateway.send(connected("c2", "ann"))).changes) == []
    assert told((await gateway.send(disconnected("c1", clean=True))).changes) == []
    assert told((await gateway.send(disconnected("c2", clean=True))).changes) == ["user_offline ann"]
    assert (await store.everyone()).users == []
    assert msgspec.structs.asdict is not None


async def test_a_lost_connection_leaves_after_the_grace(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"))
    assert told((await gateway.send(disconnected("c1"))).changes) == []
    clock.turn(4.9)
    assert await swept(store) == []
    clock.turn(0.2)
    assert await swept(store) == ["user_offline ann", "user_left ann lobby"]
    assert await swept(store) == []


async def test_coming_back_within_the_grace_is_no_change(store, gateway, other, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"), status("c1", "busy"))
    await gateway.send(disconnected("c1"))
    clock.turn(3)
    assert (await other.send(connected("c9", "ann"), joined("c9", "lobby"))).changes.empty
    clock.turn(6)
    await gateway.send()
    assert await swept(store) == []
    assert plain_page(await store.members("lobby"))["ann"]["status"] == "busy"


async def test_who_is_back_but_not_in_the_room_leaves_the_room(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"))
    await gateway.send(disconnected("c1"))
    clock.turn(1)
    assert (await gateway.send(connected("c2", "ann"))).changes.empty
    clock.turn(4.5)
    assert await swept(store) == ["user_left ann lobby"]
    assert list(plain_page(await store.everyone())) == ["ann"]
    assert (await store.members("lobby")).users == []


async def test_a_room_is_left_at_once_when_the_client_says_so(gateway, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"))
    assert told((await gateway.send(left("c1", "lobby"))).changes) == ["user_left ann lobby"]


async def test_a_room_keeps_a_user_until_their_last_connection_leaves_it(gateway):
    first = await gateway.send(
        connected("c1", "ann"), connected("c2", "ann"), joined("c1", "lobby"), joined("c2", "lobby")
    )
    assert told(first.changes) == ["user_online ann", "user_joined ann lobby"]
    assert (await gateway.send(left("c1", "lobby"))).changes.empty
    assert (await gateway.send(left("c1", "lobby"))).changes.empty
    assert told((await gateway.send(left("c2", "lobby"))).changes) == ["user_left ann lobby"]


async def test_a_clean_close_takes_a_user_out_of_all_rooms(store, gateway):
    await gateway.send(connected("c1", "ann"), connected("c2", "ann"), joined("c1", "a"), joined("c2", "b"))
    assert told((await gateway.send(disconnected("c1", clean=True))).changes) == ["user_left ann a"]
    last = await gateway.send(disconnected("c2", clean=True))
    assert told(last.changes) == ["user_offline ann", "user_left ann b"]


async def test_who_came_back_and_then_closed_cleanly_is_gone_at_once(gateway, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"))
    await gateway.send(disconnected("c1"))
    clock.turn(1)
    await gateway.send(connected("c2", "ann"))
    gone = await gateway.send(disconnected("c2", clean=True))
    assert told(gone.changes) == ["user_offline ann", "user_left ann lobby"]


async def test_who_came_back_to_a_room_and_then_closed_cleanly_has_left_it_at_once(gateway, clock):
    await gateway.send(connected("tab", "ann"), connected("c1", "ann"), joined("c1", "lobby"))
    await gateway.send(disconnected("c1"))
    clock.turn(1)
    await gateway.send(connected("c2", "ann"), joined("c2", "lobby"))
    gone = await gateway.send(disconnected("c2", clean=True))
    assert told(gone.changes) == ["user_left ann lobby"]


async def test_the_strongest_status_of_lost_connections_holds_through_the_grace(store, gateway):
    await gateway.send(
        connected("c1", "ann"), connected("c2", "ann"), status("c1", "busy"), status("c2", "away")
    )
    assert (await gateway.send(disconnected("c1"))).changes.empty
    assert (await gateway.send(disconnected("c2"))).changes.empty
    assert (await gateway.send(connected("c3", "ann"))).changes.empty
    assert plain_page(await store.everyone())["ann"]["status"] == "busy"


async def test_a_clean_close_does_not_end_the_grace_of_another_connection(store, gateway, clock):
    await gateway.send(connected("phone", "ann"), connected("laptop", "ann"), joined("phone", "lobby"))
    await gateway.send(disconnected("phone"))
    clock.turn(1)
    assert (await gateway.send(disconnected("laptop", clean=True))).changes.empty
    clock.turn(4.1)
    assert await swept(store) == ["user_offline ann", "user_left ann lobby"]


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        (["online", "away"], "online"),
        (["away", "online"], "online"),
        (["away", "away"], "away"),
        (["busy", "online"], "busy"),
        (["away", "busy"], "busy"),
    ],
)
async def test_the_strongest_status_wins(store, gateway, chosen, seen):
    await gateway.send(connected("c1", "ann"), connected("c2", "ann"))
    await gateway.send(status("c1", chosen[0]))
    await gateway.send(status("c2", chosen[1]))
    assert plain_page(await store.everyone())["ann"]["status"] == seen


async def test_status_follows_the_connections_that_remain(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), connected("c2", "ann"), status("c2", "away"))
    await gateway.send(disconnected("c1"))
    assert plain_page(await store.everyone())["ann"]["status"] == "online"
    clock.turn(5.1)
    assert await swept(store) == ["status_changed ann away"]


async def test_data_is_the_users_and_the_last_write_wins(store, gateway, other):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"))
    await other.send(connected("c2", "ann"))
    assert told((await gateway.send(data("c1", {"mood": "ok"}))).changes) == [
        "presence_updated ann {'mood': 'ok'}"
    ]
    applied = await other.send(data("c2", [1, "ü", None, 0.5]))
    assert [change.room for change in applied.changes.rooms] == ["lobby"]
    assert plain_page(await store.members("lobby"))["ann"]["customData"] == [1, "ü", None, 0.5]
    assert (await other.send(data("c2", [1, "ü", None, 0.5]))).changes.empty


async def test_the_name_is_that_of_the_latest_connection(store, gateway):
    await gateway.send(connected("c1", "ann", "Ann"), joined("c1", "lobby"))
    applied = await gateway.send(connected("c2", "ann", "Anna"))
    assert told(applied.changes) == ["user_online ann"]
    assert plain_page(await store.members("lobby"))["ann"]["username"] == "Anna"
    assert len(applied.changes.rooms) == 1


async def test_last_seen_is_the_last_activity(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), connected("c2", "bob"))
    start = clock()
    clock.turn(2)
    await gateway.send(active=["bob", "nobody"])
    clock.turn(2)
    await gateway.send()
    seen = {user.user_id: user.last_seen for user in (await store.everyone()).users}
    assert seen == {"ann": start, "bob": start + 2000}


async def test_a_repeated_batch_changes_nothing(store, gateway):
    await gateway.send(connected("c1", "ann"))
    batch = PresenceBatch(gateway="g1", boot="b1", batch=2, ops=[connected("c2", "bob")])
    first, second = await store.apply(batch), await store.apply(batch)
    assert (first.outcome, second.outcome) == (Outcome.APPLIED, Outcome.REPEATED)
    assert second.changes.empty
    assert (second.changes.epoch, second.changes.version) == (first.changes.epoch, first.changes.version)
    earlier = PresenceBatch(gateway="g1", boot="b1", batch=1, fresh=True, ops=[connected("c3", "eve")])
    assert (await store.apply(earlier)).outcome is Outcome.REPEATED
    assert list(plain_page(await store.everyone())) == ["ann", "bob"]


async def test_without_a_lease_the_gateway_must_announce_afresh(store, gateway):
    gateway.opened = True
    applied = await gateway.send(connected("c1", "ann"))
    assert applied.outcome is Outcome.UNKNOWN
    assert (await store.everyone()).users == []
    assert (await gateway.send(connected("c1", "ann"), fresh=True)).outcome is Outcome.APPLIED


async def test_a_missing_batch_means_lost_data_and_a_new_epoch(store, gateway):
    first = await gateway.send(connected("c1", "ann"))
    gateway.batch += 1
    missed = await gateway.send(connected("c2", "bob"))
    assert missed.outcome is Outcome.UNKNOWN
    assert missed.changes.epoch != first.changes.epoch
    again = await gateway.send(connected("c1", "ann"), connected("c2", "bob"), fresh=True)
    assert again.outcome is Outcome.APPLIED
    assert again.changes.epoch == missed.changes.epoch
    assert told(again.changes) == ["user_online bob"]


async def test_an_older_boot_is_superseded(store, gateway):
    await gateway.send(connected("c1", "ann"))
    newer = SimulatedGateway(store, boot="b2")
    await newer.send(connected("d1", "bob"))
    assert (await gateway.send()).outcome is Outcome.SUPERSEDED
    assert (await gateway.send(fresh=True)).outcome is Outcome.SUPERSEDED
    assert (await newer.send()).outcome is Outcome.APPLIED


async def test_a_boot_not_heard_of_must_open_its_lease(store, gateway):
    await gateway.send(connected("c1", "ann"))
    stranger = SimulatedGateway(store, boot="b2", opened=True)
    assert (await stranger.send(connected("d1", "bob"))).outcome is Outcome.UNKNOWN
    assert (await gateway.send()).outcome is Outcome.APPLIED


async def test_a_restarted_gateway_loses_what_it_does_not_announce_again(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), connected("c2", "bob"), joined("c2", "lobby"))
    newer = SimulatedGateway(store, boot="b2")
    assert (await newer.send(connected("d1", "ann"))).changes.empty
    assert (await store.stats()).connections == 1
    clock.turn(5.1)
    assert await swept(store) == ["user_offline bob", "user_left bob lobby"]


async def test_announcing_everything_again_is_no_change(store, gateway, clock):
    ops = [connected("c1", "ann"), joined("c1", "lobby"), status("c1", "away"), data("c1", {"a": 1})]
    await gateway.send(*ops)
    before = await store.everyone()
    assert (await gateway.send(*ops, fresh=True)).changes.empty
    clock.turn(5.1)
    assert await swept(store) == []
    assert plain_page(await store.everyone()) == plain_page(before)


async def test_a_lease_not_renewed_loses_its_connections(store, gateway, other, clock):
    await gateway.send(connected("c1", "ann"), connected("c2", "bob"), joined("c2", "lobby"))
    await other.send(connected("d1", "ann"))
    clock.turn(5)
    await other.send()
    clock.turn(4.1)
    assert await swept(store) == []
    assert (await store.stats()).gateways == 1
    clock.turn(4)
    assert await swept(store) == []
    clock.turn(1.1)
    await other.send()
    assert await swept(store) == ["user_offline bob", "user_left bob lobby"]
    assert (await gateway.send()).outcome is Outcome.UNKNOWN


async def test_a_dead_gateways_users_who_reconnect_elsewhere_do_not_flicker(store, gateway, other, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"), status("c1", "away"))
    await other.send(connected("d0", "bob"))
    clock.turn(5)
    assert (await other.send(connected("d1", "ann"), joined("d1", "lobby"))).changes.users != []
    await other.send(status("d1", "away"))
    for _ in range(10):
        clock.turn(2)
        await other.send()
        assert await swept(store) == []
    assert list(plain_page(await store.members("lobby"))) == ["ann"]


async def test_operations_on_unknown_connections_change_nothing(store, gateway):
    await gateway.send(connected("c1", "ann"))
    applied = await gateway.send(
        joined("nope", "lobby"),
        left("c1", "lobby"),
        status("nope", "busy"),
        data("nope", 1),
        disconnected("nope"),
    )
    assert applied.outcome is Outcome.APPLIED
    assert applied.changes.empty


async def test_what_a_batch_undoes_is_not_told(gateway):
    applied = await gateway.send(
        connected("c1", "ann"), joined("c1", "lobby"), left("c1", "lobby"), disconnected("c1", clean=True)
    )
    assert applied.changes.empty
    assert applied.changes.version == 0


async def test_versions_rise_by_one_a_change(store, gateway):
    first = await gateway.send(connected("c1", "ann"), connected("c2", "bob"), joined("c1", "lobby"))
    assert first.changes.version == 2
    await gateway.send(status("c1", "busy"))
    page, lobby = await store.everyone(), await store.members("lobby")
    assert (page.epoch, page.version) == (first.changes.epoch, 3)
    assert lobby.version == first.changes.rooms[0].version + 1


async def test_a_room_that_was_looked_at_continues_from_there(store, gateway, clock):
    await gateway.send(connected("c1", "ann"))
    looked = await store.members("lobby")
    await gateway.send(connected("c2", "bob"))
    applied = await gateway.send(joined("c1", "lobby"))
    assert applied.changes.rooms[0].version == looked.version + 1
    gone = await gateway.send(left("c1", "lobby"))
    clock.turn(3)
    again = await gateway.send(joined("c1", "lobby"))
    assert again.changes.rooms[0].version == gone.changes.rooms[0].version + 1


async def test_a_forgotten_room_never_repeats_a_version(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"))
    last = (await gateway.send(left("c1", "lobby"), connected("c2", "bob"))).changes.rooms[0].version
    for _ in range(8):
        clock.turn(8)
        await gateway.send()
        await sweep_whole(store)
    again = await gateway.send(joined("c1", "lobby"))
    assert again.changes.rooms[0].version > last + 1


async def test_pages_follow_each_other_in_order(store, gateway):
    names = ["Zoë", "ann", "a.b", "ünal", "日本", "bob", "a:b", "x y"]
    await gateway.send(*(connected(f"c{i}", name, name) for i, name in enumerate(names)))
    await gateway.send(*(joined(f"c{i}", "lobby") for i in range(0, 8, 2)))
    for ask, expected in ((store.everyone, names), (lambda **k: store.members("lobby", **k), names[::2])):
        seen, cursor = [], ""
        while True:
            page = await ask(cursor=cursor, limit=3)
            seen += [user.user_id for user in page.users]
            cursor = page.cursor
            if not cursor:
                break
        assert seen == sorted(expected)


async def test_lookup_returns_those_who_are_there(store, gateway):
    await gateway.send(connected("c1", "ann"), connected("c2", "bob"), joined("c2", "lobby"))
    assert list(plain_page(await store.lookup(["zed", "bob", "ann", "bob"]))) == ["ann", "bob"]
    assert list(plain_page(await store.lookup(["zed", "bob", "ann"], "lobby"))) == ["bob"]
    assert (await store.lookup([])).users == []


async def test_rooms_and_stats_count(store, gateway, clock):
    assert msgspec.to_builtins(await store.stats()) == {
        "users": 0,
        "connections": 0,
        "rooms": 0,
        "gateways": 0,
    }
    await gateway.send(
        *(connected(f"c{i}", f"u{i // 2}") for i in range(6)),
        *(joined(f"c{i}", "big") for i in range(6)),
        joined("c0", "small"),
    )
    rooms = [(room.room, room.users, room.connections) for room in await store.rooms(10)]
    assert rooms == [("big", 3, 6), ("small", 1, 1)]
    assert [room.room for room in await store.rooms(1)] == ["big"]
    assert msgspec.to_builtins(await store.stats()) == {
        "users": 3,
        "connections": 6,
        "rooms": 2,
        "gateways": 1,
    }
    await gateway.send(disconnected("c0"), disconnected("c1", clean=True))
    assert [(r.users, r.connections) for r in await store.rooms(10)] == [(3, 4), (1, 0)]
    clock.turn(5.1)
    await sweep_whole(store)
    assert [(r.room, r.users, r.connections) for r in await store.rooms(10)] == [("big", 2, 4)]


async def test_names_of_any_kind_do_not_meet(store, gateway, clock):
    await gateway.send(connected("c1", "a"), connected("c2", "1:a"), joined("c1", "1:ab"), joined("c2", "b"))
    await gateway.send(connected("c3", "42"), joined("c3", "7"), joined("c3", ""), data("c3", "7"))
    await gateway.send(disconnected("c1"), disconnected("c3"))
    clock.turn(5.1)
    assert sorted(await swept(store)) == sorted(
        ["user_offline a", "user_offline 42", "user_left a 1:ab", "user_left 42 7", "user_left 42"]
    )


async def test_many_connections_of_a_dead_gateway_go_in_pieces(store, gateway, clock):
    for start in range(0, 1200, 400):
        await gateway.send(*(connected(f"c{i}", f"u{i}") for i in range(start, start + 400)))
    clock.turn(9.1)
    await sweep_whole(store)
    assert await store.stats() == type(await store.stats())(users=1200, connections=0, rooms=0, gateways=0)
    clock.turn(5)
    gone = await swept(store)
    assert len(gone) == len(set(gone)) == 1200
    assert (await store.stats()).users == 0


async def test_opening_over_many_connections_is_one_step_for_the_caller(store, gateway, clock):
    for start in range(0, 1200, 400):
        await gateway.send(*(connected(f"c{i}", f"u{i}") for i in range(start, start + 400)))
    newer = SimulatedGateway(store, boot="b2")
    applied = await newer.send(connected("c1", "u1"))
    assert applied.outcome is Outcome.APPLIED
    assert applied.changes.empty
    assert (await store.stats()).connections == 1


async def test_sweeps_of_several_replicas_at_once_let_everybody_go_once(store, gateway, other, clock):
    for start in range(0, 1200, 400):
        await gateway.send(*(connected(f"c{i}", f"u{i:04}") for i in range(start, start + 400)))
    await other.send(*(connected(f"d{i}", f"u{i:04}") for i in range(0, 1200, 3)))
    clock.turn(8)
    await other.send()
    clock.turn(1.1)
    # Each sweeper does a part, whichever is left; the first one never says that it published its own.
    await store.sweep()
    await asyncio.gather(*(sweep_whole(store) for _ in range(8)))
    clock.turn(5)
    steps = await asyncio.gather(*(swept(store) for _ in range(8)))
    gone = [line for step in steps for line in step]
    assert sorted(gone) == [f"user_offline u{i:04}" for i in range(1200) if i % 3]
    assert (await store.stats()).users == 400
