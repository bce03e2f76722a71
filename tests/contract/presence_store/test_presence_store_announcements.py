"""What every presence store keeps for others to hear: steps until published, events for webhooks, counts of large scopes."""

from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from presence_svc.changes import Outcome
from presence_svc.hooks import HookKind
from presence_svc.policy import Telling, Timing
from presence_svc.store import RedisPresenceStore
from services.redis_client import close_redis, open_redis
from services.settings import Settings
from services.wire.rpc import Connected, DataSet, PresenceBatch
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
from tests.support.presence_model.store import MemoryPresenceStore

Store = MemoryPresenceStore | RedisPresenceStore
MakeStore = Callable[..., Awaitable[Store]]

ALL_HOOKS = ~HookKind(0)
HOLD = Timing(lease_ms=9000, grace_ms=5000, idle_room_ms=60_000, hold_ms=3000)


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture(params=["memory", "redis", "valkey", "cluster"])
async def make_store(
    request: pytest.FixtureRequest, clock: TurnedClock, prefix: str
) -> AsyncIterator[MakeStore]:
    redis = None
    made: list[RedisPresenceStore] = []
    if request.param != "memory":
        url = request.getfixturevalue(f"{request.param}_server").url
        redis = open_redis(Settings(redis_url=url), "presence")

    async def make(telling: Telling = Telling(), timing: Timing = TIMING, work: int = 500) -> Store:  # noqa: B008
        if redis is None:
            return MemoryPresenceStore(timing, clock, telling)
        made.append(RedisPresenceStore(redis, prefix, timing, telling, clock=clock, work=work))
        return made[-1]

    yield make
    for store in made:
        await store.close()
    if redis is not None:
        await close_redis(redis)


def batch(*ops: object, number: int = 1, fresh: bool | None = None) -> PresenceBatch:
    return PresenceBatch(
        gateway="g1", boot="b1", batch=number, fresh=number == 1 if fresh is None else fresh, ops=list(ops)
    )


# --- steps until published ------------------------------------------------------------------------------------


async def test_what_nobody_confirmed_is_handed_to_the_next_sweep(make_store, clock):
    store = await make_store()
    first = (await store.apply(batch(connected("c1", "ann"), joined("c1", "lobby")))).changes
    assert first.step == 1
    assert (await store.sweep()).overdue == []
    clock.turn(2.1)
    (overdue,) = (await store.sweep()).overdue
    assert msgspec.to_builtins(overdue.users) == msgspec.to_builtins(first.users)
    assert (overdue.rooms[0].room, overdue.rooms[0].version) == ("lobby", first.rooms[0].version)
    assert (overdue.version, overdue.notices, overdue.step) == (first.version, first.notices, 1)
    assert (await store.sweep()).overdue == []  # whoever took it gets the time to publish it
    clock.turn(2.1)
    assert [step.step for step in (await store.sweep()).overdue] == [1]
    await store.confirm([1, 7])
    clock.turn(2.1)
    assert (await store.sweep()).overdue == []


async def test_a_step_that_changed_nothing_waits_for_nobody(make_store, clock):
    store = await make_store()
    assert (await store.apply(batch())).changes.step == 0
    clock.turn(2.1)
    assert (await store.sweep()).overdue == []


async def test_notices_published_late_tell_only_what_still_holds(make_store, clock):
    store = await make_store()
    ops = [connected("c1", "ann"), joined("c1", "lobby"), connected("c2", "bob"), joined("c2", "lobby")]
    await store.apply(batch(*ops))
    await store.apply(batch(left("c1", "lobby"), number=2))
    clock.turn(2.1)
    joins, leaves = (await store.sweep()).overdue
    assert [notice.user_id for notice in joins.notices] == ["bob"]
    assert [notice.user_id for notice in leaves.notices] == ["ann"]


async def test_late_diffs_of_an_earlier_epoch_are_left_out(make_store, clock):
    store = await make_store()
    await store.apply(batch(connected("c1", "ann"), joined("c1", "lobby")))
    assert (await store.apply(batch(number=5))).outcome is Outcome.UNKNOWN
    clock.turn(2.1)
    (overdue,) = (await store.sweep()).overdue
    assert (overdue.users, overdue.rooms) == ([], [])
    assert len(overdue.notices) == 1


