"""`tidings health`: the health of this machine's process. Imports little, because containers run it every few seconds."""

import argparse
import http.client
import os
import sys

_TIMEOUT_S = 3.0
_DEFAULT_PORT = "8080"
_ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # addresses to connect to


def main(arguments: list[str]) -> int:
    """Print the answer and return the exit code: 0 for status 200, 1 for another or none.

    Without `--port` the address comes from the environment alone, not from `tidings.toml`.
    """
    parser = argparse.ArgumentParser(
        "tidings health",
        description="Check that the process on this machine, or in this container, is alive.",
    )
    parser.add_argument(
        "--ready", action="store_true", help="check that it can serve, not only that it is alive"
    )
    parser.add_argument(
        "--port", type=int, help="instead of TIDINGS_HEALTH_PORT or, without one, TIDINGS_PORT"
    )
    given = parser.parse_args(arguments)
    port = given.port or int(_first("TIDINGS_HEALTH_PORT", "TIDINGS_PORT") or _DEFAULT_PORT)
    host = _first("TIDINGS_HEALTH_HOST", "TIDINGS_HOST")
    try:
        status, body = get(_ANY_ADDRESS.get(host, host), port, "/readyz" if given.ready else "/healthz")
    except ConnectionRefusedError:
        sys.stderr.write(
            f"nothing listens on port {port}: no Tidings process runs there; choose another with --port\n"
        )
        return 1
    except (OSError, http.client.HTTPException) as fault:
        reason = (
            fault.strerror if isinstance(fault, OSError) and fault.strerror else fault or type(fault).__name__
        )
        sys.stderr.write(f"port {port} does not answer: {reason}\n")
        return 1
    sys.stdout.write(f"{body}\n")
    return 0 if status == http.client.OK else 1


def local_url(host: str, port: int, scheme: str = "http") -> str:
    """Return the URL for this machine of a server that listens on `host`, which may be all addresses."""
    host = _ANY_ADDRESS.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _first(*variables: str) -> str:
    return next((value for name in variables if (value := os.environ.get(name))), "")


def get(host: str, port: int, path: str) -> tuple[int, str]:
    """Return status and body of an answer."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        with connection.getresponse() as response:
            return response.status, response.read().decode()
    finally:
        connection.close()
