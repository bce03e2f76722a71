"""Wait for a condition with a deadline, and name the one that failed."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

# How long something that must come may take where nothing else is claimed: a machine full of other tests is slow.
PATIENCE_S = 30.0

_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.1


def wait_until(condition: Callable[[], T], what: str = "the condition", timeout_s: float = PATIENCE_S) -> T:
    """Return the first true value of `condition`; fail naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    pause = _FIRST_PAUSE_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s:g} s")
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)
    return value


async def eventually(
    condition: Callable[[], T | Awaitable[T]], what: str = "the condition", timeout_s: float = PATIENCE_S
) -> T:
    """Return the first true value of `condition`, which may be a coroutine function; fail after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    pause = _FIRST_PAUSE_S
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s:g} s")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)


async def fetched(http: httpx.AsyncClient, path: str, **options: Any) -> Any:
    """Return the JSON that a GET answers with; ask again while a busy service behind the gateway does not (503)."""

    async def answer() -> httpx.Response | None:
        response = await http.get(path, **options)
        return None if response.status_code == 503 else response

    found = await eventually(answer, f"{path} to be answered")
    assert found is not None
    assert found.status_code == 200, found.text
    return found.json()