async def test_a_repeat_after_a_lost_answer_leaves_the_step_to_the_sweeper(make_store, clock):
    store = await make_store()
    await store.apply(batch(connected("c1", "ann")))  # the answer is lost on its way
    assert (await store.apply(batch(connected("c1", "ann")))).outcome is Outcome.REPEATED
    clock.turn(2.1)
    (overdue,) = (await store.sweep()).overdue
    assert overdue.users[0].user.user_id == "ann"


# --- large scopes ---------------------------------------------------------------------------------------------


def users(first: int, last: int, room: str = "hall") -> list[object]:
    return [op for n in range(first, last) for op in (connected(f"c{n}", f"u{n:02}"), joined(f"c{n}", room))]


async def test_above_the_limit_a_room_tells_counts_alone(make_store):
    store = await make_store(Telling(room_limit=10))
    gateway = SimulatedGateway(store)
    full = (await gateway.send(*users(0, 10))).changes
    assert (len(full.rooms[0].changes), full.rooms[0].count, len(full.notices)) == (10, None, 10)
    over = (await gateway.send(*users(10, 12))).changes
    assert len(over.users) == 2  # everyone's presence has its own limit
    (hall,) = over.rooms
    assert (hall.changes, hall.count, hall.version) == ([], 12, full.rooms[0].version + 2)
    assert over.notices == []
    quiet = (await gateway.send(status("c1", "busy"))).changes
    assert (quiet.rooms[0].changes, quiet.rooms[0].count) == ([], 12)
    page = await store.members("hall", unless_large=True)
    assert (page.users, page.count, page.large, page.cursor) == ([], 12, True, "")
    assert len((await store.members("hall")).users) == 12


async def test_a_room_comes_back_a_tenth_below_the_limit(make_store):
    store = await make_store(Telling(room_limit=10))
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 11))
    at_limit = (await gateway.send(left("c0", "hall"))).changes
    assert (at_limit.rooms[0].count, at_limit.notices) == (10, [])
    below = (await gateway.send(left("c1", "hall"))).changes
    assert (below.rooms[0].count, len(below.rooms[0].changes), len(below.notices)) == (None, 1, 1)
    page = await store.members("hall", unless_large=True)
    assert (len(page.users), page.large, page.version) == (9, False, below.rooms[0].version)


async def test_above_its_limit_everyones_presence_tells_counts_alone_and_rooms_go_on(make_store):
    store = await make_store(Telling(online_limit=10))
    gateway = SimulatedGateway(store)
    over = (await gateway.send(*users(0, 11), data("c3", {"a": 1}))).changes
    assert (over.users, over.count, over.version) == ([], 11, 11)
    assert len(over.rooms[0].changes) == 11
    assert over.rooms[0].changes[3].user.user_id == "u03"
    page = await store.everyone(unless_large=True)
    assert (page.users, page.count, page.large) == ([], 11, True)
    changed = (await gateway.send(data("c3", {"a": 2}))).changes
    assert (changed.users, changed.count) == ([], 11)
    assert bytes(changed.rooms[0].changes[0].custom_data) == b'{"a":2}'
    back = (await gateway.send(disconnected("c0", clean=True), disconnected("c1", clean=True))).changes
    assert (len(back.users), back.count) == (2, None)


async def test_a_large_room_that_empties_is_forgotten(make_store):
    store = await make_store(Telling(room_limit=2))
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 3))
    await gateway.send(*(disconnected(f"c{n}", clean=True) for n in range(3)))
    assert not (await store.members("hall")).large
    again = (await gateway.send(*users(5, 6))).changes
    assert (again.rooms[0].count, len(again.notices)) == (None, 1)


# --- events for webhooks --------------------------------------------------------------------------------------


