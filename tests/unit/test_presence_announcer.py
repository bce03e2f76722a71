"""The messages that announce changes."""

from typing import Any

import msgspec

from presence_svc.announcer import messages
from presence_svc.changes import Changes, user_record
from services.wire.events import PresenceDiff
from services.wire.records import Status
from services.wire.server import StatusChanged, UserJoined, UserLeft, UserOffline, UserOnline
from services.wire.subjects import Subjects

SUBJECTS = Subjects("t")


def published(changes: Changes, max_bytes: int = 100_000) -> list[tuple[str, Any]]:
    found = messages(
        changes, SUBJECTS, lambda room: "live" if room.startswith("live:") else "default", max_bytes
    )
    return [(subject, msgspec.json.decode(payload)) for subject, payload in found]


def test_nothing_becomes_no_message():
    assert published(Changes("e", 7)) == []


def test_each_scope_gets_one_diff_and_members_a_notice_each():
    user = user_record("ann", "Ann", Status.ONLINE, 5, '{"a": 1}')
    changes = Changes(
        "e",
        8,
        users=[UserOnline(user=user), UserOffline(user_id="bob")],
        rooms=[
            PresenceDiff(epoch="e", version=3, changes=[UserOnline(user=user, room="live:x")], room="live:x")
        ],
        notices=[UserJoined(user_id="ann", username="Ann", room="live:x")],
    )
    shown = {
        "userId": "ann",
        "username": "Ann",
        "status": "online",
        "lastSeen": 5,
        "customData": {"a": 1},
    }
    assert published(changes) == [
        (
            "t.out.members.live.live=3Ax",
            {"type": "user_joined", "userId": "ann", "username": "Ann", "room": "live:x"},
        ),
        (
            "t.presence.diff",
            {
                "type": "presence_diff",
                "epoch": "e",
                "version": 8,
                "changes": [
                    {"type": "user_online", "user": shown},
                    {"type": "user_offline", "userId": "bob"},
                ],
            },
        ),
        (
            "t.presence.room.live.live=3Ax",
            {
                "type": "presence_diff",
                "epoch": "e",
                "version": 3,
                "changes": [{"type": "user_online", "user": shown, "room": "live:x"}],
                "room": "live:x",
            },
        ),
    ]


def test_a_user_without_data_shows_none():
    user = user_record("ann", "Ann", Status.AWAY, 5, "")
    assert "customData" not in msgspec.json.decode(msgspec.json.encode(user))


def test_a_leave_goes_to_the_room_too():
    changes = Changes("e", 0, notices=[UserLeft(user_id="ann", username="Ann", room="lobby")])
    ((subject, notice),) = published(changes)
    assert subject == "t.out.members.default.lobby"
    assert notice["type"] == "user_left"


def test_a_diff_over_the_limit_is_split_in_the_order_of_versions():
    changes = [StatusChanged(user_id=f"user-{i:03}", status=Status.AWAY) for i in range(101)]
    found = messages(Changes("e", 500, users=changes), SUBJECTS, lambda _: "default", 1000)
    payloads = [payload for _, payload in found]
    assert len(payloads) > 1
    assert max(map(len, payloads)) <= 1000
    version, seen = 500 - 101, []
    for diff in (msgspec.json.decode(payload, type=PresenceDiff) for payload in payloads):
        assert diff.version - len(diff.changes) == version
        version = diff.version
        seen += diff.changes
    assert (version, seen) == (500, changes)


def test_one_change_over_the_limit_still_goes_out():
    changes = Changes("e", 1, users=[UserOffline(user_id="x" * 200)])
    assert len(published(changes, max_bytes=100)) == 1
