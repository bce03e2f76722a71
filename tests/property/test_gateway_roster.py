"""A roster after its diffs equals the snapshot, and so does the state of followers."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.channels.roster import Roster, changes_between
from services.wire.events import PresenceChange, PresenceDiff
from services.wire.records import Status, User
from services.wire.server import PresenceUpdated, StatusChanged, UserOffline, UserOnline

_ids = st.sampled_from(["ann", "bob", "eve", "joe"])
_statuses = st.sampled_from(list(Status))


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[PresenceChange, dict[str, User]]]:
    """Changes as presence_svc makes them, each with the users after it."""
    users: dict[str, User] = {}
    history: list[tuple[PresenceChange, dict[str, User]]] = []
    for _ in range(draw(st.integers(0, 25))):
        user_id = draw(_ids)
        change: PresenceChange
        if user_id not in users:
            users[user_id] = User(user_id=user_id, username=user_id, status=draw(_statuses), last_seen=1)
            change = UserOnline(user=users[user_id])
        else:
            match draw(st.integers(0, 2)):
                case 0:
                    del users[user_id]
                    change = UserOffline(user_id=user_id)
                case 1:
                    status = draw(_statuses)
                    users[user_id] = _changed(users[user_id], status=status)
                    change = StatusChanged(user_id=user_id, status=status)
                case _:
                    data = draw(st.integers(0, 3))
                    users[user_id] = _changed(users[user_id], custom_data=data)
                    change = PresenceUpdated(user_id=user_id, custom_data=data)
        history.append((change, dict(users)))
    return history


def _changed(user: User, **fields: Any) -> User:
    known = {"status": user.status, "custom_data": user.custom_data} | fields
    return User(user_id=user.user_id, username=user.username, last_seen=1, **known)


def tell(seen: dict[str, User], changes: list[PresenceChange]) -> None:
    """Apply a follower's messages as a client would."""
    for change in changes:
        match change:
            case UserOnline(user=user):
                seen[user.user_id] = user
            case UserOffline(user_id=user_id):
                del seen[user_id]
            case StatusChanged(user_id=user_id, status=status):
                seen[user_id] = _changed(seen[user_id], status=status)
            case PresenceUpdated(user_id=user_id, custom_data=data):
                seen[user_id] = _changed(seen[user_id], custom_data=data)


@given(histories(), st.data())
def test_diffs_and_snapshots_agree(
    history: list[tuple[PresenceChange, dict[str, User]]], data: st.DataObject
) -> None:
    roster = Roster()
    start = data.draw(st.integers(0, len(history)), label="version of the first snapshot")
    roster.replace("e", start, list(history[start - 1][1].values()) if start else [])
    seen = dict(roster.users)
    version = start
    while version < len(history):
        first = max(0, version - data.draw(st.integers(0, 2), label="repeated"))
        last = data.draw(st.integers(version, len(history) - 1), label="last of the diff")
        diff = PresenceDiff(
            epoch="e", version=last + 1, changes=[change for change, _ in history[first : last + 1]]
        )
        if data.draw(st.integers(0, 4), label="lost") == 0:
            later = PresenceDiff(epoch="e", version=len(history) + 1, changes=[UserOffline(user_id="x")])
            if len(history) > version:
                assert roster.apply(later) is None  # a gap is noticed, and nothing of the diff applied
            before = roster.users
            roster.replace("e", last + 1, list(history[last][1].values()))
            tell(seen, list(changes_between(before, roster.users)))
        else:
            changes = roster.apply(diff)
            assert changes is not None
            tell(seen, changes)
        version = last + 1
        assert roster.version == version
        assert roster.users == seen == history[last][1]


def test_another_epoch_is_no_continuation() -> None:
    roster = Roster()
    roster.replace("e", 3, [])
    assert roster.apply(PresenceDiff(epoch="f", version=4, changes=[UserOffline(user_id="x")])) is None
    assert roster.apply(PresenceDiff(epoch="e", version=2, changes=[UserOffline(user_id="x")])) == []
    assert roster.version == 3
