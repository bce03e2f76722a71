"""`tidings check`: is the configuration sound, and does every server it names answer?"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import redis
import structlog
from rich.console import Console
from rich.table import Table

from services.bus.client import Bus
from services.bus.errors import BusError
from services.local.binaries import spell
from services.local.existing import Unusable, find_nats, find_redis
from services.local.servers import kept_url
from services.logs.redaction import clean_text
from services.redis_link import close_redis, open_redis
from services.settings import Settings, config_file

_REACH_S = 3.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What trying one thing gave. `detail` has no secrets."""

    name: str
    ok: bool
    detail: str
    latency_ms: float | None = None


@contextmanager
def _quietly() -> Iterator[None]:
    """Log errors only: the table says all there is to say, and what the parts log would stand in between."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        yield
    finally:
        structlog.configure(**before)


async def run_checks(settings: Settings) -> list[Outcome]:
    """Try everything once. Without configured URLs, the servers of a running `tidings up` are tried."""
    with _quietly():
        return await _run_checks(settings)


async def _run_checks(settings: Settings) -> list[Outcome]:
    nats_url = settings.nats_url or kept_url(settings.data_dir, "nats")
    redis_url = settings.redis_url or kept_url(settings.data_dir, "redis")
    outcomes = [Outcome("configuration", True, str(config_file() or "environment only"))]
    if nats_url:
        reached = await _try("NATS", lambda: _nats(nats_url))
        outcomes.append(reached)
        if reached.ok:
            with_url = settings.model_copy(update={"nats_url": nats_url, "bus_connect_s": _REACH_S})
            outcomes += await _through_the_bus(with_url)
    else:
        outcomes.append(_unset("NATS", "TIDINGS_NATS_URL"))
    if redis_url:
        with_url = settings.model_copy(update={"redis_url": redis_url})
        outcomes.append(await _try("Redis", lambda: _redis(with_url)))
    else:
        outcomes.append(_unset("Redis", "TIDINGS_REDIS_URL"))
    return outcomes


def show(outcomes: list[Outcome]) -> None:
    """Print a table."""
    table = Table(box=None, pad_edge=False)
    for heading in ("check", "", "latency", ""):
        table.add_column(heading)
    for outcome in outcomes:
        latency = f"{outcome.latency_ms:.1f} ms" if outcome.latency_ms is not None else ""
        verdict = "[green]ok[/green]" if outcome.ok else "[red]fail[/red]"
        table.add_row(outcome.name, verdict, latency, clean_text(outcome.detail).replace("[", r"\["))
    Console(soft_wrap=True).print(table)


def _unset(name: str, variable: str) -> Outcome:
    return Outcome(name, False, f"{variable} is not set, and no `tidings up` has run in this data directory")


async def _try(name: str, attempt: Callable[[], Awaitable[tuple[str, float]]]) -> Outcome:
    try:
        detail, latency_ms = await attempt()
    except (Unusable, BusError, redis.RedisError, redis.RedisClusterException, OSError) as fault:
        return Outcome(name, False, str(fault) or type(fault).__name__)
    return Outcome(name, True, detail, latency_ms)


async def _nats(url: str) -> tuple[str, float]:
    started = time.perf_counter()
    found = await find_nats(url)
    return f"{spell(found.version)} at {found.address}", _ms_since(started)


async def _redis(settings: Settings) -> tuple[str, float]:
    found = await find_redis(settings)
    client = open_redis(settings, "check", timeout_s=_REACH_S)
    try:
        await client.ping()  # connects and logs in
        started = time.perf_counter()
        await client.ping()
        return f"{found.product} {spell(found.version)} at {found.address}", _ms_since(started)
    finally:
        await close_redis(client)


class _Account(msgspec.Struct):
    """What JetStream says of this account (`$JS.API.INFO`)."""

    streams: int = 0
    messages: int = 0
    storage: int = 0
    error: dict[str, object] | None = None


async def _through_the_bus(settings: Settings) -> list[Outcome]:
    """Log in as the services do, then ask JetStream."""
    try:
        bus = await Bus.connect(settings, "check")
    except BusError as fault:
        return [Outcome("NATS login", False, str(fault))]
    try:
        return [
            await _try("NATS login", lambda: _round_trip(bus)),
            await _try("JetStream", lambda: _jetstream(bus)),
        ]
    finally:
        await bus.close()


async def _round_trip(bus: Bus) -> tuple[str, float]:
    started = time.perf_counter()
    await bus.flush(_REACH_S)
    return f"messages up to {bus.max_payload} bytes", _ms_since(started)


async def _jetstream(bus: Bus) -> tuple[str, float]:
    started = time.perf_counter()
    answer = await bus.request("$JS.API.INFO", b"", timeout_s=_REACH_S)
    latency_ms = _ms_since(started)
    account = msgspec.json.decode(answer.data, type=_Account)
    if account.error is not None:
        raise Unusable(str(account.error.get("description", "JetStream refused")))
    return f"{account.streams} streams, {account.storage} bytes stored", latency_ms


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
