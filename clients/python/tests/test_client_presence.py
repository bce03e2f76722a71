"""Presence lists, complete, in parts and as counts: users who enter, leave and stay."""

from typing import cast

import pytest

from tidings_client.channels import Channels
from tidings_client.generated.wire import PresenceList, User, UserOffline, UserOnline
from tidings_client.presence import Presence


def user(name: str) -> User:
    return User(user_id=name, username=name.title(), status="online", last_seen=1)


def listed(
    *names: str, more: bool | None = None, part: int | None = None, count: int | None = None
) -> PresenceList:
    return PresenceList(users=[user(name) for name in names], more=more, part=part, count=count)


@pytest.fixture
def presence() -> Presence:
    return Presence(cast("Channels", None), None)


@pytest.fixture
def heard(presence: Presence) -> list[str]:
    said: list[str] = []
    presence.enters.listen(lambda one: said.append(f"+{one.user_id}"))
    presence.leaves.listen(lambda one: said.append(f"-{one.user_id}"))
    return said


def test_a_list_after_a_reconnect_reports_enters_and_leaves(presence: Presence, heard: list[str]) -> None:
    presence.take(listed("ann", "bob"))
    presence.on_down()
    presence.take(listed("bob", "eve"))
    assert heard == ["+ann", "+bob", "-ann", "+eve"]
    assert list(presence) == ["bob", "eve"]
    assert presence.synced


def test_no_user_leaves_between_the_parts_of_a_list(presence: Presence, heard: list[str]) -> None:
    presence.take(listed("ann", "bob", "eve", "joe"))
    presence.on_down()
    heard.clear()
    presence.take(listed("ann", more=True, count=3))
    assert not presence.synced
    presence.take(UserOnline(user=user("new")))
    presence.take(UserOffline(user_id="bob"))
    presence.take(listed("eve", part=2, count=3))
    assert heard == ["+new", "-bob", "-joe"]
    assert set(presence) == {"ann", "eve", "new"}
    assert (presence.synced, presence.count) == (True, 3)


def test_switching_to_counts_reports_no_leaves(presence: Presence, heard: list[str]) -> None:
    presence.take(listed("ann", "bob"))
    heard.clear()
    presence.take(listed(count=1204))
    assert heard == []
    assert (len(presence), presence.count, presence.synced) == (0, 1204, True)


def test_an_interrupted_list_is_started_again(presence: Presence, heard: list[str]) -> None:
    presence.take(listed("ann", more=True))
    presence.on_down()
    presence.take(listed("bob"))
    assert heard == ["+ann", "-ann", "+bob"]
