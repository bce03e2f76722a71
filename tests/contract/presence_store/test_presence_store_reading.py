"""Reading: versions, pages, look-ups and counts, on every presence store."""

import msgspec

from tests.support.presence import connected, disconnected, joined, left, plain_page, status, sweep_all


async def test_what_a_batch_undoes_is_not_announced(gateway):
    applied = await gateway.send(
        connected("c1", "ann"), joined("c1", "lobby"), left("c1", "lobby"), disconnected("c1", clean=True)
    )
    assert applied.changes.empty
    assert applied.changes.version == 0


async def test_versions_rise_by_one_a_change(store, gateway):
    first = await gateway.send(connected("c1", "ann"), connected("c2", "bob"), joined("c1", "lobby"))
    assert first.changes.version == 2
    await gateway.send(status("c1", "busy"))
    page, lobby = await store.page(), await store.page("lobby")
    assert (page.epoch, page.version) == (first.changes.epoch, 3)
    assert lobby.version == first.changes.rooms[0].version + 1


async def test_pages_follow_each_other_in_order(store, gateway):
    names = ["Zoë", "ann", "a.b", "ünal", "日本", "bob", "a:b", "x y"]
    await gateway.send(*(connected(f"c{i}", name, name) for i, name in enumerate(names)))
    await gateway.send(*(joined(f"c{i}", "lobby") for i in range(0, 8, 2)))
    for ask, expected in ((store.page, names), (lambda **k: store.page("lobby", **k), names[::2])):
        seen, cursor = [], ""
        while True:
            page = await ask(cursor=cursor, limit=3)
            seen += [user.user_id for user in page.users]
            cursor = page.cursor
            if not cursor:
                break
        assert seen == sorted(expected)


async def test_lookup_returns_online_users(store, gateway):
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
    clock.advance(5.1)
    await sweep_all(store)
    assert [(r.room, r.users, r.connections) for r in await store.rooms(10)] == [("big", 2, 4)]


async def test_an_audit_finds_nothing_where_nothing_is_wrong(store, gateway, other, clock):
    await gateway.send(
        connected("c1", "ann"), joined("c1", "lobby"), connected("c2", "bob"), joined("c2", "hall")
    )
    await other.send(connected("d1", "ann"), joined("d1", "lobby"))
    assert await store.audit() == 0
    await gateway.send(disconnected("c1"), disconnected("c2"))
    assert await store.audit() == 0
    await other.send(connected("d1", "ann"), fresh=True)
    clock.advance(5.1)
    await sweep_all(store)
    assert await store.audit() == 0
    assert (await store.stats()).connections == 1
