"""The `presence` and `presence:ROOM` channels.

A `PresenceChannel` exists while it has followers. It subscribes to the diffs of its scope, fetches one snapshot, and
serves all followers from there: a thousand followers cost presence_svc one request.
"""

import asyncio
from collections.abc import Iterable
from functools import partial

import msgspec
import structlog

from gateway.channels.roster import Roster, changes_between
from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Fanout, Member
from gateway.service_client import ServiceClient
from services.backoff import Backoff
from services.bus.client import Bus, BusMessage
from services.bus.errors import BusError
from services.settings import Settings
from services.tasks import TaskSet
from services.wire import server
from services.wire.codes import ErrorCode
from services.wire.events import PresenceChange, PresenceDiff
from services.wire.records import UNSET, UnsetType, User
from services.wire.rpc import PRESENCE_LIST, PresenceApplied, PresencePage, PresenceQuery

log = structlog.get_logger(__name__)

EVERYONE = ""  # the scope of the plain `presence` channel; no room has this name

_decode = msgspec.json.Decoder(PresenceDiff).decode
_RETRY_S = 0.25
_RETRY_MAX_S = 1.0
_MAX_HELD_DIFFS = 1000
# Changes of `lastSeen` alone are not sent: a new follower gets them from a list that is no older than this.
_FRESH_S = 10.0
# Far below the buffer of one client (`write_buffer_bytes`), and at a rate that a phone can read.
_PAGE_BYTES = 65_536
_PAGE_EVERY_S = 0.05
_COUNT_EVERY_S = 1.0
_ARRIVES_S = 1.0  # within which a diff arrives that was published before the answer to a batch
# A new epoch means that data were lost: gateways announce all users again, and a user not yet announced has not left.
# Longer than they take to notice and start (`gateway.presence.reporter`), and together well within 5 s.
_SETTLE_S = 2.5


class EpochSettling:
    """When this gateway first saw the present epoch."""

    def __init__(self) -> None:
        self._epoch = ""
        self._settled_at = 0.0

    def settling(self, epoch: str, now: float) -> float:
        """Return for how many seconds lists of this epoch may still be incomplete."""
        if epoch != self._epoch:
            # The first epoch seen is older than this gateway.
            self._settled_at = now + _SETTLE_S if self._epoch else now
            self._epoch = epoch
        return max(0.0, self._settled_at - now)


