"""Servers that somebody else runs: reached, and recent enough?

Asked with a few bytes and short limits before anything is started, so that a wrong URL is one clear line.
"""

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import redis

from services.lifecycle import CannotStart
from services.redis_client import close_redis, fault_text, infos, open_redis, spoken_address
from services.settings import Settings
from tidings_cli.local.binaries import NATS_MINIMUM, REDIS_MINIMUM, Version, spell

_REACH_S = 3.0
_NATS_PORT = 4222


class Unusable(RuntimeError):
    """A server cannot be used; the message names it, without credentials, and the setting it came from."""


@dataclass(frozen=True, slots=True)
class Found:
    """A server that can be used."""

    product: str
    version: Version
    address: str


def _numbers(text: str) -> Version:
    """Return `2.11.0-RC.1` as (2, 11, 0); what is missing or no number counts as 0."""
    parts = [part if part.isdigit() else "0" for part in text.split("-")[0].split(".")]
    major, minor, patch = (*map(int, parts), 0, 0, 0)[:3]
    return major, minor, patch


def judge_nats(info: dict[str, Any], address: str) -> Found:
    """Return the server behind an INFO line.

    Raises:
        Unusable: too old, or without JetStream.
    """
    version = _numbers(str(info.get("version", "")))
    if version < NATS_MINIMUM:
        least = spell(NATS_MINIMUM)
        raise Unusable(
            f"NATS at {address} (TIDINGS_NATS_URL) is {spell(version)}; {least} or newer is needed"
        )
    if not info.get("jetstream"):
        raise Unusable(
            f"NATS at {address} (TIDINGS_NATS_URL) runs without JetStream; start it with --jetstream"
        )
    return Found("NATS", version, address)


def judge_redis(info: dict[str, Any], address: str) -> Found:
    """Return the server behind `INFO server`.

    Raises:
        Unusable: too old.
    """
    # Valkey names the Redis it is compatible with beside its own version.
    version = _numbers(str(info.get("redis_version", "")))
    if version < REDIS_MINIMUM:
        least = spell(REDIS_MINIMUM)
        raise Unusable(
            f"Redis at {address} (TIDINGS_REDIS_URL) is {spell(version)}; {least} or newer is needed"
        )
    if "valkey_version" in info:
        return Found("Valkey", _numbers(str(info["valkey_version"])), address)
    return Found("Redis", version, address)


async def find_nats(urls: str) -> Found:
    """Reach the first server of a comma-separated list that answers, and judge it.

    Raises:
        Unusable: none answers, or the one that does is no good.
    """
    faults: list[str] = []
    for url in urls.split(","):
        parts = urlsplit(url.strip() if "://" in url else f"nats://{url.strip()}")
        host, port = parts.hostname or "127.0.0.1", parts.port or _NATS_PORT
        address = f"{host}:{port}"
        try:
            async with asyncio.timeout(_REACH_S):
                return judge_nats(await nats_info(host, port), address)
        except TimeoutError:
            faults.append(f"{address}: no answer within {_REACH_S:g} s")
        except OSError as fault:
            faults.append(f"{address}: {fault.strerror or fault}")
    raise Unusable(f"cannot reach NATS (TIDINGS_NATS_URL): {'; '.join(faults)}")


async def nats_info(host: str, port: int) -> dict[str, Any]:
    """Return the INFO that a NATS server sends first, before TLS and credentials."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        line = await reader.readline()
        verb, _, body = line.partition(b" ")
        if verb != b"INFO":
            raise Unusable(f"what listens on {host}:{port} (TIDINGS_NATS_URL) is no NATS server")
        info = json.loads(body)
        return info if isinstance(info, dict) else {}
    finally:
        writer.close()


async def find_redis(settings: Settings) -> Found:
    """Reach the server (of a cluster every master, behind Sentinels the master), log in, and judge it.

    Raises:
        Unusable: it does not answer, refuses the password, or is no good.
    """
    try:
        client = open_redis(settings, "check", timeout_s=_REACH_S)
    except CannotStart as fault:
        raise Unusable(str(fault)) from None
    address = spoken_address(settings.redis_url)
    try:
        found = [judge_redis(info, address) for info in await infos(client)]
    except (redis.RedisError, redis.RedisClusterException, OSError, ssl.SSLError) as fault:
        raise Unusable(f"cannot use Redis at {address} (TIDINGS_REDIS_URL): {fault_text(fault)}") from None
    finally:
        await close_redis(client)
    return min(found, key=lambda one: one.version)
