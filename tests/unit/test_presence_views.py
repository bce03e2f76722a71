"""Messages to followers of `presence`: lists, complete or in parts, changes, and counts of large lists."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from gateway.channels import presence as module
from gateway.channels.presence import PresenceChannels
from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage, Encoding
from services.bus.errors import BusError, NoAnswer
from services.settings import Settings
from services.tasks import TaskSet
from services.wire.events import PresenceDiff
from services.wire.records import Status, User
from services.wire.rpc import PresenceApplied, PresencePage, PresenceQuery
from services.wire.server import StatusChanged, UserOffline, UserOnline
from tests.support.deadline import eventually


def user(name: str, *, data: Any = msgspec.UNSET, seen: int = 1) -> User:
    return User(user_id=name, username=name.title(), status=Status.ONLINE, last_seen=seen, custom_data=data)


class Presence:
    """presence_svc and the bus, for one scope."""

    def __init__(self) -> None:
        self.users: list[User] = []
        self.version = 0
        self.epoch = "e"
        self.counts_only = False
        self.fault: BusError | None = None
        self.asked: list[PresenceQuery] = []
        self.open = False
        self.listeners: dict[str, Callable[[Any], None]] = {}

    def subscribe(self, subject: str, callback: Callable[[Any], None]) -> Any:
        self.listeners[subject] = callback
        presence = self

        class Subscription:
            def close(self) -> None:
                presence.listeners.pop(subject, None)

        return Subscription()

    async def call(self, _endpoint: object, query: PresenceQuery) -> PresencePage:
        self.asked.append(query)
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        users = [] if self.counts_only else self.users
        return PresencePage(
            epoch=self.epoch,
            version=self.version,
            users=users,
            count=len(self.users),
            counts_only=self.counts_only,
        )

    def is_answering(self, _service: str) -> bool:
        return not self.open

    def tell(self, *changes: Any, count: int | None = None, version: int = 0) -> None:
        self.version = version or self.version + (len(changes) or 1)
        fields = {} if count is None else {"count": count}
        diff = PresenceDiff(epoch=self.epoch, version=self.version, changes=list(changes), **fields)
        for callback in list(self.listeners.values()):
            callback(type("Message", (), {"data": msgspec.json.encode(diff)}))


class Member:
    """A receiver."""

    encoding = Encoding.SSE

    def __init__(self, connection_id: str = "c1") -> None:
        self.connection_id = connection_id
        self.user_id = "u"
        self.got: list[dict[str, Any]] = []

    def write(self, data: bytes) -> None:
        for event in data.decode().strip().split("\n\n"):
            self.got.append(msgspec.json.decode(event.partition("data: ")[2]))

    def accept_messages(self, messages: list[EncodedMessage]) -> bool:
        return False

    def types(self) -> list[str]:
        return [message["type"] for message in self.got]


@pytest.fixture
def presence() -> Presence:
    return Presence()


@pytest.fixture
async def views(presence: Presence) -> AsyncIterator[PresenceChannels]:
    tasks = TaskSet()
    yield PresenceChannels(presence, presence, Settings(), tasks, Counters())  # type: ignore[arg-type]
    await tasks.close()


async def followed(views: PresenceChannels, member: Member, room: str = "") -> Member:
    views.follow(member, room)
    await eventually(lambda: member.got, "the list")
    return member


async def test_a_list_and_then_every_change(presence: Presence, views: PresenceChannels):
    presence.users = [user("ann"), user("bob")]
    member = await followed(views, Member(), "lobby")
    assert [one["userId"] for one in member.got[0]["users"]] == ["ann", "bob"]
    assert set(member.got[0]) == {"type", "users", "room"}
    assert presence.asked[0].for_follower
    presence.tell(UserOnline(user=user("eve")), StatusChanged(user_id="ann", status=Status.BUSY))
    presence.tell(UserOffline(user_id="bob"))
    await eventually(lambda: len(member.got) == 4)
    assert member.types()[1:] == ["user_online", "status_changed", "user_offline"]
    assert (member.got[1]["room"], member.got[3]["room"]) == ("lobby", "lobby")


async def test_a_long_list_comes_in_pages_and_changes_between_them_are_in_it(
    presence: Presence, views: PresenceChannels, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_PAGE_EVERY_S", 0.01)
    presence.users = [user(f"u{n:03}", data="x" * 2000) for n in range(200)]
    member = await followed(views, Member())
    presence.tell(UserOnline(user=user("u150x")), UserOffline(user_id="u199"), UserOffline(user_id="u000"))
    await eventually(lambda: "more" not in [m for m in member.got if m["type"] == "presence_list"][-1])
    pages = [message for message in member.got if message["type"] == "presence_list"]
    assert [page.get("part", 1) for page in pages] == list(range(1, len(pages) + 1))
    assert "part" not in pages[0]
    assert [page.get("more", False) for page in pages] == [True] * (len(pages) - 1) + [False]
    assert pages[0]["count"] == 200
    assert max(len(msgspec.json.encode(page)) for page in pages) < 70_000
    seen: dict[str, Any] = {}
    for message in member.got:  # as a client applies them
        if message["type"] == "presence_list":
            seen |= {one["userId"]: one for one in message["users"]}
        elif message["type"] == "user_online":
            seen[message["user"]["userId"]] = message["user"]
        else:
            seen.pop(message["userId"], None)
    assert sorted(seen) == sorted([*(f"u{n:03}" for n in range(1, 199)), "u150x"])


async def test_of_a_large_scope_followers_get_its_count_and_again_when_it_changed(
    presence: Presence, views: PresenceChannels, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_COUNT_EVERY_S", 0.05)
    presence.counts_only, presence.users = True, [user("ann")] * 3000
    member = await followed(views, Member(), "hall")
    assert member.got == [{"type": "presence_list", "users": [], "room": "hall", "count": 3000}]
    for count in range(3001, 3050):
        presence.tell(count=count)
    presence.tell(count=3049)
    await eventually(lambda: len(member.got) > 1)
    assert member.got[1]["count"] == 3049
    await asyncio.sleep(0.1)
    assert len(member.got) == 2


async def test_lists_end_when_a_scope_becomes_large_and_return_below_the_limit(
    presence: Presence, views: PresenceChannels
):
    presence.users = [user("ann"), user("bob")]
    member = await followed(views, Member(), "hall")
    presence.tell(count=2001, version=500)
    assert member.got[-1] == {"type": "presence_list", "users": [], "room": "hall", "count": 2001}
    presence.users = [user("eve")]
    presence.tell(UserOffline(user_id="x"), version=700)
    await eventually(lambda: member.got[-1]["users"])
    assert [one["userId"] for one in member.got[-1]["users"]] == ["eve"]
    assert "count" not in member.got[-1]
    presence.tell(UserOnline(user=user("ann")))
    await eventually(lambda: member.types()[-1] == "user_online")


async def test_a_later_follower_gets_a_list_that_is_no_older(
    presence: Presence, views: PresenceChannels, monkeypatch: pytest.MonkeyPatch
):
    presence.users = [user("ann", seen=1)]
    first = await followed(views, Member("c1"))
    presence.users = [user("ann", seen=99)]
    second = await followed(views, Member("c2"))
    assert second.got[0]["users"][0]["lastSeen"] == 1  # a moment old
    monkeypatch.setattr(module, "_FRESH_S", 0.0)
    third = await followed(views, Member("c3"))
    assert third.got[0]["users"][0]["lastSeen"] == 99
    assert len(first.got) == 1  # lastSeen alone is no change


async def test_changes_go_on_while_a_newer_list_is_on_its_way(
    presence: Presence, views: PresenceChannels, monkeypatch: pytest.MonkeyPatch
):
    presence.users = [user("ann")]
    first = await followed(views, Member("c1"))
    monkeypatch.setattr(module, "_FRESH_S", 0.0)
    presence.fault = NoAnswer("x", "away")
    second = Member("c2")
    views.follow(second, "")
    await eventually(lambda: second.got)
    presence.tell(UserOnline(user=user("bob")))
    await eventually(lambda: first.types() == ["presence_list", "user_online"])
    presence.fault = None  # and its list is from before bob came
    presence.version = 0
    await eventually(lambda: "presence_list" in second.types())
    assert [one["userId"] for one in second.got[-1]["users"]] == ["ann", "bob"]
    assert first.types() == ["presence_list", "user_online"]


async def test_while_presence_is_away_followers_are_notified_once(
    presence: Presence, views: PresenceChannels
):
    presence.fault = NoAnswer("x", "away")
    member = await followed(views, Member())
    assert (member.got[0]["type"], member.got[0]["code"], member.got[0]["retryable"]) == (
        "error", "unavailable", True,
    )  # fmt: skip
    asked = len(presence.asked)
    await eventually(lambda: len(presence.asked) > asked + 1)
    assert len(member.got) == 1
    presence.fault, presence.users = None, [user("ann")]
    await eventually(lambda: member.types() == ["error", "presence_list"])


async def test_a_list_at_hand_is_not_served_while_presence_is_known_to_be_away(
    presence: Presence, views: PresenceChannels
):
    await followed(views, Member("c1"))
    presence.open, presence.fault = True, NoAnswer("x", "away")
    second = await followed(views, Member("c2"))
    assert second.types() == ["error"]


async def test_a_gap_is_filled_and_followers_receive_the_difference(
    presence: Presence, views: PresenceChannels
):
    presence.users = [user("ann"), user("bob", data={"a": 1})]
    member = await followed(views, Member())
    presence.users = [user("bob"), user("eve")]
    presence.tell(UserOnline(user=user("eve")), version=9)
    await eventually(lambda: len(member.got) == 4)
    told = sorted((m["type"], m.get("userId") or m["user"]["userId"]) for m in member.got[1:])
    assert told == [("user_offline", "ann"), ("user_online", "bob"), ("user_online", "eve")]


async def test_the_last_follower_ends_the_view(presence: Presence, views: PresenceChannels):
    await followed(views, Member("c1"), "lobby")
    await followed(views, Member("c2"), "lobby")
    views.unfollow("c1", "lobby")
    assert presence.listeners
    views.unfollow("c2", "lobby")
    assert not presence.listeners


async def test_after_lost_data_no_user_seems_to_leave_while_gateways_announce_again(
    presence: Presence, views: PresenceChannels, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_SETTLE_S", 1.0)  # time for the test to look between the two lists
    presence.users = [user("ann"), user("bob"), user("gone")]
    member = await followed(views, Member())
    presence.epoch, presence.users = "f", [user("ann")]
    presence.tell(UserOnline(user=user("ann")), version=1)
    await eventually(lambda: len(presence.asked) == 2)
    presence.users = [user("ann"), user("bob")]
    presence.tell(UserOnline(user=user("bob")), version=2)
    await eventually(lambda: len(member.got) > 1)
    assert [(m["type"], m["userId"]) for m in member.got[1:]] == [("user_offline", "gone")]


async def test_after_any_fault_the_next_follower_gets_a_list(presence: Presence, views: PresenceChannels):
    presence.fault = LookupError("broken")  # type: ignore[assignment]
    first = Member("c1")
    views.follow(first)
    await eventually(lambda: presence.asked and not views._views[""]._loading)
    presence.fault = None
    second = await followed(views, Member("c2"))
    assert second.types() == first.types() == ["presence_list"]


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch):
    for name in ("_SETTLE_S", "_ARRIVES_S"):
        monkeypatch.setattr(module, name, 0.0)


@pytest.mark.usefixtures("_at_once")
async def test_a_new_epoch_is_news_to_every_room_that_is_followed(
    presence: Presence, views: PresenceChannels
):
    presence.users = [user("ann")]
    member = await followed(views, Member(), "lobby")
    views.on_applied(PresenceApplied(known=True, epoch="e", version=0))
    presence.epoch, presence.users = "f", [user("bob")]  # no diff says so in this room
    views.on_applied(PresenceApplied(known=True, epoch="f", version=7))
    await eventually(lambda: member.types()[1:] == ["user_offline", "user_online"], "the difference")


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("room", ["", "lobby"])
async def test_a_version_below_the_one_before_is_a_reason_to_ask(
    presence: Presence, views: PresenceChannels, room: str
):
    presence.users, presence.version = [user("ann")], 9
    member = await followed(views, Member(), room)
    views.on_applied(PresenceApplied(known=True, epoch="e", version=9))
    presence.users, presence.version = [user("bob")], 5  # the store was set back
    views.on_applied(PresenceApplied(known=True, epoch="e", version=5))
    await eventually(lambda: member.types()[1:] == ["user_offline", "user_online"], "the difference")
    asked = len(presence.asked)
    views.on_applied(PresenceApplied(known=True, epoch="e", version=5))
    await asyncio.sleep(0.01)
    assert len(presence.asked) == asked


@pytest.mark.usefixtures("_at_once")
async def test_an_answer_older_than_diffs_that_overtook_it_is_no_reason_to_ask(
    presence: Presence, views: PresenceChannels
):
    member = await followed(views, Member())
    views.on_applied(PresenceApplied(known=True, epoch="e", version=0))
    presence.tell(UserOnline(user=user("ann")))
    presence.tell(UserOnline(user=user("bob")))
    views.on_applied(PresenceApplied(known=True, epoch="e", version=1))
    await eventually(lambda: len(member.got) == 3, "both")
    assert len(presence.asked) == 1
