"""Whether users are online, for acknowledgements of direct messages.

A client that sends many of them must not cost presence_svc a request each: one request is under way at a time, and
covers all users that were asked for since the one before.
"""

import asyncio
from itertools import islice

import structlog

from gateway.service_client import ServiceClient
from services.bus.errors import BusError
from services.tasks import TaskSet
from services.wire.records import UNSET, UnsetType
from services.wire.rpc import PRESENCE_LIST, PresenceQuery

log = structlog.get_logger(__name__)

_WAIT_S = 1.0
_MAX_USERS = 100  # in one request
_MAX_WAITING = 2000  # some 20 requests; more would not be answered in time

Online = bool | UnsetType


class OnlineLookup:
    """Looks users up in presence_svc. Without an answer within a second the result is unset."""

    def __init__(self, service_client: ServiceClient, tasks: TaskSet) -> None:
        self._service_client = service_client
        self._tasks = tasks
        self._waiting: dict[str, asyncio.Future[Online]] = {}
        self._running = False

    async def ask(self, user_id: str) -> Online:
        """Whether a user has a connection on any gateway."""
        answer = self._waiting.get(user_id)
        if answer is None:
            if len(self._waiting) >= _MAX_WAITING:
                return UNSET
            answer = self._waiting[user_id] = asyncio.get_running_loop().create_future()
            if not self._running:
                self._running = True
                self._tasks.spawn(self._run(), "online lookup")
        try:
            async with asyncio.timeout(_WAIT_S):
                return await asyncio.shield(answer)  # other callers may wait for it too
        except TimeoutError:
            return UNSET

    async def _run(self) -> None:
        try:
            while self._waiting:
                answers = dict(islice(self._waiting.items(), _MAX_USERS))
                for user_id in answers:
                    del self._waiting[user_id]
                online = await self._online_of(list(answers))
                for user_id, answer in answers.items():
                    answer.set_result(UNSET if online is None else user_id in online)
        finally:
            self._running = False

    async def _online_of(self, user_ids: list[str]) -> set[str] | None:
        """Return which of these users are online; None without an answer."""
        online: set[str] = set()
        cursor = ""
        try:
            while True:
                query = PresenceQuery(users=user_ids, limit=len(user_ids), cursor=cursor)
                page = await self._service_client.call(PRESENCE_LIST, query, timeout_s=_WAIT_S)
                online.update(user.user_id for user in page.users)
                cursor = page.cursor
                if not cursor:
                    return online
        except BusError as fault:
            log.debug("online lookup not answered", reason=str(fault))
        except Exception:  # the messages were stored: they are acknowledged all the same
            log.exception("online lookup failed")
        return None
