"""The batches of a gateway: bounded, complete, numbered without gaps."""

from collections.abc import Iterable

import msgspec
import pytest

from gateway.presence import batch_queue as module
from gateway.presence.batch_queue import BatchQueue
from services.wire.records import Status
from services.wire.rpc import (
    AnyPresenceOp,
    Connected,
    DataSet,
    Disconnected,
    Joined,
    Left,
    PresenceBatch,
    StatusSet,
)


class Here:
    """A connection in some rooms."""

    def __init__(self, connection_id: str, rooms: int = 0, data: object = None) -> None:
        self.connection_id = connection_id
        self.rooms = [f"room-{n}" for n in range(rooms)]
        self.data = data

    def presence_ops(self) -> Iterable[AnyPresenceOp]:
        yield Connected(connection_id=self.connection_id, user_id=f"u-{self.connection_id}", username="U")
        for room in self.rooms:
            yield Joined(connection_id=self.connection_id, room=room)
        if self.data is not None:
            yield StatusSet(connection_id=self.connection_id, status=Status.BUSY)
            yield DataSet(connection_id=self.connection_id, custom_data=self.data)


def drain(batches: BatchQueue, here: Iterable[Here] = ()) -> list[PresenceBatch]:
    made = [batches.next(list(here))]
    while batches.has_work:
        made.append(batches.next(list(here)))
    return made


def size(batch: PresenceBatch) -> int:
    return len(msgspec.json.encode(batch))


def test_every_connection_is_announced_completely_in_one_batch():
    data = msgspec.Raw(msgspec.json.encode("x" * 4000))
    here = [Here(f"c{n}", rooms=n % 7, data=data if n % 2 else None) for n in range(1500)]
    made = drain(BatchQueue("g", "b"), here)
    assert [batch.batch for batch in made] == list(range(1, len(made) + 1))
    assert [batch.fresh for batch in made] == [True] + [False] * (len(made) - 1)
    assert max(len(batch.ops) for batch in made) <= module.MAX_OPS
    assert max(map(size, made)) <= module.MAX_BYTES + 200
    seen: set[str] = set()
    for batch in made:
        ids = {op.connection_id for op in batch.ops}
        assert not ids & seen
        seen |= ids
    assert seen == {one.connection_id for one in here}
    assert [op for batch in made for op in batch.ops] == [op for one in here for op in one.presence_ops()]


def test_a_connection_in_more_rooms_than_fit_a_batch_is_announced_in_order():
    here = [Here("small"), Here("huge", rooms=1200), Here("last")]
    made = drain(BatchQueue("g", "b"), here)
    assert [op for batch in made for op in batch.ops] == [op for one in here for op in one.presence_ops()]
    assert max(len(batch.ops) for batch in made) <= module.MAX_OPS


def test_what_happens_before_a_connection_was_announced_is_part_of_its_announcement():
    here = [Here(f"c{n}", rooms=4) for n in range(300)]
    batches = BatchQueue("g", "b")
    first = batches.next(here)
    told = {op.connection_id for op in first.ops}
    batches.add(Left(connection_id="c0", room="room-1"))  # was announced: must be said
    here[250].rooms.remove("room-1")
    batches.add(Left(connection_id="c250", room="room-1"))
    batches.add(Disconnected(connection_id="c299"))
    batches.add(Connected(connection_id="new", user_id="n", username="N"))
    assert "c0" in told
    assert "c250" not in told
    rest = [op for batch in drain(batches) for op in batch.ops]
    assert Left(connection_id="c0", room="room-1") in rest
    assert Left(connection_id="c250", room="room-1") not in rest
    assert Joined(connection_id="c250", room="room-1") not in rest
    assert not [op for op in rest if op.connection_id == "c299"]
    assert rest[-1] == Connected(connection_id="new", user_id="n", username="N")


def test_a_full_announcement_replaces_the_queue():
    batches = BatchQueue("g", "b")
    drain(batches, [Here("a")])
    batches.add(Joined(connection_id="a", room="r"))
    batches.reannounce()
    (batch,) = drain(batches, [Here("a", rooms=1)])
    assert (batch.fresh, batch.batch) == (True, 2)
    assert [type(op) for op in batch.ops] == [Connected, Joined]


