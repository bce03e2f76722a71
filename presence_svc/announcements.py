"""Changes as messages on the bus: pure, so that what followers hear can be tested without one."""

from collections.abc import Callable, Iterator

import msgspec

from presence_svc.changes import Changes
from services.wire.events import PresenceChange, PresenceDiff
from services.wire.records import UNSET, UnsetType
from services.wire.subjects import Subjects

_ENCODER = msgspec.json.Encoder()

Message = tuple[str, bytes]


def messages(
    changes: Changes, subjects: Subjects, namespace_of: Callable[[str], str], max_bytes: int
) -> Iterator[Message]:
    """Yield (subject, payload) of everything that `changes` means to others.

    Members of a room hear who joined and left; followers of a scope get its changes as one diff, or several
    in the order of versions where one would be over `max_bytes`. Of large scopes the diff says the count.
    """
    for notice in changes.notices:
        yield subjects.room_members(namespace_of(notice.room), notice.room), _ENCODER.encode(notice)
    for payload in _diffs(changes.epoch, changes.version, changes.users, UNSET, changes.count, max_bytes):
        yield subjects.presence_diff, payload
    for scope in changes.rooms:
        subject = subjects.presence_room(namespace_of(scope.room), scope.room)
        for payload in _diffs(
            changes.epoch, scope.version, scope.changes, scope.room, scope.count, max_bytes
        ):
            yield subject, payload


def _diffs(
    epoch: str,
    version: int,
    changes: list[PresenceChange],
    room: str | UnsetType,
    count: int | None,
    max_bytes: int,
) -> Iterator[bytes]:
    if count is not None:
        yield _ENCODER.encode(PresenceDiff(epoch=epoch, version=version, changes=[], room=room, count=count))
    elif changes:
        yield from _split(epoch, version, changes, room, max_bytes)


def _split(
    epoch: str, version: int, changes: list[PresenceChange], room: str | UnsetType, max_bytes: int
) -> Iterator[bytes]:
    payload = _ENCODER.encode(PresenceDiff(epoch=epoch, version=version, changes=changes, room=room))
    if len(payload) <= max_bytes or len(changes) == 1:
        yield payload
        return
    half = len(changes) // 2
    yield from _split(epoch, version - (len(changes) - half), changes[:half], room, max_bytes)
    yield from _split(epoch, version, changes[half:], room, max_bytes)
