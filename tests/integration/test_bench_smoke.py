"""The benchmark runs: each case, small and short, against real servers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.docs import ROOT
from tests.support.requires import need

_SMALL = ["--rounds", "1", "--seconds", "0.3", "--members", "10", "--connections", "50", "--streams", "10"]


def _measured(output: Path, peer: str, *cases: str, gateways: str = "1") -> dict[str, dict[str, float]]:
    """Run these cases for one peer; return its figures by case."""
    command = [
        sys.executable,
        "-m",
        "bench",
        *_SMALL,
        "--peers",
        peer,
        "--cases",
        ",".join(cases),
        "--gateways",
        gateways,
    ]
    done = subprocess.run(
        [*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict" in done.stdout
    kept: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    assert kept["failed"] == []
    return {
        case: {name: peers[peer]["median"] for name, peers in found["figures"].items()}
        for case, found in kept["cases"].items()
    }


@pytest.mark.timeout(180)
def test_every_case_that_a_plain_peer_takes_part_in(tmp_path: Path) -> None:
    cases = ("fanout", "open", "pairs", "publish", "idle", "sse", "compressed")
    found = _measured(tmp_path / "figures.json", "starlette", *cases)
    expected = {"fanout-1", "fanout-8", "fanout-32", "open", "pairs", "publish", "idle", "reconnect"}
    assert set(found) == expected | {"sse", "compressed"}
    for case, figures in found.items():
        assert figures.get("lost", 0) == 0, case
        assert any(value > 0 for name, value in figures.items() if "_per_s" in name), case
        assert any(value > 0 for name, value in figures.items() if name.startswith("cpu_us")), case
    assert 0 < found["open"]["p50_ms"] <= found["open"]["p99_ms"] <= found["open"]["p999_ms"]


@pytest.mark.timeout(180)
def test_the_cases_that_only_tidings_takes_part_in(tmp_path: Path) -> None:
    need("nats-server")
    need("redis-server")
    found = _measured(
        tmp_path / "figures.json", "tidings-durable", "stalled", "gateways", "idle", gateways="2"
    )
    assert all(figures.get("lost", 0) == 0 for figures in found.values())
    assert found["gateways-2"]["bus_messages"] == 2
    assert found["reconnect"]["not_recovered"] == 0


def test_a_wrong_name_is_reported_with_the_right_ones() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--cases", "fan"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "no such cases: fan; there are fanout, open" in done.stderr
