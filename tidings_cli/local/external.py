"""Configured servers, which `tidings up` does not start: reachable, and recent enough?

Probed with a few bytes and short time-outs before anything starts, so that a wrong URL is one clear line.
"""

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import Any

import redis

from services.lifecycle import CannotStart
from services.redis_client import close_redis, display_address, infos, one_line, open_redis
from services.servers import (
    NATS_MINIMUM,
    REDIS_MINIMUM,
    Version,
    parse_nats_url,
    parse_version,
    spell_version,
)
from services.settings import Settings

_REACH_S = 3.0


class UnusableServer(RuntimeError):
    """A server cannot be used; the message names it, without credentials, and its setting."""


@dataclass(frozen=True, slots=True)
class ExternalServer:
    product: str
    version: Version
    address: str

    def __str__(self) -> str:
        return f"{self.product} {spell_version(self.version)} at {self.address}"


def _recent_enough(text: object, minimum: Version, server: str) -> Version:
    version = parse_version(str(text or ""))
    if version < minimum:
        least = spell_version(minimum)
        raise UnusableServer(f"{server} is {spell_version(version)}; {least} or newer is needed")
    return version


def check_nats_info(info: dict[str, Any], address: str) -> ExternalServer:
    """Return the server of an INFO line.

    Raises:
        UnusableServer: too old, or without JetStream.
    """
    version = _recent_enough(info.get("version"), NATS_MINIMUM, f"NATS at {address} (TIDINGS_NATS_URL)")
    if not info.get("jetstream"):
        raise UnusableServer(
            f"NATS at {address} (TIDINGS_NATS_URL) runs without JetStream; start it with --jetstream"
        )
    return ExternalServer("NATS", version, address)


def check_redis_info(info: dict[str, Any], address: str) -> ExternalServer:
    """Return the server of `INFO server`.

    Raises:
        UnusableServer: too old.
    """
    # Valkey reports the compatible Redis version beside its own.
    found = info.get("redis_version")
    version = _recent_enough(found, REDIS_MINIMUM, f"Redis at {address} (TIDINGS_REDIS_URL)")
    if "valkey_version" in info:
        return ExternalServer("Valkey", parse_version(str(info.get("valkey_version", ""))), address)
    return ExternalServer("Redis", version, address)


async def probe_nats(urls: str) -> ExternalServer:
    """Check the first server of a comma-separated list that answers.

    Raises:
        UnusableServer: none answers, or the first one that answers cannot be used.
    """
    try:
        nodes = parse_nats_url(urls).nodes
    except ValueError as fault:
        raise UnusableServer(f"TIDINGS_NATS_URL {fault}") from None
    faults: list[str] = []
    for host, port in nodes:
        address = f"{host}:{port}"
        try:
            async with asyncio.timeout(_REACH_S):
                return check_nats_info(await nats_info(host, port), address)
        except TimeoutError:
            faults.append(f"{address}: no answer within {_REACH_S:g} s")
        except OSError as fault:
            faults.append(f"{address}: {fault.strerror or fault}")
    raise UnusableServer(f"cannot reach NATS (TIDINGS_NATS_URL): {'; '.join(faults)}")


async def nats_info(host: str, port: int) -> dict[str, Any]:
    """Return the INFO that a NATS server sends before TLS and credentials."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        line = await reader.readline()
        verb, _, body = line.partition(b" ")
        if verb != b"INFO":
            raise UnusableServer(f"the program on {host}:{port} (TIDINGS_NATS_URL) is not a NATS server")
        info = json.loads(body)
        return info if isinstance(info, dict) else {}
    finally:
        writer.close()


async def probe_redis(settings: Settings) -> ExternalServer:
    """Log in to the server (all masters of a cluster, the master behind Sentinels), and check it.

    Raises:
        UnusableServer: it does not answer, refuses the password, or is too old.
    """
    try:
        client = open_redis(settings, "check", timeout_s=_REACH_S)
    except CannotStart as fault:
        raise UnusableServer(str(fault)) from None
    address = display_address(settings.redis_url)
    try:
        found = [check_redis_info(info, address) for info in await infos(client)]
    except (redis.RedisError, redis.RedisClusterException, OSError, ssl.SSLError) as fault:
        raise UnusableServer(
            f"cannot use Redis at {address} (TIDINGS_REDIS_URL): {one_line(fault)}"
        ) from None
    finally:
        await close_redis(client)
    return min(found, key=lambda one: one.version)
