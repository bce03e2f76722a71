"""The questions about presence, answered on the bus by any number of replicas.

What a step of the store changed is published as soon as its answer is in, before anything else is awaited:
the store completes writes in the order of their versions, so this replica's diffs leave in that order. Diffs
of several replicas may cross on the way; followers order them by version, or ask again.
"""

import time
from dataclasses import replace

import msgspec
import structlog

from presence_svc.announcer import Announcer
from presence_svc.changes import Applied, Outcome, Page
from presence_svc.policy import PresenceStore, StoreUnavailable
from services.bus.rpc import RpcRefusal, Service
from services.telemetry import MetricName, counter, histogram
from services.wire.codes import ErrorCode
from services.wire.names import InvalidName, normalize_name
from services.wire.records import User
from services.wire.rpc import (
    PRESENCE_APPLY,
    PRESENCE_LIST,
    PRESENCE_ROOMS,
    PRESENCE_STATS,
    Connected,
    Empty,
    Joined,
    Left,
    PresenceApplied,
    PresenceBatch,
    PresencePage,
    PresenceQuery,
    PresenceStats,
    RoomsPage,
    RoomsQuery,
)

log = structlog.get_logger(__name__)

MAX_PAGE = 1000
MAX_OPS = 5000  # done in pieces, so this bounds how long the gateway waits, not how long Redis is busy


class PresenceService:
    """Answers `services.wire.rpc`'s presence endpoints from a store."""

    def __init__(self, store: PresenceStore, announcer: Announcer, max_answer_bytes: int) -> None:
        self._store = store
        self._announcer = announcer
        # Room for the rest of the answer, and for what JSON adds to names.
        self._page_bytes = max_answer_bytes * 3 // 4

    def serve_on(self, service: Service) -> None:
        """Declare the endpoints."""
        service.endpoint(PRESENCE_APPLY, self.apply)
        service.endpoint(PRESENCE_LIST, self.list_users)
        service.endpoint(PRESENCE_STATS, self.count)
        service.endpoint(PRESENCE_ROOMS, self.list_rooms)

    async def apply(self, batch: PresenceBatch) -> PresenceApplied:
        """Apply a gateway's batch, and publish what it changed."""
        _check(batch)
        began = time.perf_counter()
        applied = await self._step(batch)
        while applied.outcome is Outcome.AGAIN:
            applied = await self._step(batch)
        histogram(MetricName.PRESENCE_APPLY_SECONDS).observe(time.perf_counter() - began)
        counter(MetricName.PRESENCE_BATCHES).labels(applied.outcome.name.lower()).inc()
        if applied.outcome is Outcome.SUPERSEDED:
            log.warning("batch of a superseded boot", gateway=batch.gateway, boot=batch.boot)
            raise RpcRefusal(
                ErrorCode.CONFLICT,
                f"boot {batch.boot} of gateway {batch.gateway} is superseded by a newer one",
            )
        if applied.outcome is Outcome.UNKNOWN:
            log.info(
                "gateway must announce afresh", gateway=batch.gateway, boot=batch.boot, batch=batch.batch
            )
        elif batch.fresh and applied.outcome is Outcome.APPLIED:
            log.info("gateway opened its lease", gateway=batch.gateway, boot=batch.boot, batch=batch.batch)
        return PresenceApplied(
            known=applied.outcome is not Outcome.UNKNOWN,
            epoch=applied.changes.epoch,
            version=applied.changes.version,
        )

    async def list_users(self, query: PresenceQuery) -> PresencePage:
        """Return a page of users: shorter than `limit` where they would not fit into one answer."""
        room = query.room if isinstance(query.room, str) else None
        limit = max(1, min(query.limit, MAX_PAGE))
        try:
            if isinstance(query.users, list):
                page = await self._lookup(query.users, room, query.cursor, limit)
            elif room is None:
                page = await self._store.everyone(
                    cursor=query.cursor, limit=limit, unless_large=query.unless_large
                )
            else:
                page = await self._store.members(
                    room, cursor=query.cursor, limit=limit, unless_large=query.unless_large
                )
        except StoreUnavailable as fault:
            raise _refusal(fault) from fault
        users = _fitting(page.users, self._page_bytes)
        cursor = page.cursor if len(users) == len(page.users) else users[-1].user_id
        return PresencePage(
            epoch=page.epoch,
            version=page.version,
            users=users,
            cursor=cursor,
            count=page.count,
            large=page.large,
        )

    async def count(self, _: Empty) -> PresenceStats:
        """Return counts."""
        try:
            stats = await self._store.stats()
        except StoreUnavailable as fault:
            raise _refusal(fault) from fault
        return PresenceStats(
            users=stats.users, connections=stats.connections, rooms=stats.rooms, gateways=stats.gateways
        )

    async def list_rooms(self, query: RoomsQuery) -> RoomsPage:
        """Return the largest rooms."""
        try:
            return RoomsPage(rooms=await self._store.rooms(max(1, min(query.limit, MAX_PAGE))))
        except StoreUnavailable as fault:
            raise _refusal(fault) from fault

    async def _step(self, batch: PresenceBatch) -> Applied:
        try:
            applied = await self._store.apply(batch)
        except StoreUnavailable as fault:
            raise _refusal(fault) from fault
        self._announcer.announce(applied.changes)
        return applied

    async def _lookup(self, users: list[str], room: str | None, cursor: str, limit: int) -> Page:
        wanted = sorted({user for user in users if user > cursor})
        page = await self._store.lookup(wanted[:limit], room)
        return replace(page, cursor=wanted[limit - 1] if len(wanted) > limit else "")


def _refusal(fault: StoreUnavailable) -> RpcRefusal:
    """Return what the asker hears: strangers may read it, so it does not say what Redis said, and where."""
    counter(MetricName.PRESENCE_STORE_FAULTS).inc()
    log.debug("store unreachable", reason=str(fault))  # the sweeper says it once, louder
    return RpcRefusal(ErrorCode.UNAVAILABLE, "the presence store is out of reach")


def _check(batch: PresenceBatch) -> None:
    """Refuse more than one step can do, and names that no gateway may let in: they become subjects."""
    if len(batch.ops) > MAX_OPS:
        raise RpcRefusal(ErrorCode.TOO_LARGE, f"{len(batch.ops)} operations; one batch may have {MAX_OPS}")
    try:
        for op in batch.ops:
            if isinstance(op, Connected):
                normalize_name(op.user_id, "userId")
            elif isinstance(op, Joined | Left):
                normalize_name(op.room, "room")
    except InvalidName as fault:
        raise RpcRefusal(ErrorCode.INVALID_NAME, str(fault)) from fault


def _fitting(users: list[User], max_bytes: int) -> list[User]:
    """Return as many of the first users as fit, at least one."""
    if len(msgspec.json.encode(users)) <= max_bytes:  # nearly always, and far cheaper than one by one
        return users
    size = 0
    for count, user in enumerate(users):
        size += len(msgspec.json.encode(user)) + 1
        if size > max_bytes and count:
            return users[:count]
    return users