async def take(store: Store, target: str = "t", holder: str = "h", limit: int = 100) -> list[str]:
    turn = await store.take_hooks(target, holder, 15_000, limit)
    return [f"{event.number} {event.kind.name} {event.about}" for event in turn.events]


async def test_first_and_last_are_events(make_store, clock):
    store = await make_store(Telling(hooks=ALL_HOOKS))
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 2), connected("c9", "u00"), joined("c9", "hall"))
    await gateway.send(disconnected("c0", clean=True), disconnected("c1"), left("c9", "hall"))
    clock.turn(5.1)
    await sweep_whole(store)
    await gateway.send(disconnected("c9", clean=True))
    assert await take(store) == [
        "1 USER_ONLINE u00", "2 USER_ONLINE u01", "3 ROOM_OCCUPIED hall",
        "4 USER_OFFLINE u01", "5 ROOM_VACATED hall", "6 USER_OFFLINE u00",
    ]  # fmt: skip
    turn = await store.take_hooks("t", "h", 15_000, 1)
    assert (turn.events[0].username, turn.events[0].at_ms, turn.lost) == ("U00", clock() - 5100, 0)


async def test_a_flicker_is_no_event(make_store, clock):
    store = await make_store(Telling(hooks=ALL_HOOKS))
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 1))
    await gateway.send(disconnected("c0"))
    clock.turn(3)
    await gateway.send(*users(0, 1), connected("c1", "u00", "Renamed"))
    assert await take(store) == ["1 USER_ONLINE u00", "2 ROOM_OCCUPIED hall"]


async def test_only_what_is_wanted_is_kept(make_store):
    store = await make_store(Telling(hooks=HookKind.ROOM_OCCUPIED))
    await SimulatedGateway(store).send(*users(0, 3))
    assert await take(store) == ["1 ROOM_OCCUPIED hall"]


async def deliver(store: Store, target: str = "t", holder: str = "h", limit: int = 100) -> list[str]:
    """Take events, and note that the target has them."""
    turn = await store.take_hooks(target, holder, 15_000, limit)
    if turn.events:
        await store.hooks_delivered(target, turn.events[-1])
    return [event.about for event in turn.events]


async def test_one_process_delivers_at_a_time_and_another_goes_on(make_store, clock):
    store = await make_store(Telling(hooks=ALL_HOOKS))
    await SimulatedGateway(store).send(*users(0, 3))
    assert len(await deliver(store, holder="a", limit=2)) == 2
    assert await take(store, holder="b") == []
    clock.turn(15.1)
    assert [line.split()[0] for line in await take(store, holder="b")] == ["3", "4"]
    assert await take(store, holder="a") == []
    await store.give_up_hooks("t", "a")  # it is not its turn to give up
    assert await take(store, holder="a") == []
    await store.give_up_hooks("t", "b")
    assert len(await take(store, holder="a")) == 2


async def test_a_turn_is_held_without_taking_anything(make_store, clock):
    store = await make_store(Telling(hooks=ALL_HOOKS))
    await SimulatedGateway(store).send(*users(0, 1))
    assert (await store.take_hooks("t", "a", 60_000, 0)).events == []
    clock.turn(59)
    assert await take(store, holder="b") == []
    assert len(await take(store, holder="a")) == 2


async def test_each_target_has_its_own_place(make_store):
    store = await make_store(Telling(hooks=ALL_HOOKS))
    await SimulatedGateway(store).send(*users(0, 3))
    await take(store, "down")
    assert len(await deliver(store, "up")) == 4
    assert await take(store, "up") == []
    assert len(await deliver(store, "down")) == 4
    assert await take(store, "third") == []  # what all have got is gone


async def test_who_delivers_to_one_target_takes_nothing_from_those_it_does_not_know(make_store):
    """Replicas are configured with different targets while a change of them is rolled out."""
    store = await make_store(Telling(hooks=HookKind.USER_ONLINE))
    gateway = SimulatedGateway(store)
    assert await take(store, "new", "n") == []  # it is there, and waits
    for n in range(3):
        await gateway.send(*users(n, n + 1))
        assert await deliver(store, "old", "o") == [f"u{n:02}"]
        assert await take(store, "new", "another") == []  # its turn holds, too
    assert await deliver(store, "new", "n") == ["u00", "u01", "u02"]


