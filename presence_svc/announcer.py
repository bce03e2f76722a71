"""Publishing what steps of the store changed, and acknowledging it once the bus has it.

A step's changes wait in the store until they are acknowledged. A replica that dies between its step and the bus, or
whose answer from Redis was lost, leaves them to the next sweep of any replica: everything is published at least once.
"""

import asyncio
from collections.abc import Callable, Iterator

import msgspec
import structlog

from presence_svc.changes import Changes, PresenceStoreUnavailable
from presence_svc.store import PresenceStore
from services.bus.client import Bus
from services.bus.errors import BusError, PayloadTooLarge, Unavailable
from services.settings import Settings
from services.telemetry import MetricName, counter
from services.wire.events import PresenceDiff
from services.wire.records import UNSET
from services.wire.subjects import Subjects

log = structlog.get_logger(__name__)

# A diff goes to every follower; smaller ones let other messages pass between them.
MAX_DIFF_BYTES = 256 * 1024
# Acknowledgements gather for so long: at any rate of steps they cost a flush and a script twenty times a second.
GATHER_S = 0.05
MAX_ACKED_AT_ONCE = 1000

_ENCODER = msgspec.json.Encoder()


def messages(
    changes: Changes, subjects: Subjects, namespace_of: Callable[[str], str], max_bytes: int
) -> Iterator[tuple[str, bytes]]:
    """Yield (subject, payload) of each message that announces `changes`.

    Members of a room get who joined and left; followers of a scope get its changes as one diff, or several
    in the order of versions where one would be over `max_bytes`.
    """
    for notice in changes.notices:
        yield subjects.room_members(namespace_of(notice.room), notice.room), _ENCODER.encode(notice)
    if changes.users or changes.count is not UNSET:
        everyone = PresenceDiff(
            epoch=changes.epoch, version=changes.version, changes=changes.users, count=changes.count
        )
        for payload in _split(everyone, max_bytes):
            yield subjects.presence_diff, payload
    for diff in changes.rooms:
        room = str(diff.room)
        subject = subjects.presence_room(namespace_of(room), room)
        for payload in _split(diff, max_bytes):
            yield subject, payload


def _split(diff: PresenceDiff, max_bytes: int) -> Iterator[bytes]:
    payload = _ENCODER.encode(diff)
    if len(payload) <= max_bytes or len(diff.changes) <= 1:
        yield payload
        return
    half = len(diff.changes) // 2
    first, second = diff.changes[:half], diff.changes[half:]
    yield from _split(
        msgspec.structs.replace(diff, version=diff.version - len(second), changes=first), max_bytes
    )
    yield from _split(msgspec.structs.replace(diff, changes=second), max_bytes)


class Announcer:
    """Publishes changes in the order of its calls."""

    def __init__(self, bus: Bus, settings: Settings, store: PresenceStore) -> None:
        self._bus = bus
        self._subjects = settings.subjects
        self._namespace_of = settings.namespace_of
        self._store = store
        self._published: list[int] = []
        self._wake = asyncio.Event()

    @property
    def bus_healthy(self) -> bool:
        """Whether gateways can be heard, and hear us."""
        return self._bus.healthy and self._bus.connected

    def announce(self, changes: Changes) -> None:
        """Publish changes, without waiting or raising: what the bus does not accept is published again later."""
        if changes.commit_id == 0:
            return
        counter(MetricName.PRESENCE_CHANGES).inc(len(changes.users))
        limit = min(MAX_DIFF_BYTES, self._bus.max_payload)
        for subject, payload in messages(changes, self._subjects, self._namespace_of, limit):
            try:
                self._bus.publish(subject, payload)
            except Unavailable as fault:
                counter(MetricName.PRESENCE_UNPUBLISHED).inc()
                log.warning("presence changes not published yet", step=changes.commit_id, reason=str(fault))
                return
            except PayloadTooLarge as fault:
                # It would be the next time, too; followers of that scope fetch a snapshot.
                counter(MetricName.PRESENCE_UNPUBLISHED).inc()
                log.error(
                    "presence change exceeds the bus's message limit", subject=subject, reason=str(fault)
                )
        self._published.append(changes.commit_id)
        self._wake.set()

    async def run(self) -> None:
        """Acknowledge what was published, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            await self.ack()

    async def ack(self) -> None:
        """Acknowledge what was published so far, if bus and store answer; else it is published again."""
        commit_ids, self._published = self._published, []
        try:
            await self._bus.flush()
            for first in range(0, len(commit_ids), MAX_ACKED_AT_ONCE):
                await self._store.ack(commit_ids[first : first + MAX_ACKED_AT_ONCE])
        except (BusError, PresenceStoreUnavailable) as fault:
            log.info("published presence changes not acknowledged", steps=len(commit_ids), reason=str(fault))