class PresenceChannel:
    """One scope and its followers."""

    def __init__(
        self,
        bus: Bus,
        service_client: ServiceClient,
        settings: Settings,
        tasks: TaskSet,
        counters: Counters,
        epochs: EpochSettling,
        room: str,
    ) -> None:
        self.room = room
        self._epochs = epochs
        self.fanout = Fanout(counters)
        self._service_client = service_client
        self._tasks = tasks
        self._roster = Roster()
        self._closed = False
        self._loaded_at: float | None = None
        self._loading = False
        self._held: list[PresenceDiff] = []
        self._waiting: dict[str, Member] = {}
        self._error_sent: set[str] = set()
        self._listing = 0  # rises when every follower gets a new list: pages of the one before are stopped
        self._count_sent: int | None = None
        self._count_due: asyncio.TimerHandle | None = None
        subjects = settings.subjects
        subject = (
            subjects.presence_room(settings.namespace_of(room), room) if room else subjects.presence_diff
        )
        self._subscription = bus.subscribe(subject, self._on_message)
        self.load_soon()

    def __len__(self) -> int:
        return len(self.fanout) + len(self._waiting)

    def follow(self, member: Member) -> None:
        """Send the snapshot, at once or as soon as there is one, and every later change."""
        now = asyncio.get_running_loop().time()
        is_fresh = self._loaded_at is not None and now - self._loaded_at < _FRESH_S
        if is_fresh and self._service_client.is_answering("presence"):
            self._add(member)
            return
        self._waiting[member.connection_id] = member
        self.load_soon()

    def unfollow(self, connection_id: str) -> None:
        self._waiting.pop(connection_id, None)
        self._error_sent.discard(connection_id)
        self.fanout.discard(connection_id)

    def close(self) -> None:
        self._closed = True
        self._subscription.close()
        if self._count_due is not None:
            self._count_due.cancel()

    def compare(self, epoch: str, version: int) -> None:
        """Compare with the version that presence_svc reported: this detects the loss of the last diff."""
        if self._loaded_at is not None and self._is_behind(epoch, version):
            # The diff may be under way: compare again when it had time to arrive.
            asyncio.get_running_loop().call_later(_ARRIVES_S, self._compare_again, epoch, version)

    @property
    def reached(self) -> tuple[str, int]:
        """The epoch and version of what followers have; empty while a snapshot replaces it."""
        return ("", 0) if self._loading else (self._roster.epoch, self._roster.version)

    def enter_epoch(self, epoch: str) -> None:
        """Fetch a new snapshot if ours is of another epoch."""
        if self._loaded_at is not None and epoch != self._roster.epoch:
            self.load_soon()

    def _is_behind(self, epoch: str, version: int) -> bool:
        return epoch != self._roster.epoch or version > self._roster.version

    def _compare_again(self, epoch: str, version: int) -> None:
        if not self._closed and self._is_behind(epoch, version):
            self.load_soon()

    # --- what followers receive ---

    def _add(self, member: Member) -> None:
        self.fanout.flush()
        self._send_list([member])
        self.fanout.add(member)

    def _send_list(self, members: Iterable[Member]) -> None:
        """Send the present list: in one message if it fits, else in pages."""
        if self._roster.count is not None:
            self._write(members, EncodedMessage(self._counted(self._roster.count)))
            return
        pages = self._roster.pages(_PAGE_BYTES)
        users, more = next(pages)
        if not more:
            self._write(members, EncodedMessage(server.PresenceList(users=users, room=self._room_field)))
            return
        for member in members:
            self._tasks.spawn(self._send_pages(member, self._listing), f"presence list {self.room!r}")

    async def _send_pages(self, member: Member, listing: int) -> None:
        count = len(self._roster.users)
        for part, (users, more) in enumerate(self._roster.pages(_PAGE_BYTES), 1):
            if member.connection_id not in self.fanout or listing != self._listing:
                return
            page = server.PresenceList(
                users=users,
                room=self._room_field,
                count=count,
                more=more or UNSET,
                part=part if part > 1 else UNSET,
            )
            self.fanout.flush()
            self._write([member], EncodedMessage(page))
            await asyncio.sleep(_PAGE_EVERY_S)

    @staticmethod
    def _write(members: Iterable[Member], outbound: EncodedMessage) -> None:
        for member in list(members):
            member.write(outbound.encode(member.encoding))

    def _counted(self, count: int) -> server.PresenceList:
        return server.PresenceList(users=[], room=self._room_field, count=count)

    def _resend_list(self) -> None:
        """Send the list again: it became a count, or a count became a list."""
        self.fanout.flush()
        self._listing += 1
        self._count_sent = self._roster.count
        self._send_list(self.fanout)

    def _send_count_soon(self) -> None:
        """Send a changed count, at a limited rate: it changes with every join and leave."""
        if self._count_due is None:
            self._count_due = asyncio.get_running_loop().call_later(_COUNT_EVERY_S, self._send_count)

    def _send_count(self) -> None:
        self._count_due = None
        count = self._roster.count
        if count is not None and count != self._count_sent:
            self._count_sent = count
            self.fanout.send(EncodedMessage(self._counted(count)))

    @property
    def _room_field(self) -> str | UnsetType:
        return self.room or UNSET

    def _send(self, changes: list[PresenceChange]) -> None:
        for change in changes:
            if self.room and isinstance(change, server.UserOnline | server.UserOffline):
                self.fanout.send(EncodedMessage(msgspec.structs.replace(change, room=self.room)))
            else:
                self.fanout.send(EncodedMessage(change))

    # --- what presence_svc sends ---

    def _on_message(self, message: BusMessage) -> None:
        try:
            diff = _decode(message.data)
        except (msgspec.DecodeError, RecursionError) as fault:
            log.error("presence diff is not readable", reason=str(fault))
            return
        was_counting = self._roster.count is not None
        changes = self._roster.apply(diff)
        # A snapshot under way may be older than this diff.
        if (self._loading or changes is None) and len(self._held) < _MAX_HELD_DIFFS:
            self._held.append(diff)
        if changes is None:
            self.load_soon()
        elif self._roster.count is None:
            self._send(changes)
        elif was_counting:
            self._send_count_soon()
        else:
            self._resend_list()

    def load_soon(self) -> None:
        """Fetch a new snapshot: there is none, or diffs may have been lost."""
        if not self._loading:
            self._loading = True
            self._tasks.spawn(self._load(), f"presence view {self.room!r}")

    async def _load(self) -> None:
        """Fetch a snapshot, however long it takes, and apply it unless the last follower has left."""
        backoff, snapshot = Backoff(_RETRY_S, _RETRY_MAX_S, jitter=0.9), None
        try:
            while snapshot is None and not self._closed:
                try:
                    fetched = await self._fetch()
                except BusError as fault:
                    log.info("no presence snapshot yet", room=self.room, reason=str(fault))
                    self._send_error_to_waiting()
                    await backoff.wait()
                    continue
                if wait_s := self._epochs.settling(fetched.epoch, asyncio.get_running_loop().time()):
                    await asyncio.sleep(wait_s)
                else:
                    snapshot = fetched
        finally:
            self._loading = False
        if snapshot is not None and not self._closed:
            self._apply_snapshot(snapshot)

    def _apply_snapshot(self, snapshot: PresencePage) -> None:
        first, was_counting = self._loaded_at is None, self._roster.count is not None
        before = self._roster.users
        count = snapshot.count if snapshot.counts_only else None
        self._roster.replace(snapshot.epoch, snapshot.version, snapshot.users, count)
        held, self._held = self._held, []
        gap = len(held) >= _MAX_HELD_DIFFS
        for diff in held:
            gap = self._roster.apply(diff) is None or gap
        self._loaded_at = asyncio.get_running_loop().time()
        counting = self._roster.count is not None
        if first:
            self._count_sent = self._roster.count
        elif counting != was_counting:
            self._resend_list()
        elif counting:
            self._send_count_soon()
        else:
            self._send(list(changes_between(before, self._roster.users)))
        waiting, self._waiting = self._waiting, {}
        self._error_sent.clear()
        for member in waiting.values():
            self._add(member)
        if gap:  # diffs between the snapshot and a held one are lost
            self.load_soon()

    async def _fetch(self) -> PresencePage:
        """Fetch all pages. Later ones may be newer than the first one's version: diffs may be applied twice."""
        snapshot, users, cursor = None, list[User](), ""
        while snapshot is None or (cursor and not snapshot.counts_only):
            query = PresenceQuery(room=self._room_field, cursor=cursor, for_follower=True)
            page = await self._service_client.call(PRESENCE_LIST, query)
            snapshot, cursor = snapshot or page, page.cursor
            users += page.users
        return msgspec.structs.replace(snapshot, users=users)

    def _send_error_to_waiting(self) -> None:
        """Send an error once to each follower that waits for a snapshot, which follows later."""
        code = ErrorCode.UNAVAILABLE
        error = server.Error(
            code=code.code,
            message="presence is out of reach; the list follows when it is back",
            retryable=code.retryable,
        )
        for member in self._waiting.values():
            if member.connection_id not in self._error_sent:
                self._error_sent.add(member.connection_id)
                member.write(EncodedMessage(error).encode(member.encoding))


