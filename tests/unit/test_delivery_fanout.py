"""Fan-out: receivers, order and number of writes."""

import asyncio

from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage, Encoding
from gateway.delivery.fanout import Fanout
from tests.support.delivery import Recorder, said


async def turn() -> None:
    await asyncio.sleep(0)


def fanout(*members: Recorder) -> Fanout:
    made = Fanout(Counters())
    for member in members:
        made.add(member)
    return made


async def test_messages_of_one_turn_are_written_once_and_the_bytes_are_shared() -> None:
    a, b, binary = Recorder("a"), Recorder("b"), Recorder("c", encoding=Encoding.MSGPACK)
    room = fanout(a, b, binary)
    for number in range(3):
        room.send(said(number))
    assert a.writes == []
    await turn()
    assert a.contents == [0, 1, 2]
    assert (len(a.writes), len(binary.writes)) == (1, 1)
    assert a.writes[0] is b.writes[0]
    room.send(said(3))
    await turn()
    assert a.contents == [0, 1, 2, 3]


async def test_one_message_is_the_same_bytes_for_all_members() -> None:
    members = [Recorder(str(number)) for number in range(3)]
    room = fanout(*members)
    message = said("x")
    room.send(message)
    await turn()
    assert all(member.writes == [message.encode(Encoding.JSON)] for member in members)


async def test_the_skipped_connection_gets_only_the_others() -> None:
    a, b = Recorder("a"), Recorder("b")
    room = fanout(a, b)
    room.send(said(1), skip="a", sender="u")
    room.send(said(2))
    room.send(said(3), skip="b", sender="u")
    room.send(said(4), skip="nobody here", sender="u")
    await turn()
    assert (a.contents, b.contents) == ([2, 3, 4], [1, 2, 4])


async def test_a_user_is_skipped_with_all_connections() -> None:
    mine, also_mine, other = Recorder("1", "ann"), Recorder("2", "ann"), Recorder("3", "bob")
    room = fanout(mine, also_mine, other)
    room.send_except_user(said("ann joined"), "ann")
    room.send(said("hello"))
    await turn()
    assert (mine.contents, also_mine.contents, other.contents) == (
        ["hello"],
        ["hello"],
        ["ann joined", "hello"],
    )


async def test_a_new_member_gets_no_earlier_messages_and_a_leaving_one_gets_all() -> None:
    early, late = Recorder("early"), Recorder("late")
    room = fanout(early)
    room.send(said(1))
    room.add(late)
    room.send(said(2))
    room.discard("early")
    room.send(said(3))
    await turn()
    assert (early.contents, late.contents) == ([1, 2], [2, 3])


async def test_a_member_may_go_while_it_is_written_to() -> None:
    a, b, c = Recorder("a"), Recorder("b"), Recorder("c")
    room = fanout(a, b, c)

    def leaves(_data: bytes) -> None:
        room.discard("b")

    b.write = leaves
    room.send(said(1))
    await turn()
    room.send(said(2))
    await turn()
    assert (a.contents, c.contents) == ([1, 2], [1, 2])
    assert "b" not in room


async def test_a_member_that_accepts_single_messages_is_not_written_to() -> None:
    class Taker(Recorder):
        def accept_messages(self, messages: list[EncodedMessage]) -> bool:
            self.taken = len(messages)
            return True

    taker, plain = Taker("t"), Recorder("p")
    room = fanout(taker, plain)
    room.send(said(1))
    room.send(said(2))
    await turn()
    assert (taker.taken, taker.writes, plain.contents) == (2, [], [1, 2])


async def test_a_sender_cannot_exclude_another_users_connection() -> None:
    victim = Recorder("a", user_id="victim")
    room = fanout(victim)
    room.send(said(1), skip="a", sender="attacker")
    room.send(said(2), skip="a")
    room.send(said(3), skip="a", sender="victim")
    await turn()
    assert victim.contents == [1, 2]


async def test_without_members_nothing_is_kept_and_what_leaves_is_counted() -> None:
    counters = Counters()
    room = Fanout(counters)
    room.send(said(1))
    member = Recorder("a")
    room.add(member)
    room.add(Recorder("b"))
    room.send(said(2), skip="b", sender="u")
    room.send(said(3))
    await turn()
    assert member.contents == [2, 3]
    assert counters.messages_out == 3
    assert counters.bytes_out == len(b"".join(member.writes)) + len(said(3).encode(Encoding.JSON))