async def test_a_target_that_nobody_serves_for_a_day_keeps_nothing_any_more(make_store, clock):
    store = await make_store(Telling(hooks=HookKind.USER_ONLINE))
    gateway = SimulatedGateway(store)
    await take(store, "gone", "g")
    await store.give_up_hooks("gone", "g")
    await gateway.send(*users(0, 1))
    clock.turn(23 * 3600)
    await deliver(store, "stays")
    assert await take(store, "gone", "g") == ["1 USER_ONLINE u00"]
    clock.turn(24 * 3600 + 60)
    await gateway.send(*users(1, 2), fresh=True)
    assert await deliver(store, "stays") == ["u01"]
    assert await take(store, "gone", "g") == []


async def test_the_oldest_are_dropped_when_too_many_wait_and_counted(make_store):
    store = await make_store(Telling(hooks=HookKind.USER_ONLINE, hooks_kept=3))
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 1))
    await deliver(store)
    await gateway.send(*users(1, 9))
    turn = await store.take_hooks("t", "h", 15_000, 100)
    assert ([event.about for event in turn.events], turn.lost) == (["u06", "u07", "u08"], 5)


# --- ages -----------------------------------------------------------------------------------------------------


async def test_an_announcement_says_how_long_a_user_was_idle(make_store, clock):
    store = await make_store()
    gateway = SimulatedGateway(store)
    idle = Connected(connection_id="c1", user_id="ann", username="Ann", idle_ms=60_000)
    await gateway.send(idle, joined("c1", "lobby"), status("c1", "busy"), data("c1", 1))
    assert (await store.everyone()).users[0].last_seen == clock() - 60_000
    await gateway.send(active=["ann"])
    clock.turn(1)
    await gateway.send(idle, fresh=True)
    assert (await store.everyone()).users[0].last_seen == clock() - 1000


async def test_custom_data_announced_again_does_not_replace_what_was_set_later(make_store, clock):
    store = await make_store()
    gateway, other = SimulatedGateway(store), SimulatedGateway(store, "g2")
    newer = DataSet(connection_id="d1", custom_data="newer", age_ms=1000)
    older = DataSet(connection_id="c1", custom_data="older", age_ms=5000)
    await other.send(connected("d1", "ann"), newer)
    await gateway.send(connected("c1", "ann"), older)
    assert plain_page(await store.everyone())["ann"]["customData"] == "newer"
    await gateway.send(data("c1", "newest"))
    assert plain_page(await store.everyone())["ann"]["customData"] == "newest"


async def test_custom_data_is_taken_after_the_clock_stepped_back(make_store, clock):
    store = await make_store()
    gateway = SimulatedGateway(store)
    await gateway.send(connected("c1", "ann"), data("c1", "before"))
    clock.turn(-30)
    (change,) = (await gateway.send(data("c1", "after"))).changes.users
    assert bytes(change.custom_data) == b'"after"'
    assert plain_page(await store.everyone())["ann"]["customData"] == "after"


# --- without a grace ------------------------------------------------------------------------------------------

NO_GRACE = Timing(lease_ms=9000, grace_ms=0, idle_room_ms=60_000)


