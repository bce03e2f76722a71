"""Members of rooms, and versions of rooms; on every presence store."""

from tests.support.presence import connected, data, disconnected, joined, left, lines, sweep_all, sweep_lines


async def test_leave_room_leaves_at_once(gateway, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"))
    assert lines((await gateway.send(left("c1", "lobby"))).changes) == ["user_left ann lobby"]


async def test_a_room_keeps_a_user_until_their_last_connection_leaves_it(gateway):
    first = await gateway.send(
        connected("c1", "ann"), connected("c2", "ann"), joined("c1", "lobby"), joined("c2", "lobby")
    )
    assert lines(first.changes) == ["user_online ann", "user_joined ann lobby"]
    assert (await gateway.send(left("c1", "lobby"))).changes.empty
    assert (await gateway.send(left("c1", "lobby"))).changes.empty
    assert lines((await gateway.send(left("c2", "lobby"))).changes) == ["user_left ann lobby"]


async def test_a_clean_close_takes_a_user_out_of_all_rooms(store, gateway):
    await gateway.send(connected("c1", "ann"), connected("c2", "ann"), joined("c1", "a"), joined("c2", "b"))
    assert lines((await gateway.send(disconnected("c1", clean=True))).changes) == ["user_left ann a"]
    last = await gateway.send(disconnected("c2", clean=True))
    assert lines(last.changes) == ["user_offline ann", "user_left ann b"]


async def test_a_clean_close_after_a_rejoin_leaves_the_room_at_once(gateway, clock):
    await gateway.send(connected("tab", "ann"), connected("c1", "ann"), joined("c1", "lobby"))
    await gateway.send(disconnected("c1"))
    clock.advance(1)
    await gateway.send(connected("c2", "ann"), joined("c2", "lobby"))
    gone = await gateway.send(disconnected("c2", clean=True))
    assert lines(gone.changes) == ["user_left ann lobby"]


async def test_a_room_that_is_followed_continues_from_there(store, gateway, clock):
    await gateway.send(connected("c1", "ann"))
    looked = await store.page("lobby", for_follower=True)
    await gateway.send(connected("c2", "bob"))
    applied = await gateway.send(joined("c1", "lobby"))
    assert applied.changes.rooms[0].version == looked.version + 1
    gone = await gateway.send(left("c1", "lobby"))
    clock.advance(3)
    again = await gateway.send(joined("c1", "lobby"))
    assert again.changes.rooms[0].version == gone.changes.rooms[0].version + 1


async def test_a_forgotten_room_never_repeats_a_version(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"))
    last = (await gateway.send(left("c1", "lobby"), connected("c2", "bob"))).changes.rooms[0].version
    for _ in range(8):
        clock.advance(8)
        await gateway.send()
        await sweep_all(store)
    again = await gateway.send(joined("c1", "lobby"))
    assert again.changes.rooms[0].version > last + 1


async def test_names_of_any_kind_do_not_meet(store, gateway, clock):
    await gateway.send(connected("c1", "a"), connected("c2", "1:a"), joined("c1", "1:ab"), joined("c2", "b"))
    await gateway.send(connected("c3", "42"), joined("c3", "7"), joined("c3", ""), data("c3", "7"))
    await gateway.send(disconnected("c1"), disconnected("c3"))
    clock.advance(5.1)
    assert sorted(await sweep_lines(store)) == sorted(
        ["user_offline a", "user_offline 42", "user_left a 1:ab", "user_left 42 7", "user_left 42"]
    )
