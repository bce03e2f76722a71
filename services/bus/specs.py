"""The list of streams: what each must be, and how an existing one may be changed. Pure.

Every part that creates, watches, backs up, checks or uses streams gets them from `all_specs` or `disk_specs`.
"""

from dataclasses import dataclass
from typing import Any, Literal

from services.settings import Settings
from services.wire.subjects import republished_subject

_NS = 1_000_000_000

# As for the messages of a room.
INBOX_SIZE = 100
INBOX_TTL_S = 600
# Some 400,000 revocations. Their own stream: full rooms must not prevent a revocation.
REVOCATION_BYTES = 64 * 1024 * 1024
# Some 100,000 tickets, and the maximum of `ticket_ttl_s`: the stream drops them after it, whatever the setting.
TICKET_BYTES = 64 * 1024 * 1024
TICKET_TTL_S = 300

# Limits that no gateway lowers: that would delete messages or copies at once. In the second set, 0 and -1 mean no limit.
_RAISED = frozenset({"num_replicas", "max_msgs_per_subject", "max_age", "max_bytes", "duplicate_window"})
_UNLIMITED = frozenset({"max_msgs_per_subject", "max_age", "max_bytes"})


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """What a stream must be. `captured` is a subject with a wildcard, see wire.subjects.

    A full stream drops its oldest messages, or with `discard` "new" refuses new ones. A stream in memory is not
    republished, read in batches or backed up.
    """

    name: str
    captured: str
    max_per_subject: int
    max_age_s: int
    duplicate_window_s: int
    replicas: int
    max_bytes: int = 64 * 1024 * 1024
    discard: Literal["old", "new"] = "old"
    storage: Literal["file", "memory"] = "file"

    def config(self) -> dict[str, Any]:
        """Return JetStream's configuration. The server refuses a duplicate window longer than the age."""
        common = {
            "name": self.name,
            "subjects": [self.captured],
            "storage": self.storage,
            "discard": self.discard,
            "max_msgs_per_subject": self.max_per_subject,
            "max_age": self.max_age_s * _NS,
            "max_bytes": self.max_bytes,
            "num_replicas": self.replicas,
        }
        if self.storage == "memory":
            return common
        return common | {
            "retention": "limits",
            "duplicate_window": min(self.duplicate_window_s, self.max_age_s) * _NS,
            "allow_direct": True,
            "republish": {"src": self.captured, "dest": republished_subject(self.captured)},
        }


def room_specs(settings: Settings) -> dict[str, StreamSpec]:
    """Return the stream of each durable namespace."""
    subjects = settings.subjects
    return {
        name: StreamSpec(
            name=subjects.rooms_stream(name),
            captured=subjects.rooms_captured(name),
            max_per_subject=namespace.history_size,
            max_age_s=namespace.history_ttl_s,
            duplicate_window_s=settings.duplicate_window_s,
            replicas=settings.replicas,
            max_bytes=namespace.max_bytes or settings.history_max_bytes,
        )
        for name, namespace in settings.namespaces.items()
        if namespace.durable
    }


def inbox_spec(settings: Settings) -> StreamSpec:
    """Return the stream of all users' inboxes."""
    subjects = settings.subjects
    return StreamSpec(
        name=subjects.inbox_stream,
        captured=subjects.inboxes_captured,
        max_per_subject=INBOX_SIZE,
        max_age_s=INBOX_TTL_S,
        duplicate_window_s=settings.duplicate_window_s,
        replicas=settings.replicas,
        max_bytes=settings.inbox_max_bytes,
    )


def revocation_spec(settings: Settings) -> StreamSpec:
    """Return the stream of revocations. When full it refuses new ones: none is dropped before its time."""
    subjects = settings.subjects
    return StreamSpec(
        name=subjects.revocations_stream,
        captured=subjects.revoked_in("*"),
        max_per_subject=1,
        max_age_s=settings.revocation_s,
        duplicate_window_s=settings.duplicate_window_s,
        replicas=settings.replicas,
        max_bytes=REVOCATION_BYTES,
        discard="new",
    )


def ticket_spec(settings: Settings) -> StreamSpec:
    """Return the stream of tickets: in memory, because a ticket is not worth a disk write. When full it refuses."""
    subjects = settings.subjects
    return StreamSpec(
        name=subjects.tickets_stream,
        captured=f"{subjects.tickets}.*",
        max_per_subject=1,
        max_age_s=TICKET_TTL_S,
        duplicate_window_s=0,
        replicas=settings.replicas,
        max_bytes=TICKET_BYTES,
        discard="new",
        storage="memory",
    )


def all_specs(settings: Settings) -> list[StreamSpec]:
    """Return every stream."""
    return [
        *room_specs(settings).values(),
        inbox_spec(settings),
        ticket_spec(settings),
        revocation_spec(settings),
    ]


def disk_specs(settings: Settings) -> list[StreamSpec]:
    """Return the streams on disk: gateways watch their leaders, `tidings backup` keeps them."""
    return [spec for spec in all_specs(settings) if spec.storage == "file"]


@dataclass(frozen=True, slots=True)
class StreamChanges:
    """How to make a stream fit its specification, by JetStream's option.

    `update` has the values to send; `lowered` the pairs (in force, wanted) that need an explicit act.
    """

    update: dict[str, Any]
    lowered: dict[str, tuple[Any, Any]]


def changes(config: dict[str, Any], spec: StreamSpec, stored_bytes: int) -> StreamChanges:
    """Compare a stream's configuration in force with its specification.

    A first size limit is sent if all stored messages fit. Otherwise limits are never lowered, so that gateways with
    different settings do not undo each other's.
    """
    update: dict[str, Any] = {}
    lowered: dict[str, tuple[Any, Any]] = {}
    for name, wanted in spec.config().items():
        found = config.get(name)
        if found == wanted:
            continue
        unlimited = name in _UNLIMITED and (found or 0) <= 0
        if name == "max_bytes" and unlimited and stored_bytes <= wanted:
            update[name] = wanted
        elif name in _RAISED and (unlimited or (found or 0) > wanted):
            lowered[name] = (found, wanted)
        else:
            update[name] = wanted
    return StreamChanges(update, lowered)
