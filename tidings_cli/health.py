"""`tidings health`: ask this machine's process how it is. Imports little, because containers run it every few seconds."""

import argparse
import http.client
import os
import sys

_TIMEOUT_S = 3.0
_DEFAULT_PORT = "8080"
_ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where to ask those that bind it

SUMMARY = "Ask the process on this machine, or in this container, whether it lives."


def main(arguments: list[str]) -> int:
    """Print the answer and return the exit code: 0 if it is 200, 1 if it is another or none.

    Where to ask is read from the environment alone, not from `tidings.toml`.
    """
    parser = argparse.ArgumentParser("tidings health", description=SUMMARY)
    parser.add_argument(
        "--ready", action="store_true", help="ask whether it can serve, not just whether it lives"
    )
    parser.add_argument(
        "--port", type=int, help="instead of TIDINGS_HEALTH_PORT or, without one, TIDINGS_PORT"
    )
    given = parser.parse_args(arguments)
    port = given.port or int(_first("TIDINGS_HEALTH_PORT", "TIDINGS_PORT") or _DEFAULT_PORT)
    host = _first("TIDINGS_HEALTH_HOST", "TIDINGS_HOST")
    try:
        status, body = _get(_ANY_ADDRESS.get(host, host), port, "/readyz" if given.ready else "/healthz")
    except ConnectionRefusedError:
        sys.stderr.write(
            f"nothing listens on port {port}: no process of Tidings runs there; name another with --port\n"
        )
        return 1
    except (OSError, http.client.HTTPException) as fault:
        reason = (
            fault.strerror if isinstance(fault, OSError) and fault.strerror else fault or type(fault).__name__
        )
        sys.stderr.write(f"port {port} gives no answer: {reason}\n")
        return 1
    sys.stdout.write(f"{body}\n")
    return 0 if status == http.client.OK else 1


def _first(*variables: str) -> str:
    return next((value for name in variables if (value := os.environ.get(name))), "")


def _get(host: str, port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        with connection.getresponse() as response:
            return response.status, response.read().decode()
    finally:
        connection.close()