@pytest.mark.parametrize("batches", [1, 5])
async def test_without_a_grace_an_announcement_of_all_tells_nothing(make_store, clock, batches):
    store = await make_store(timing=NO_GRACE)
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 20), status("c3", "busy"), data("c4", 1))
    ops = [*users(0, 20), status("c3", "busy"), DataSet(connection_id="c4", custom_data=1, age_ms=2000)]
    size = -(-len(ops) // batches)
    for first in range(0, len(ops), size):
        announced = await gateway.send(*ops[first : first + size], fresh=first == 0)
        assert (announced.changes.users, announced.changes.rooms, announced.changes.notices) == ([], [], [])
        clock.turn(1)
        for swept in await sweep_whole(store):
            assert swept.changes.empty
    clock.turn(8)
    await gateway.send()
    for swept in await sweep_whole(store):
        assert swept.changes.empty
    assert ((await store.stats()).users, (await store.stats()).connections) == (20, 20)


async def test_without_a_grace_who_is_not_announced_again_goes_when_the_lease_would_end(make_store, clock):
    store = await make_store(timing=NO_GRACE)
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 2))
    await gateway.send(*users(0, 1), fresh=True)
    clock.turn(8.9)
    await gateway.send()
    assert all(swept.changes.empty for swept in await sweep_whole(store))
    clock.turn(0.2)
    (gone,) = [change for swept in await sweep_whole(store) for change in swept.changes.users]
    assert gone.user_id == "u01"
    assert await sweep_whole(store)
    assert (await store.stats()).connections == 1


# --- pieces ---------------------------------------------------------------------------------------------------


async def test_a_batch_of_much_work_is_done_in_pieces(make_store, clock):
    store = await make_store(work=7)
    gateway = SimulatedGateway(store)
    gateway.batch, gateway.opened = 1, True
    one = batch(*users(0, 30), fresh=True)
    outcomes, seen = [], set()
    while not outcomes or outcomes[-1] is Outcome.AGAIN:
        applied = await store.apply(one)
        outcomes.append(applied.outcome)
        seen |= {change.user.user_id for change in applied.changes.users}
    assert outcomes[-1] is Outcome.APPLIED
    assert len(seen) == 30
    assert len((await store.members("hall")).users) == 30
    assert (await store.apply(one)).outcome is Outcome.REPEATED
    assert (await gateway.send(active=[f"u{n:02}" for n in range(30)])).outcome is Outcome.APPLIED
    await gateway.send(*(disconnected(f"c{n}", clean=True) for n in range(30)))
    assert (await store.stats()).connections == 0
    assert (await store.everyone()).users == []


async def test_a_batch_half_done_can_be_replaced_by_a_fresh_announcement(make_store):
    store = await make_store(work=7)
    await store.apply(batch(*users(0, 30)))  # one piece; then the gateway gives up and announces afresh
    gateway = SimulatedGateway(store, batch=1, opened=True)
    assert (await gateway.send(*users(0, 3), fresh=True)).outcome is Outcome.APPLIED
    assert (await store.stats()).connections == 3


# --- when nobody was heard for a while ------------------------------------------------------------------------


async def test_after_an_outage_gateways_get_the_time_to_speak_first(make_store, clock):
    store = await make_store(timing=HOLD)
    gateway, other = SimulatedGateway(store), SimulatedGateway(store, "g2")
    await gateway.send(connected("c1", "ann"), connected("c2", "bob"), connected("c3", "eve"))
    await gateway.send(disconnected("c2"))
    await sweep_whole(store)
    clock.turn(30)  # presence_svc was away
    assert (await sweep_whole(store))[0].changes.empty
    clock.turn(1)
    assert (await gateway.send()).outcome is Outcome.APPLIED  # its lease is there, longer than it was
    assert (await other.send(connected("d2", "bob"))).changes.empty  # bob came back meanwhile: no flicker
    await gateway.send(disconnected("c3"))
    for _ in range(9):
        clock.turn(1)
        await gateway.send()
        await other.send()
        swept = [change for step in await sweep_whole(store) for change in step.changes.users]
        assert [change.user_id for change in swept] in ([], ["eve"])
    assert list(plain_page(await store.everyone())) == ["ann", "bob"]


async def test_who_does_not_speak_after_an_outage_goes(make_store, clock):
    store = await make_store(timing=HOLD)
    await SimulatedGateway(store).send(connected("c1", "ann"))
    await sweep_whole(store)
    clock.turn(30)
    await sweep_whole(store)
    clock.turn(2.9)
    await sweep_whole(store)
    assert (await store.stats()).connections == 1
    clock.turn(0.2)
    await sweep_whole(store)
    assert (await store.stats()).connections == 0
    for _ in range(6):
        clock.turn(1)
        await sweep_whole(store)
    assert (await store.everyone()).users == []
