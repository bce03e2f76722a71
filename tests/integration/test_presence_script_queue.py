"""The script queue on a real Redis: order, forgotten scripts, faults, cancellation."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from presence_svc import script_queue
from presence_svc.changes import PresenceStoreUnavailable
from presence_svc.script_queue import Script, ScriptQueue


def script(source: str) -> Script:
    return Script("test", source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


COUNT = script("return redis.call('INCR', KEYS[1])")
BROKEN = script("return nil + 1")


@pytest.fixture
async def redis(redis_server) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
async def queue(redis) -> AsyncIterator[ScriptQueue]:
    running = ScriptQueue(redis)
    yield running
    await running.close()


async def test_answers_come_in_the_order_in_which_the_server_ran_them(queue, prefix):
    seen = []

    async def call() -> None:
        seen.append(await queue.run(COUNT, [prefix], []))

    await asyncio.gather(*(call() for _ in range(300)))
    assert seen == list(range(1, 301))


async def test_a_script_the_server_forgot_is_sent_again(queue, redis, prefix):
    assert await queue.run(COUNT, [prefix], []) == 1
    await redis.script_flush()
    assert await asyncio.gather(*(queue.run(COUNT, [prefix], []) for _ in range(3))) == [2, 3, 4]
    await redis.script_flush()
    assert await script_queue.run(redis, COUNT, [prefix], []) == 5
    assert await script_queue.run(redis, COUNT, [prefix], []) == 6


async def test_a_broken_script_fails_its_caller_alone(queue, prefix):
    calls = [queue.run(one, [prefix], []) for one in (COUNT, BROKEN, COUNT)]
    first, broken, last = await asyncio.gather(*calls, return_exceptions=True)
    assert (first, last) == (1, 2)
    assert isinstance(broken, ResponseError)


async def test_a_cancelled_caller_delays_no_other(queue, prefix):
    waiting = asyncio.create_task(queue.run(COUNT, [prefix], []))
    await asyncio.sleep(0)
    waiting.cancel()
    assert await queue.run(COUNT, [prefix], []) in (1, 2)


async def test_every_caller_gets_the_error_of_an_unreachable_store(prefix):
    async with Redis(host="127.0.0.1", port=1, retry=None) as nowhere:
        queue = ScriptQueue(nowhere)
        answers = await asyncio.gather(
            *(queue.run(COUNT, [prefix], []) for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(answer, PresenceStoreUnavailable) for answer in answers)
        with pytest.raises(PresenceStoreUnavailable):
            await script_queue.run(nowhere, COUNT, [prefix], [])
        await queue.close()


async def test_more_than_may_wait_are_turned_away(redis, prefix, monkeypatch):
    monkeypatch.setattr(script_queue, "MAX_WAITING", 2)
    queue = ScriptQueue(redis)
    answers = await asyncio.gather(
        *(queue.run(COUNT, [prefix], []) for _ in range(4)), return_exceptions=True
    )
    assert answers[:2] == [1, 2]
    assert all(isinstance(answer, PresenceStoreUnavailable) for answer in answers[2:])
    await queue.close()


async def test_closing_gives_up_what_waits(redis, prefix):
    queue = ScriptQueue(redis)
    waiting = asyncio.create_task(queue.run(COUNT, [prefix], []))
    await asyncio.sleep(0)
    await queue.close()
    with pytest.raises(PresenceStoreUnavailable):
        await waiting
