"""The `presence` and `presence:ROOM` channels.

A view exists while somebody follows it: it subscribes to the scope's diffs, fetches one snapshot, and serves every
follower from there, so that a thousand followers cost presence_svc one question.
"""

import asyncio
import random

import msgspec
import structlog

from gateway.asking import Asking
from gateway.delivery.fanout import Fanout, Member
from gateway.delivery.outbound import Outbound
from gateway.delivery.traffic import Traffic
from gateway.presence.roster import Roster
from services.bus.client import Bus, BusMessage
from services.bus.errors import BusError
from services.settings import Settings
from services.tasks import TaskSet
from services.wire import server
from services.wire.codes import ErrorCode
from services.wire.events import PresenceChange, PresenceDiff
from services.wire.records import UNSET, UnsetType, User
from services.wire.rpc import PRESENCE_LIST, PresenceApplied, PresenceQuery

log = structlog.get_logger(__name__)

EVERYONE = ""  # the scope of the plain `presence` channel; no room has this name

_decode = msgspec.json.Decoder(PresenceDiff).decode
_RETRY_S = 0.25
_RETRY_MAX_S = 2.0
_MAX_HELD_DIFFS = 1000


class View:
    """One scope and its followers."""

    def __init__(
        self, room: str, bus: Bus, asking: Asking, settings: Settings, tasks: TaskSet, traffic: Traffic
    ) -> None:
        self.room = room
        self.fanout = Fanout(traffic)
        self._bus = bus
        self._asking = asking
        self._settings = settings
        self._tasks = tasks
        self._roster = Roster()
        self._closed = False
        self._loaded = False
        self._loading = False
        self._held: list[PresenceDiff] = []
        self._waiting: dict[str, Member] = {}
        self._told: set[str] = set()
        subjects = settings.subjects
        subject = (
            subjects.presence_room(settings.namespace_of(room), room) if room else subjects.presence_diff
        )
        self._subscription = bus.subscribe(subject, self._on_message)
        self._load_soon()

    def __len__(self) -> int:
        return len(self.fanout) + len(self._waiting)

    def follow(self, member: Member) -> None:
        """Send the snapshot, now or as soon as there is one, and every change after it."""
        if self._loaded:
            self._enter(member)
        else:
            self._waiting[member.connection_id] = member

    def unfollow(self, connection_id: str) -> None:
        """Stop sending to a connection."""
        self._waiting.pop(connection_id, None)
        self.fanout.discard(connection_id)

    def close(self) -> None:
        """End the subscription."""
        self._closed = True
        self._subscription.close()

    def compare(self, epoch: str, version: int) -> None:
        """Learn where presence_svc stands: a diff that was the last one and got lost is noticed here."""
        if self._loaded and (epoch != self._roster.epoch or version > self._roster.version):
            # The diff may just be on its way: look again when it had time to arrive.
            asyncio.get_running_loop().call_later(1.0, self._compare_again, epoch, version)

    def resync(self) -> None:
        """Fetch a new snapshot: diffs may have been lost unseen."""
        self._load_soon()

    def _compare_again(self, epoch: str, version: int) -> None:
        if epoch != self._roster.epoch or version > self._roster.version:
            self._load_soon()

    def _enter(self, member: Member) -> None:
        self.fanout.flush()
        snapshot = server.PresenceList(users=list(self._roster.users.values()), room=self._room_field)
        member.write(Outbound(snapshot).on(member.wire))
        self.fanout.add(member)

    @property
    def _room_field(self) -> str | UnsetType:
        return self.room or UNSET

    def _on_message(self, message: BusMessage) -> None:
        try:
            diff = _decode(message.data)
        except (msgspec.DecodeError, RecursionError) as fault:
            log.error("presence diff is not readable", reason=str(fault))
            return
        if self._loading:
            if len(self._held) < _MAX_HELD_DIFFS:
                self._held.append(diff)
            return
        changes = self._roster.apply(diff)
        if changes is None:
            self._held.append(diff)
            self._load_soon()
        else:
            self._send(changes)

    def _send(self, changes: list[PresenceChange]) -> None:
        for change in changes:
            if self.room and isinstance(change, server.UserOnline | server.UserOffline):
                self.fanout.send(Outbound(msgspec.structs.replace(change, room=self.room)))
            else:
                self.fanout.send(Outbound(change))

    def _load_soon(self) -> None:
        if not self._loading:
            self._loading = True
            self._tasks.spawn(self._load(), f"presence view {self.room!r}")

    async def _load(self) -> None:
        """Fetch a snapshot, however long it takes; give up when nobody follows any more."""
        delay_s = _RETRY_S
        snapshot = None
        while snapshot is None and not self._closed:
            try:
                snapshot = await self._fetch()
            except BusError as fault:
                log.info("no presence snapshot yet", room=self.room, reason=str(fault))
                self._tell_waiting()
                await asyncio.sleep(random.uniform(0.05, delay_s))  # noqa: S311  # jitter, no secret
                delay_s = min(2 * delay_s, _RETRY_MAX_S)
        self._loading = False
        if snapshot is not None:
            self._take(*snapshot)

    def _take(self, epoch: str, version: int, users: list[User]) -> None:
        changes = self._roster.replace(epoch, version, users)
        held, self._held = self._held, []
        gap = len(held) >= _MAX_HELD_DIFFS
        for diff in held:
            fresh = self._roster.apply(diff)
            gap = gap or fresh is None
            changes += fresh or []
        self._loaded = True
        self._send(changes)
        waiting, self._waiting = self._waiting, {}
        self._told.clear()
        for member in waiting.values():
            self._enter(member)
        if gap:  # something is newer than the snapshot, and what is between is lost
            self._load_soon()

    async def _fetch(self) -> tuple[str, int, list[User]]:
        """Read all pages. Those after the first may be newer than its version: diffs are safe to apply twice."""
        users: list[User] = []
        query = PresenceQuery(room=self._room_field)
        page = await self._asking.ask(PRESENCE_LIST, query)
        epoch, version = page.epoch, page.version
        users += page.users
        while page.cursor:
            query = PresenceQuery(room=self._room_field, cursor=page.cursor)
            page = await self._asking.ask(PRESENCE_LIST, query)
            users += page.users
        return epoch, version, users

    def _tell_waiting(self) -> None:
        """Answer those who wait for a snapshot, once: it comes when presence is back."""
        code = ErrorCode.UNAVAILABLE
        error = server.Error(
            code=code.code,
            message="presence is out of reach; the list follows when it is back",
            retryable=code.retryable,
        )
        for member in self._waiting.values():
            if member.connection_id not in self._told:
                self._told.add(member.connection_id)
                member.write(Outbound(error).on(member.wire))


class Views:
    """All followed scopes of this gateway."""

    def __init__(
        self, bus: Bus, asking: Asking, settings: Settings, tasks: TaskSet, traffic: Traffic
    ) -> None:
        self._bus = bus
        self._asking = asking
        self._settings = settings
        self._tasks = tasks
        self._traffic = traffic
        self._views: dict[str, View] = {}

    def follow(self, member: Member, room: str = EVERYONE) -> None:
        """Follow everyone's presence, or one room's."""
        view = self._views.get(room)
        if view is None:
            view = self._views[room] = View(
                room, self._bus, self._asking, self._settings, self._tasks, self._traffic
            )
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
        """Compare the version presence_svc reported with ours."""
        view = self._views.get(EVERYONE)
        if view is not None:
            view.compare(applied.epoch, applied.version)

    def resync(self) -> None:
        """Fetch new snapshots after the bus was away."""
        for view in self._views.values():
            view.resync()
