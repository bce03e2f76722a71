"""Every process's `/metrics`: lint-free by promtool, and scraped by a real Prometheus."""

import asyncio
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from services.settings import Settings
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.metrics_fleet import Fleet
from tests.support.requires import need
from tidings_cli.local.processes import free_port

pytestmark = pytest.mark.timeout(120)

ADVICE = "Debian: apt-get install prometheus"
RULES = Path(__file__).resolve().parents[2] / "deploy" / "monitoring" / "tidings.rules.yml"
MODULES = {
    "tidings-gateway": "gateway",
    "tidings-presence": "presence_svc",
    "tidings-metrics": "metrics_svc",
    "tidings-agent": "metrics_svc.agent",
}


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  # our own processes
            body: bytes = answer.read()
            return body
    except (urllib.error.URLError, OSError):
        return b""


@pytest.fixture
async def ports(make_settings: Callable[..., Settings], tmp_path: Path) -> AsyncIterator[dict[str, int]]:
    """One process of each kind, and where its metrics are."""
    ports = {job: free_port() for job in MODULES}
    async with Fleet(make_settings(), tmp_path) as fleet:
        for job, module in MODULES.items():
            where = "TIDINGS_PORT" if module == "gateway" else "TIDINGS_HEALTH_PORT"
            fleet.start(module, **{where: str(ports[job])})
        for port in ports.values():
            url = f"http://127.0.0.1:{port}/metrics"
            await eventually(lambda url=url: asyncio.to_thread(_get, url), url, 30)
        await eventually(lambda: len(fleet.ticks) > 2, "records")
        yield ports


async def test_metrics_are_lint_free(ports: dict[str, int]) -> None:
    promtool = need("promtool", ADVICE)
    for job, port in ports.items():
        text = await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/metrics")
        assert b"tidings_build_info" in text
        done = await asyncio.to_thread(
            subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True
        )
        assert done.returncode == 0, (job, done.stdout, done.stderr)
        assert done.stderr == b"", job


@pytest.fixture
def prometheus(ports: dict[str, int], tmp_path: Path) -> Iterator[str]:
    """A Prometheus that scrapes them each half second, with the rules of the repository."""
    binary = need("prometheus", ADVICE)
    jobs = "".join(
        f"  - job_name: {job}\n    static_configs:\n      - targets: ['127.0.0.1:{port}']\n"
        for job, port in ports.items()
    )
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n"
        f"rule_files: ['{RULES}']\nscrape_configs:\n{jobs}"
    )
    port = free_port()
    with (tmp_path / "prometheus.log").open("wb") as output:
        process = subprocess.Popen(
            [
                binary, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output, stderr=output,
        )  # fmt: skip
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(PATIENCE_S)


async def test_a_real_prometheus_scrapes_them(prometheus: str) -> None:
    async with httpx.AsyncClient(base_url=prometheus, timeout=PATIENCE_S) as client:

        async def query(expression: str) -> dict[str, float]:
            try:
                answer = await client.get("/api/v1/query", params={"query": expression})
            except httpx.TransportError:
                return {}
            if answer.status_code != 200:  # it says so in words while it starts
                return {}
            found = answer.json().get("data", {}).get("result", [])
            return {sample["metric"].get("job", ""): float(sample["value"][1]) for sample in found}

        async def all_up() -> bool:
            return await query("up") == dict.fromkeys(MODULES, 1.0)

        await eventually(all_up, "all targets up")
        assert await query("tidings_metrics_leader") == {"tidings-metrics": 1.0}
        assert "tidings-gateway" in await query("tidings_gateway_connections")
        assert await query('tidings_agent_reports_total{outcome="sent"} > 0')
        groups = (await client.get("/api/v1/rules")).json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert len(rules) >= 10
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
