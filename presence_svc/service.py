"""Presence endpoints on the bus, served by any number of replicas.

What a step of the store changed is published as soon as its answer is in, before the next await: the store
completes writes in the order of their versions, so this replica's diffs leave in that order. Diffs of several
replicas may cross on the way; followers order them by version, or fetch a snapshot.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import structlog

from presence_svc.announcer import Announcer
from presence_svc.changes import AppliedBatch, BatchResult, PresenceStoreUnavailable
from presence_svc.store import PresenceStore
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
MAX_OPS = 5000  # applied in pieces, so this bounds the gateway's wait, not the time for which Redis is busy


class PresenceService:
    """Serves the presence endpoints of `services.wire.rpc` from a store."""

    def __init__(self, store: PresenceStore, announcer: Announcer, max_answer_bytes: int) -> None:
        self._store = store
        self._announcer = announcer
        # The remainder is for other fields of the answer, and for what JSON adds to names.
        self._page_bytes = max_answer_bytes * 3 // 4

    def serve_on(self, service: Service) -> None:
        service.endpoint(PRESENCE_APPLY, self.apply)
        service.endpoint(PRESENCE_LIST, self.list_users)
        service.endpoint(PRESENCE_STATS, self.count)
        service.endpoint(PRESENCE_ROOMS, self.list_rooms)

    async def apply(self, batch: PresenceBatch) -> PresenceApplied:
        """Apply a gateway's batch, and publish what it changed."""
        _check(batch)
        began = time.perf_counter()
        while (applied := await self._step(batch)).result is BatchResult.PARTIAL:
            pass
        histogram(MetricName.PRESENCE_APPLY_SECONDS).observe(time.perf_counter() - began)
        counter(MetricName.PRESENCE_BATCHES).labels(applied.result.label).inc()
        if applied.result is BatchResult.FENCED:
            log.warning("batch of a superseded boot", gateway=batch.gateway, boot=batch.boot)
            raise RpcRefusal(
                ErrorCode.CONFLICT,
                f"boot {batch.boot} of gateway {batch.gateway} is superseded by a newer one",
            )
        if applied.result is BatchResult.RESYNC:
            log.info(
                "gateway must announce everything again",
                gateway=batch.gateway,
                boot=batch.boot,
                batch=batch.batch,
            )
        elif batch.fresh and applied.result is BatchResult.APPLIED:
            log.info("gateway opened its lease", gateway=batch.gateway, boot=batch.boot, batch=batch.batch)
        return PresenceApplied(
            known=applied.result is not BatchResult.RESYNC,
            epoch=applied.changes.epoch,
            version=applied.changes.version,
        )

    async def list_users(self, query: PresenceQuery) -> PresencePage:
        """Return a page of users: shorter than `limit` where they would not fit into one answer."""
        room = query.room if isinstance(query.room, str) else None
        limit = max(1, min(query.limit, MAX_PAGE))
        with _store_faults():
            if isinstance(query.users, list):
                page = await self._lookup(query.users, room, query.cursor, limit)
            else:
                page = await self._store.page(
                    room, cursor=query.cursor, limit=limit, for_follower=query.for_follower
                )
        users = _fitting(page.users, self._page_bytes)
        if len(users) == len(page.users):
            return page
        return msgspec.structs.replace(page, users=users, cursor=users[-1].user_id)

    async def count(self, _: Empty) -> PresenceStats:
        with _store_faults():
            return await self._store.stats()

    async def list_rooms(self, query: RoomsQuery) -> RoomsPage:
        with _store_faults():
            return RoomsPage(rooms=await self._store.rooms(max(1, min(query.limit, MAX_PAGE))))

    async def _step(self, batch: PresenceBatch) -> AppliedBatch:
        with _store_faults():
            applied = await self._store.apply(batch)
        self._announcer.announce(applied.changes)
        return applied

    async def _lookup(self, users: list[str], room: str | None, cursor: str, limit: int) -> PresencePage:
        wanted = sorted({user for user in users if user > cursor})
        page = await self._store.lookup(wanted[:limit], room)
        return msgspec.structs.replace(page, cursor=wanted[limit - 1] if len(wanted) > limit else "")


@contextmanager
def _store_faults() -> Iterator[None]:
    """Answer `unavailable`. Untrusted clients may read it, so it omits the text and address of Redis."""
    try:
        yield
    except PresenceStoreUnavailable as fault:
        counter(MetricName.PRESENCE_STORE_FAULTS).inc()
        log.debug("store unreachable", reason=str(fault))  # the sweeper logs it once, as a warning
        raise RpcRefusal(ErrorCode.UNAVAILABLE, "the presence store is out of reach") from fault


def _check(batch: PresenceBatch) -> None:
    """Reject batches over the limit, and invalid names: they become subjects."""
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
    """Return the longest prefix that fits, at least one user."""
    if len(msgspec.json.encode(users)) <= max_bytes:  # the usual case, far cheaper than one by one
        return users
    size = 0
    for count, user in enumerate(users):
        size += len(msgspec.json.encode(user)) + 1
        if size > max_bytes and count:
            return users[:count]
    return users