class PresenceChannels:
    """All followed scopes of this gateway."""

    def __init__(
        self, bus: Bus, service_client: ServiceClient, settings: Settings, tasks: TaskSet, counters: Counters
    ) -> None:
        self._epochs = EpochSettling()
        self._channel_of = partial(
            PresenceChannel, bus, service_client, settings, tasks, counters, self._epochs
        )
        self._views: dict[str, PresenceChannel] = {}
        # The version of presence_svc, or more, at the last answer to a batch: one batch is in flight at a time.
        self._reached = ("", 0)

    def follow(self, member: Member, room: str = EVERYONE) -> None:
        """Follow everyone's presence, or one room's."""
        view = self._views.get(room)
        if view is None:
            view = self._views[room] = self._channel_of(room)
        view.follow(member)

    def unfollow(self, connection_id: str, room: str = EVERYONE) -> None:
        """Stop following; the last follower ends the view."""
        view = self._views.get(room)
        if view is not None:
            view.unfollow(connection_id)
            if not len(view):
                view.close()
                del self._views[room]

    def on_applied(self, applied: PresenceApplied) -> None:
        """Compare the version that presence_svc reported with ours."""
        self._epochs.settling(applied.epoch, asyncio.get_running_loop().time())
        epoch, reached = self._reached
        if applied.epoch == epoch and applied.version < reached:
            # Its store was set back, and will use versions that we have for other changes.
            log.warning("presence was set back; fetching lists", version=applied.version, before=reached)
            self.resync()
        for view in self._views.values():
            view.enter_epoch(applied.epoch)
        self._reached = (applied.epoch, applied.version)
        everyone = self._views.get(EVERYONE)
        if everyone is not None:
            everyone.compare(applied.epoch, applied.version)
            if everyone.reached[0] == applied.epoch:
                self._reached = max(self._reached, everyone.reached)

    def close(self) -> None:
        for view in self._views.values():
            view.close()
        self._views.clear()

    def resync(self) -> None:
        """Fetch new snapshots after the bus was away."""
        for view in self._views.values():
            view.load_soon()
