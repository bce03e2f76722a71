"""When users are online, their status and data, and when they go offline; on every presence store."""

import pytest

from presence_svc.changes import BatchResult
from tests.support.presence import (
    connected,
    data,
    disconnected,
    joined,
    left,
    lines,
    plain_page,
    status,
    sweep_lines,
)


async def test_first_connection_brings_a_user_online_and_the_last_takes_them_off(store, gateway):
    assert lines((await gateway.send(connected("c1", "ann"))).changes) == ["user_online ann"]
    assert lines((await gateway.send(connected("c2", "ann"))).changes) == []
    assert lines((await gateway.send(disconnected("c1", clean=True))).changes) == []
    assert lines((await gateway.send(disconnected("c2", clean=True))).changes) == ["user_offline ann"]
    assert (await store.page()).users == []


async def test_a_lost_connection_leaves_after_the_grace(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"))
    assert lines((await gateway.send(disconnected("c1"))).changes) == []
    clock.advance(4.9)
    assert await sweep_lines(store) == []
    clock.advance(0.2)
    assert await sweep_lines(store) == ["user_offline ann", "user_left ann lobby"]
    assert await sweep_lines(store) == []


async def test_coming_back_within_the_grace_is_no_change(store, gateway, other, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"), status("c1", "busy"))
    await gateway.send(disconnected("c1"))
    clock.advance(3)
    assert (await other.send(connected("c9", "ann"), joined("c9", "lobby"))).changes.empty
    clock.advance(6)
    await gateway.send()
    assert await sweep_lines(store) == []
    assert plain_page(await store.page("lobby"))["ann"]["status"] == "busy"


async def test_a_reconnect_without_a_rejoin_leaves_the_room(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"))
    await gateway.send(disconnected("c1"))
    clock.advance(1)
    assert (await gateway.send(connected("c2", "ann"))).changes.empty
    clock.advance(4.5)
    assert await sweep_lines(store) == ["user_left ann lobby"]
    assert list(plain_page(await store.page())) == ["ann"]
    assert (await store.page("lobby")).users == []


async def test_a_clean_close_after_a_reconnect_is_offline_at_once(gateway, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"))
    await gateway.send(disconnected("c1"))
    clock.advance(1)
    await gateway.send(connected("c2", "ann"))
    gone = await gateway.send(disconnected("c2", clean=True))
    assert lines(gone.changes) == ["user_offline ann", "user_left ann lobby"]


async def test_the_strongest_status_of_lost_connections_holds_through_the_grace(store, gateway):
    await gateway.send(
        connected("c1", "ann"), connected("c2", "ann"), status("c1", "busy"), status("c2", "away")
    )
    assert (await gateway.send(disconnected("c1"))).changes.empty
    assert (await gateway.send(disconnected("c2"))).changes.empty
    assert (await gateway.send(connected("c3", "ann"))).changes.empty
    assert plain_page(await store.page())["ann"]["status"] == "busy"


async def test_a_clean_close_does_not_end_the_grace_of_another_connection(store, gateway, clock):
    await gateway.send(connected("phone", "ann"), connected("laptop", "ann"), joined("phone", "lobby"))
    await gateway.send(disconnected("phone"))
    clock.advance(1)
    assert (await gateway.send(disconnected("laptop", clean=True))).changes.empty
    clock.advance(4.1)
    assert await sweep_lines(store) == ["user_offline ann", "user_left ann lobby"]


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
    assert plain_page(await store.page())["ann"]["status"] == seen


async def test_status_follows_the_connections_that_remain(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), connected("c2", "ann"), status("c2", "away"))
    await gateway.send(disconnected("c1"))
    assert plain_page(await store.page())["ann"]["status"] == "online"
    clock.advance(5.1)
    assert await sweep_lines(store) == ["status_changed ann away"]


async def test_data_is_the_users_and_the_last_write_wins(store, gateway, other):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"))
    await other.send(connected("c2", "ann"))
    assert lines((await gateway.send(data("c1", {"mood": "ok"}))).changes) == [
        "presence_updated ann {'mood': 'ok'}"
    ]
    applied = await other.send(data("c2", [1, "ü", None, 0.5]))
    assert [change.room for change in applied.changes.rooms] == ["lobby"]
    assert plain_page(await store.page("lobby"))["ann"]["customData"] == [1, "ü", None, 0.5]
    assert (await other.send(data("c2", [1, "ü", None, 0.5]))).changes.empty


async def test_the_name_is_that_of_the_latest_connection(store, gateway):
    await gateway.send(connected("c1", "ann", "Ann"), joined("c1", "lobby"))
    applied = await gateway.send(connected("c2", "ann", "Anna"))
    assert lines(applied.changes) == ["user_online ann"]
    assert plain_page(await store.page("lobby"))["ann"]["username"] == "Anna"
    assert len(applied.changes.rooms) == 1


async def test_last_seen_is_the_last_activity(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), connected("c2", "bob"))
    start = clock()
    clock.advance(2)
    await gateway.send(active=["bob", "nobody"])
    clock.advance(2)
    await gateway.send()
    seen = {user.user_id: user.last_seen for user in (await store.page()).users}
    assert seen == {"ann": start, "bob": start + 2000}


async def test_operations_on_unknown_connections_change_nothing(store, gateway):
    await gateway.send(connected("c1", "ann"))
    applied = await gateway.send(
        joined("nope", "lobby"),
        left("c1", "lobby"),
        status("nope", "busy"),
        data("nope", 1),
        disconnected("nope"),
    )
    assert applied.result is BatchResult.APPLIED
    assert applied.changes.empty
