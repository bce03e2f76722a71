"""Guards of the streams: of what reaches members, of what is read back, and of the room that it all takes."""

from tests.guards.guard import SERVERS, guard

_FOLLOWER = "tests/unit/test_delivery_follower.py"
_ROOMS = "tests/unit/test_delivery_rooms.py"

GUARDS = (
    guard(
        "messages that no stream stored",
        f"{_FOLLOWER}::test_a_message_that_no_stream_stored_reaches_nobody",
        edits=[
            (
                "gateway/delivery/follower.py",
                "if seq == 0 and self._log is not None:",
                "if False:",
            )
        ],
    ),
    guard(
        "messages where joins are told",
        f"{_ROOMS}::test_who_joins_is_heard_on_a_subject_that_carries_no_messages",
        edits=[
            (
                "gateway/delivery/rooms.py",
                "_decode_notice = msgspec.json.Decoder(MembersEvent).decode",
                "_decode_notice = msgspec.json.Decoder(MembersEvent | RoomPublished).decode",
            )
        ],
    ),
    guard(
        "subjects of presence_svc",
        f"{SERVERS}::test_what_a_role_may_not_say",
        edits=[
            (
                "services/permissions/nats.py",
                'f"{prefix}.out.members.>")',
                'f"{prefix}.out.>")',
            )
        ],
    ),
)