def test_changes_are_bounded_in_number_and_bytes():
    batches = BatchQueue("g", "b")
    drain(batches)
    data = msgspec.Raw(msgspec.json.encode("x" * 4000))
    for n in range(600):
        batches.add(DataSet(connection_id=f"c{n}", custom_data=data))
    for n in range(1200):
        batches.add(Joined(connection_id=f"c{n}", room="ü" * 60))
    for n in range(5000):
        batches.active("u" * 100 + str(n))
    made = drain(batches)
    made.append(batches.next([]))
    assert max(map(size, made)) <= module.MAX_BYTES + module.MAX_ACTIVE_BYTES
    assert sum(len(batch.ops) for batch in made) == 1800
    assert sum(len(batch.active) for batch in made) == 5000
    assert [batch.batch for batch in made] == list(range(2, len(made) + 2))


def test_a_batch_that_the_bus_refuses_does_not_use_its_number():
    batches = BatchQueue("g", "b")
    huge = Here("a", rooms=2, data=msgspec.Raw(msgspec.json.encode("x" * 2_000_000)))
    small = batches.next([huge])
    assert [type(op) for op in small.ops] == [Connected, Joined, Joined, StatusSet]
    large = batches.next([])
    assert [type(op) for op in large.ops] == [DataSet]
    batches.requeue(large)
    assert not batches.has_work
    assert batches.next([]).batch == large.batch


def test_where_the_bus_takes_less_batches_become_smaller():
    batches = BatchQueue("g", "b")
    here = [Here(f"c{n}", rooms=2) for n in range(400)]
    made: list[PresenceBatch] = []
    while batches.has_work:
        batch = batches.next(here)
        if size(batch) > 10_000:
            batches.requeue(batch)
        else:
            made.append(batch)
    assert [op for batch in made for op in batch.ops] == [op for one in here for op in one.presence_ops()]
    assert [batch.batch for batch in made] == list(range(1, len(made) + 1))
    assert [batch.fresh for batch in made] == [True] + [False] * (len(made) - 1)


def test_a_superseded_boot_continues_under_another_name():
    batches = BatchQueue("g", "b")
    drain(batches, [Here("a")])
    batches.use_own_lease()
    (batch,) = drain(batches, [Here("a")])
    assert batch.gateway.startswith("g~")
    assert (batch.batch, batch.fresh, batch.boot != "b") == (1, True, True)
    batches.use_own_lease()
    assert batches.next([]).gateway.count("~") == 1


@pytest.mark.parametrize("work", [Disconnected(connection_id="a"), None])
def test_only_work_is_urgent(work: AnyPresenceOp | None):
    batches = BatchQueue("g", "b")
    assert batches.has_work
    drain(batches)
    batches.active("u")
    assert not batches.has_work
    if work is not None:
        batches.add(work)
        assert batches.has_work


def test_a_connection_that_cannot_be_announced_leaves_the_others():
    class Broken(Here):
        def presence_ops(self) -> Iterable[AnyPresenceOp]:
            yield Connected(connection_id=self.connection_id, user_id="u", username="U")
            raise LookupError("broken")

    made = drain(BatchQueue("g", "b"), [Here("a"), Broken("b"), Here("c")])
    assert [op.connection_id for batch in made for op in batch.ops] == ["a", "c"]


def test_of_what_a_connection_says_of_itself_only_the_last_waits() -> None:
    batches = BatchQueue("gw", "boot")
    batches.next([])
    batches.add(Connected(connection_id="a", user_id="u", username="U"))
    for number in range(1000):
        batches.add(DataSet(connection_id="a", custom_data=number))
        batches.add(StatusSet(connection_id="a", status=Status.AWAY if number % 2 else Status.BUSY))
        batches.add(DataSet(connection_id="b", custom_data=-number))
    batches.add(Joined(connection_id="a", room="r"))
    assert batches.waiting == 5
    assert batches.next([]).ops == [
        Connected(connection_id="a", user_id="u", username="U"),
        DataSet(connection_id="a", custom_data=999),
        StatusSet(connection_id="a", status=Status.AWAY),
        DataSet(connection_id="b", custom_data=-999),
        Joined(connection_id="a", room="r"),
    ]
