"""Guards of delivery: messages to members, reads of streams, and their sizes."""

from tests.guards.guard import RATES as _RATES
from tests.guards.guard import SERVERS, guard

_FOLLOWER = "tests/unit/test_delivery_subscription.py"
_LIMITS = "tests/integration/bus/test_bus_stream_limits.py"
_READS = "tests/integration/gateway/test_reads_bounded.py"
_READS_UNIT = "tests/unit/test_delivery_reads.py"
_SSE = "tests/integration/gateway/test_sse_streams.py"
_ROOMS = "tests/unit/test_delivery_rooms.py"

GUARDS = (
    guard(
        "messages that no stream stored",
        f"{_FOLLOWER}::test_a_message_that_no_stream_stored_is_not_delivered",
        edits=[
            (
                "gateway/delivery/stream_subscription.py",
                "if seq == 0 and self.durable_log is not None:",
                "if False:",
            )
        ],
    ),
    guard(
        "one message becomes MessagePack in each turn of the loop",
        f"{_FOLLOWER}::test_what_was_missed_becomes_messagepack_one_message_in_each_turn_of_the_loop",
        edits=[
            (
                "gateway/delivery/catch_up.py",
                "            if packed:",
                "            if False:",
            )
        ],
    ),
    guard(
        "messages where joins are told",
        f"{_ROOMS}::test_joins_have_a_subject_that_carries_no_messages",
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
    guard(
        "a limit by size for streams",
        f"{_LIMITS}::test_a_full_store_blocks_nothing_else",
        edits=[
            (
                "services/bus/specs.py",
                '            "max_bytes": self.max_bytes,\n',
                '            "max_bytes": -1,\n',
            )
        ],
    ),
    guard(
        "bytes of one read, and places for reads",
        f"{_READS}::test_many_recoveries_of_one_client",
        f"{_READS}::test_history_that_is_not_read",
        edits=[
            ("services/bus/streams.py", '"batch": limit, "max_bytes": max_bytes}', '"batch": limit}'),
            ("gateway/delivery/reads.py", "await slots.acquire()", "pass"),
        ],
    ),
    guard(
        "bytes of a page of history",
        f"{_READS}::test_pages_of_history_are_bounded_by_bytes_and_miss_nothing",
        edits=[
            (
                "gateway/delivery/newest.py",
                "if len(kept) >= limit or (size > max_bytes and kept):",
                "if len(kept) >= limit:",
            )
        ],
    ),
    guard(
        "reads counted against the rate",
        f"{_RATES}::test_what_was_read_for_a_connection_counts_against_its_rate",
        edits=[
            (
                "gateway/client/commands.py",
                "self._bucket.charge(size / self._settings.max_message_bytes, now)",
                "pass",
            )
        ],
    ),
    guard(
        "one recovery of a connection at a time, a few of a gateway",
        f"{_READS_UNIT}::test_one_recovery_of_a_connection_at_a_time",
        f"{_READS_UNIT}::test_a_few_recoveries_of_a_gateway_at_a_time",
        f"{_READS_UNIT}::test_too_many_recoveries_of_a_connection_are_refused",
        edits=[
            ("gateway/delivery/reads.py", "async with turns.lock:", "async with asyncio.Lock():"),
            ("gateway/delivery/reads.py", "if turns.waiting >= _WAITING:", "if False:"),
            ("gateway/delivery/reads.py", "await slots.acquire()", "pass"),
        ],
    ),
    guard(
        "short ids of streams",
        f"{_SSE}::test_a_stream_that_could_not_be_resumed_is_refused",
        "tests/unit/test_sse_parts.py::test_an_id_of_a_hundred_long_names_is_short",
        edits=[
            ("gateway/sse/endpoints.py", "if longest > room:", "if False:"),
            ("gateway/sse/event_id.py", "_HASH_BYTES = 6", "_HASH_BYTES = 32"),
        ],
    ),
)
