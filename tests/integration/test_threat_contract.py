"""Requests generated from the contract, valid and invalid: none breaks the server."""

import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.deadline import PATIENCE_S, wait_until
from tests.support.deployment import Deployment
from tests.support.requires import missing
from tests.support.secured import KEY, SERVER, WITH_TOKENS
from tidings_cli.local.servers import NatsServer, RedisServer

_EXAMPLES = 15
# 503 says that a service did not answer in time, which happens where many processes share two cores. It may happen
# now and then, and that it is not because one broke is asked afterwards.
_UNAVAILABLE_AT_MOST = 0.01
_CONFIGURATION = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
"""


@pytest.mark.timeout(270)
def test_no_request_of_the_contract_breaks_the_server(
    nats_server: NatsServer, redis_server: RedisServer, prefix: str, tmp_path: Path
) -> None:
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if program is None:
        missing("schemathesis", "`uv sync --group fuzz`")
    settings: dict[str, object] = {
        **WITH_TOKENS,
        "nats_url": nats_server.url,
        "redis_url": redis_server.url,
        "prefix": prefix,
        "body_timeout_s": 2,
    }
    with Deployment(tmp_path, gateways=1, **settings) as deployment:
        gateway = deployment.gateways[0]
        (tmp_path / "schemathesis.toml").write_text(_CONFIGURATION)
        command = [
            str(program), "--config-file", str(tmp_path / "schemathesis.toml"), "run", f"{gateway.url}/openapi.json", "--header", f"X-API-Key: {KEY}",
            "--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing",
            "--max-examples", str(_EXAMPLES), "--exclude-path-regex", "^(/events.*|/metrics)$", "--generation-database", "none",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout[-6000:]
        total, unavailable = answered(gateway.url)
        assert total > 300
        assert unavailable <= _UNAVAILABLE_AT_MOST * total
        for process in (*deployment.services, gateway):
            wait_until(process.ready, f"{process.name} to be well")
        for path in ("/api/presence", "/api/alerts", "/api/metrics/history", "/api/rooms", "/api/silences"):
            wait_until(lambda path=path: read(gateway.url + path) == 200, path)  # type: ignore[misc]
        assert deployment.faults() == []


def answered(url: str) -> tuple[float, float]:
    """Return how many requests were answered, and how many of them by 503."""
    figures = dict(
        line.rsplit(" ", 1)
        for line in httpx.get(f"{url}/metrics", timeout=PATIENCE_S).text.splitlines()
        if line[:1] != "#"
    )
    by_503 = 'tidings_gateway_refusals_total{code="http_503"}'
    return float(figures["tidings_gateway_requests_total"]), float(figures.get(by_503, 0))


def read(url: str) -> int:
    return httpx.get(url, headers=SERVER, timeout=PATIENCE_S).status_code
