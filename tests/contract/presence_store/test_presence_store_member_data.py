"""What users show in a room; on every presence store."""

from typing import Any

import msgspec

from tests.support.presence import (
    AnyStore,
    connected,
    data,
    disconnected,
    joined,
    left,
    status,
    sweep_all,
)


def plain(found: object) -> Any:
    return msgspec.json.decode(msgspec.json.encode(found))


async def shown(store: AnyStore, room: str = "lobby") -> dict[str, Any]:
    """Return what each member of a room shows."""
    page = await store.page(room)
    looked_up = await store.lookup([user.user_id for user in page.users], room)
    assert looked_up.users == page.users
    return {user["userId"]: user.get("memberData", "nothing") for user in plain(page.users)}


def in_room(applied: Any, room: str = "lobby") -> list[tuple[str, Any]]:
    """Return the changes of a room: type and member data."""
    changes = [change for diff in applied.changes.rooms if diff.room == room for change in diff.changes]
    return [(one["type"], one.get("user", {}).get("memberData")) for one in plain(changes)]


async def test_member_data_is_shown_in_its_room_alone(store, gateway):
    applied = await gateway.send(
        connected("c1", "ann"), joined("c1", "lobby", {"seat": 1}), joined("c1", "attic")
    )
    (attic, lobby) = plain(applied.changes.notices)
    assert "memberData" not in attic
    assert lobby["memberData"] == {"seat": 1}
    assert "memberData" not in plain(applied.changes.users)[0]["user"]
    assert in_room(applied) == [("user_online", {"seat": 1})]
    assert in_room(applied, "attic") == [("user_online", None)]
    assert await shown(store) == {"ann": {"seat": 1}}
    assert await shown(store, "attic") == {"ann": "nothing"}
    assert "memberData" not in plain((await store.page()).users)[0]


async def test_the_newest_join_wins(store, gateway, other):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby", 1))
    second = await other.send(connected("d1", "ann"), joined("d1", "lobby", 2))
    assert second.changes.notices == []
    assert in_room(second) == [("user_online", 2)]
    assert (await other.send(joined("d1", "lobby", 2))).changes.empty
    without = await gateway.send(connected("c2", "ann"), joined("c2", "lobby"))
    assert in_room(without) == []
    assert await shown(store) == {"ann": 2}
    await gateway.send(joined("c1", "lobby", None))  # also of a member, and null is a value
    assert await shown(store) == {"ann": None}


async def test_an_announcement_does_not_replace_newer_data(store, gateway, other, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby", "old"))
    clock.advance(1)
    await other.send(connected("d1", "ann"), joined("d1", "lobby", "new"))
    clock.advance(1)
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby", "old", 2000), fresh=True)
    assert await shown(store) == {"ann": "new"}
    await other.send(connected("d1", "ann"), joined("d1", "lobby", "new", 1000), fresh=True)
    assert await shown(store) == {"ann": "new"}


async def test_member_data_ends_with_the_membership(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby", 1), joined("c1", "attic", 2))
    await gateway.send(left("c1", "lobby"))
    await gateway.send(joined("c1", "lobby"))
    assert await shown(store) == {"ann": "nothing"}
    again = await gateway.send(left("c1", "attic"), joined("c1", "attic"))
    assert in_room(again, "attic") == [("user_online", None)]
    assert again.changes.notices == []
    await gateway.send(joined("c1", "attic", 3))
    same = await gateway.send(left("c1", "attic"), joined("c1", "attic", 3))
    assert same.changes.empty
    await gateway.send(disconnected("c1", clean=True))
    await gateway.send(connected("c2", "ann"), joined("c2", "attic"))
    assert await shown(store, "attic") == {"ann": "nothing"}


async def test_member_data_lives_through_a_grace(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby", 1))
    await gateway.send(disconnected("c1"))
    clock.advance(2)
    await gateway.send(connected("c2", "ann"), joined("c2", "lobby"))
    assert await shown(store) == {"ann": 1}
    await gateway.send(disconnected("c2"))
    clock.advance(6)
    await sweep_all(store)
    await gateway.send(connected("c3", "ann"), joined("c3", "lobby"))
    assert await shown(store) == {"ann": "nothing"}


async def test_changes_of_a_member_beside_their_data(store, gateway):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby", 1), joined("c1", "attic"))
    both = await gateway.send(status("c1", "busy"), data("c1", 5), joined("c1", "lobby", 2))
    assert in_room(both) == [("user_online", 2)]  # complete, with status and custom data
    (change,) = plain(next(diff.changes for diff in both.changes.rooms if diff.room == "lobby"))
    assert (change["user"]["status"], change["user"]["customData"]) == ("busy", 5)
    assert [type for type, _ in in_room(both, "attic")] == ["status_changed", "presence_updated"]
    renamed = await gateway.send(connected("c2", "ann", "Other"))
    assert in_room(renamed) == [("user_online", 2)]


async def test_member_data_has_any_text(store, gateway):
    values = ["\n 1 2", "ü\0", {"a": [1.5, None, "x" * 1000]}, "", [], {}, False]
    await gateway.send(connected("e1", "eve"))
    for value in values:
        await gateway.send(joined("e1", "lobby", value))
        assert await shown(store) == {"eve": value}
