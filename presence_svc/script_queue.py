"""Running Lua scripts: by hash, with the source where the server does not know it; writes in order.

`ScriptQueue` is group commit: while one round trip is under way, calls gather, and all of them go in the
next. One connection carries them, so their answers arrive in the order in which the server ran them, and
what is published from them keeps the order of versions. Hundreds of small batches cost few round trips.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from presence_svc.changes import PresenceStoreUnavailable
from services import redis_scripts
from services.redis_client import AnyRedis, one_line
from services.redis_scripts import Argument, Script, is_out_of_reach

MAX_PER_ROUND_TRIP = 64
# The replies to one round trip come when all of it is done, which must be well within the time limit of a read.
MAX_BYTES_PER_ROUND_TRIP = 256 * 1024
MAX_WAITING = 4096  # each gateway has one batch in flight: at this limit Redis does not keep up


def unavailable(fault: RedisError | RedisClusterException) -> PresenceStoreUnavailable | None:
    """Return the fault as PresenceStoreUnavailable if Redis is out of reach, None if the fault is our own."""
    # A cluster raises RedisClusterException when it cannot be reached, or when no node serves our slot now.
    passing = isinstance(fault, RedisClusterException) or is_out_of_reach(fault)
    return PresenceStoreUnavailable(f"redis: {one_line(fault)}") if passing else None


async def run(redis: AnyRedis, script: Script, keys: list[str], arguments: list[Argument]) -> Any:
    """Run a script on its own. Raises PresenceStoreUnavailable."""
    try:
        return await redis_scripts.run(redis, script, keys, arguments)
    except (RedisError, RedisClusterException) as fault:
        raise unavailable(fault) or fault from fault


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    script: Script
    keys: list[str]
    arguments: list[Argument]
    answer: "asyncio.Future[Any]"


class ScriptQueue:
    """Runs scripts one after the other, many in one round trip, and completes them in that order.

    Awaiting coroutines resume in the same order: what one does before its next await happens before the next
    one resumes.
    """

    def __init__(self, redis: AnyRedis) -> None:
        self._redis = redis
        self._waiting: deque[_Call] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def run(self, script: Script, keys: list[str], arguments: list[Argument]) -> Any:
        """Run a script after those already waiting. Raises PresenceStoreUnavailable."""
        if len(self._waiting) >= MAX_WAITING:
            raise PresenceStoreUnavailable(f"redis: {MAX_WAITING} calls are waiting already")
        call = _Call(script, keys, arguments, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run_waiting(), name="presence scripts")
        return await call.answer

    async def close(self) -> None:
        """Fail what is waiting. The caller closes the client."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
        self._fail(self._waiting)  # a runner cancelled before its first line has not

    async def _run_waiting(self) -> None:
        calls: list[_Call] = []
        try:
            while self._waiting:
                calls = self._next_calls()
                await self._round_trip(calls)
        finally:
            self._runner = None
            self._fail([*calls, *self._waiting])  # none is left unless this task was cancelled, or failed
            self._waiting.clear()

    def _next_calls(self) -> list[_Call]:
        """Remove the calls of the next round trip from the queue, without those whose caller was cancelled."""
        calls: list[_Call] = []
        size = 0
        while self._waiting and len(calls) < MAX_PER_ROUND_TRIP and size < MAX_BYTES_PER_ROUND_TRIP:
            call = self._waiting.popleft()
            if not call.answer.done():
                calls.append(call)
                size += sum(len(argument) for argument in call.arguments if not isinstance(argument, int))
        return calls

    @staticmethod
    def _fail(calls: Iterable[_Call]) -> None:
        for call in calls:
            if not call.answer.done():
                call.answer.set_exception(PresenceStoreUnavailable("redis: the queue was closed"))

    async def _round_trip(self, calls: list[_Call]) -> None:
        unknown: list[_Call] = []
        for call, answer in zip(calls, await self._execute(calls), strict=True):
            if isinstance(answer, NoScriptError):
                unknown.append(call)
            elif call.answer.done():
                continue
            elif isinstance(answer, RedisError | RedisClusterException):
                call.answer.set_exception(unavailable(answer) or answer)
            else:
                call.answer.set_result(answer)
        # Before those that wait already: these calls are older.
        self._waiting.extendleft(reversed(unknown))
        await self._load({call.script for call in unknown})

    async def _execute(self, calls: list[_Call]) -> list[Any]:
        """Return one answer, or fault, per call."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for call in calls:
                    # By its name: a cluster's pipeline has no `evalsha`, though it knows where the key is.
                    pipeline.execute_command(
                        "EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.arguments
                    )
                answers: list[Any] = await pipeline.execute(raise_on_error=False)
                return answers
        except (RedisError, RedisClusterException) as fault:
            return [fault] * len(calls)

    async def _load(self, scripts: set[Script]) -> None:
        """Send sources to a server without them (it restarted, or this replica is the first)."""
        try:
            for script in scripts:
                await self._redis.script_load(script.source)
        except (RedisError, RedisClusterException) as fault:
            for call in [call for call in self._waiting if call.script in scripts]:
                self._waiting.remove(call)
                if not call.answer.done():
                    call.answer.set_exception(unavailable(fault) or fault)
