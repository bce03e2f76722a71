"""The files for Prometheus and Grafana are valid, and name existing metrics."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.telemetry import Declaration, MetricName
from tests.support.requires import need

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
_NAME = re.compile(r"\btidings_[a-z_]+")


def _series(declared: Declaration) -> set[str]:
    if declared.kind == "histogram":
        return {f"{declared.name}_{suffix}" for suffix in ("bucket", "sum", "count")}
    return {declared.name}


KNOWN = set().union(*(_series(metric.value) for metric in MetricName))


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def test_the_dashboard_names_metrics_that_exist() -> None:
    expressions = [target["expr"] for panel in panels() for target in panel["targets"]]
    named = set().union(*map(_NAME.findall, expressions))
    assert named - KNOWN == set()
    assert len(named) >= 20


def test_the_dashboards_panels_are_apart_and_read_the_chosen_source() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])


def test_labels_in_legends_are_declared() -> None:
    declared = {label for metric in MetricName for label in metric.value.labels} | {"instance", "job"}
    for panel in panels():
        for target in panel["targets"]:
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= declared


def test_the_alert_rules_name_metrics_that_exist() -> None:
    assert set(_NAME.findall((FOLDER / "tidings.rules.yml").read_text())) - KNOWN == set()


@pytest.mark.parametrize(("what", "name"), [("rules", "tidings.rules.yml"), ("config", "prometheus.yml")])
def test_prometheus_reads_them(what: str, name: str) -> None:
    promtool = need("promtool", "Debian: apt-get install prometheus")
    done = subprocess.run([promtool, "check", what, str(FOLDER / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


_READY = 'tidings_ready{check="%s",job="tidings-%s",instance="%s"}'
_UP = "1x16"
_DOWN = "0x40"
# What Prometheus scrapes every 15 s for four minutes, and from then on.
_OUTAGES = {
    "NATS is gone, and nothing is published": (
        ["TidingsBusLost", "TidingsNoGatewayTakesClients"],
        {_READY % ("bus", "gateway", "g"): (_UP, _DOWN), _READY % ("bus", "presence", "p"): (_UP, _DOWN)},
    ),
    "NATS takes no messages": (
        ["TidingsMessagesNotStored"],
        {
            'tidings_bus_publishes_total{outcome="stored",instance="g"}': ("0+15x16", "240+0x40"),
            'tidings_bus_publishes_total{outcome="not_stored",instance="g"}': ("0x16", "0+15x40"),
        },
    ),
    "Redis is gone": (
        ["TidingsRedisLost"],
        {_READY % ("redis", "presence", "p"): (_UP, _DOWN), _READY % ("redis", "metrics", "m"): (_UP, _DOWN)},
    ),
    "no gateway is left to scrape": (
        ["TidingsNoGatewayTakesClients"],
        {_READY % ("serving", "gateway", "g"): (_UP, "stale")},
    ),
    "every gateway drains": (
        ["TidingsNoGatewayTakesClients"],
        {_READY % ("serving", "gateway", "g"): (_UP, _DOWN)},
    ),
    "metrics_svc is gone": (
        ["TidingsNoMetricsLeader"],
        {'tidings_metrics_leader{instance="m"}': (_UP, "stale")},
    ),
    "the application does not answer hooks": (
        ["TidingsHooksUnanswered"],
        {'tidings_hook_breaker_open{instance="g"}': ("0x16", "1x40")},
    ),
    "presence_svc is gone": (
        ["TidingsNoPresence"],
        {'up{job="tidings-presence",instance="p"}': (_UP, "stale")},
    ),
}


@pytest.mark.parametrize(("alerts", "series"), _OUTAGES.values(), ids=_OUTAGES.keys())
def test_an_outage_raises_its_critical_alert_within_a_minute(
    alerts: list[str], series: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    promtool = need("promtool", "Debian: apt-get install prometheus")
    groups = yaml.safe_load((FOLDER / "tidings.rules.yml").read_text())["groups"]
    rules = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    assert {rules[alert]["labels"]["severity"] for alert in alerts} == {"critical"}
    case = {
        "interval": "15s",
        "input_series": [
            {"series": name, "values": f"{before} {after}"} for name, (before, after) in series.items()
        ],
        "alert_rule_test": [
            {
                "eval_time": at,
                "alertname": alert,
                "exp_alerts": [
                    {"exp_labels": rules[alert]["labels"], "exp_annotations": rules[alert]["annotations"]}
                ][:fires],
            }
            for alert in alerts
            for at, fires in (("4m", 0), ("5m15s", 1))
        ],
    }
    file = tmp_path / "test.yml"  # JSON is YAML
    tests = {"rule_files": [str(FOLDER / "tidings.rules.yml")], "evaluation_interval": "15s", "tests": [case]}
    file.write_text(json.dumps(tests))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
