"""Writes to a large room bypass the transports only while these buffer nothing."""

import asyncio
import os
import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest

from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage, Encoding
from gateway.delivery.fanout import Fanout
from gateway.delivery.fd_table import NO_FD, acquire, direct_generation
from tests.support.delivery import Recorder, messages_in, said

MANY = 40


class Socketed(Recorder):
    """A member with a socket; what does not go past it is kept in `writes`, as a transport would keep it."""

    def __init__(self, connection_id: str, user_id: str = "u") -> None:
        super().__init__(connection_id, user_id)
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.fd_ref = acquire(self.near.fileno())
        self.is_free()

    def is_free(self) -> None:
        direct_generation[self.fd_ref[0]] = self.fd_ref[1]

    @property
    def received(self) -> list[object]:
        try:
            return [message["content"] for message in messages_in(self.far.recv(1 << 20))]
        except BlockingIOError:
            return []

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def members() -> Iterator[list[Socketed]]:
    made = [Socketed(f"c{number}", f"u{number}") for number in range(MANY)]
    yield made
    for member in made:
        member.close()


def room_of(members: list[Socketed]) -> Fanout:
    room = Fanout(Counters())
    for member in members:
        room.add(member)
    return room


async def sent(room: Fanout, *messages: EncodedMessage) -> None:
    for message in messages:
        room.send(message)
    await asyncio.sleep(0)


async def test_a_member_without_a_queue_is_written_to_at_once(members: list[Socketed]) -> None:
    room = room_of(members)
    await sent(room, said(1), said(2))
    assert [member.received for member in members] == [[1, 2]] * MANY
    assert all(member.writes == [] for member in members)


async def test_members_that_may_have_a_queue_are_asked_first(members: list[Socketed]) -> None:
    room = room_of(members)
    behind = members[3]
    direct_generation[behind.fd_ref[0]] = 0
    await sent(room, said(1))
    assert behind.received == []
    assert behind.contents == [1]
    behind.is_free()
    await sent(room, said(2))
    assert behind.received == [2]


async def test_what_the_kernel_does_not_take_goes_on_by_the_transport(members: list[Socketed]) -> None:
    room = room_of(members)
    slow = members[7]
    slow.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    large = said("x" * 300_000)
    await sent(room, large)
    for member in members:
        if member is not slow:
            member.far.recv(1 << 20)
    first = slow.far.recv(1 << 20)
    assert 0 < len(first) < 300_000
    assert first + b"".join(slow.writes) == large.encode(Encoding.JSON)
    assert direct_generation[slow.fd_ref[0]] == 0
    await sent(room, said(2))
    assert len(slow.writes) == 2  # behind what waits already


async def test_a_socket_whose_peer_is_gone_affects_no_other(members: list[Socketed]) -> None:
    room = room_of(members)
    members[5].far.close()
    await sent(room, said(1))
    assert members[5].contents == [1]  # its transport meets the fault
    others = [member for member in members if member is not members[5]]
    assert [member.received for member in others] == [[1]] * (MANY - 1)


async def test_a_list_that_outlived_a_member_reaches_no_other_connection(members: list[Socketed]) -> None:
    room = room_of(members)
    await sent(room, said(1))
    gone = members[9]
    gone.far.recv(1 << 20)
    descriptor = gone.fd_ref[0]
    stranger, far = socket.socketpair()
    os.dup2(stranger.fileno(), descriptor)  # the same descriptor, another owner
    owner = acquire(descriptor)
    direct_generation[descriptor] = owner[1]
    await sent(room, said("not for you"))
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(1000)
    assert gone.contents == ["not for you"]  # what a closed connection throws away
    stranger.close()
    far.close()


async def test_a_skipped_message_is_skipped_here_too(members: list[Socketed]) -> None:
    room = room_of(members)
    room.send(said(1), skip="c4", sender="u4")
    room.send_except_user(said(2), "u6")
    room.send(said(3))
    await asyncio.sleep(0)
    assert members[4].contents == [2, 3]
    assert members[6].contents == [1, 3]
    assert members[5].received == [1, 2, 3]
    assert members[4].received == members[6].received == []


async def test_other_wires_and_members_without_a_socket_are_served_too(members: list[Socketed]) -> None:
    packed, plain = Recorder("packed", encoding=Encoding.MSGPACK), Recorder("plain")
    room = room_of(members)
    room.add(packed)
    room.add(plain)
    message = said(1)
    await sent(room, message)
    assert packed.writes == [message.encode(Encoding.MSGPACK)]
    assert plain.contents == [1]
    assert members[0].received == [1]


async def test_leaves_and_joins_count_from_then_on(members: list[Socketed]) -> None:
    room = room_of(members[:-1])
    await sent(room, said(1))
    room.discard("c0")
    room.add(members[-1])
    await sent(room, said(2))
    assert members[0].received == [1]
    assert members[1].received == [1, 2]
    assert members[-1].received == [2]


async def test_messages_and_bytes_are_counted(members: list[Socketed]) -> None:
    counters = Counters()
    room = Fanout(counters)
    for member in members:
        room.add(member)
    direct_generation[members[0].fd_ref[0]] = 0
    message = said(1)
    room.send(message, skip="c1", sender="u1")
    await asyncio.sleep(0)
    assert counters.messages_out == MANY - 1
    assert counters.bytes_out == (MANY - 1) * len(message.encode(Encoding.JSON))


def test_turns_of_a_descriptor() -> None:
    descriptor, first = acquire(2000)  # beyond what was there
    assert direct_generation[descriptor] == 0
    generations = [acquire(2000)[1] for _ in range(600)]
    assert 0 not in generations
    assert generations[0] != first
    assert all(one != other for one, other in pairwise(generations))
    assert direct_generation[NO_FD[0]] != NO_FD[1]


def test_the_first_descriptor_is_never_used() -> None:
    """Without standard input, descriptor 0 may be a client's; a member without a socket must not reach it."""
    assert acquire(0) is NO_FD
    assert direct_generation[0] == 0
