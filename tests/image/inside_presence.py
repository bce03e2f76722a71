"""Runs in a container of presence, which reaches NATS and Redis: their answers to unknown users."""

import json
import socket
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

TLS = {"ssl": True, "ssl_ca_certs": "/run/secrets/ca"}


def nats_without_tls() -> str:
    """Return what a NATS server says to a login in the clear."""
    with socket.create_connection(("nats-1", 4222), 3) as plain:
        plain.recv(4096)
        plain.sendall(b'CONNECT {"user":"gateway","pass":"x"}\r\nPING\r\n')
        return plain.recv(4096).decode(errors="replace")


def asked(*command: str, **how: Any) -> Any:
    """Return what a Redis answers, or why it does not."""
    try:
        once = {"host": "redis-1", "socket_timeout": 3, "retry": Retry(NoBackoff(), 0)}
        return redis.Redis(**(once | how)).execute_command(*command)
    except redis.RedisError as fault:
        return f"{type(fault).__name__}: {fault}"


def main() -> None:
    """Print what was found as one JSON object."""
    url = Path("/run/secrets/presence_redis_url").read_text()
    login = {"username": "presence", "password": url.partition("presence:")[2].partition("@")[0]}
    found = {
        "nats without TLS": nats_without_tls(),
        "redis without TLS": asked("PING"),
        "nobody": asked("PING", **TLS),
        "nobody at a sentinel": asked("PING", **TLS, host="sentinel-1", port=26379),
        "flush": asked("FLUSHALL", **TLS, **login),
        "another's key": asked("GET", "{tidings:metrics}:x", **TLS, **login),
        "its own key": asked("EXISTS", "{tidings:presence}:x", **TLS, **login),
    }
    print(json.dumps(found))  # noqa: T201  # what it is run for


main()
