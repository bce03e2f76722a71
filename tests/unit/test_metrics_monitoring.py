"""The files for Prometheus and Grafana name metrics that exist, and are what those programs read."""

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


@pytest.mark.parametrize(
    ("alert", "series"),
    [
        ("TidingsNoMetricsLeader", 'tidings_metrics_leader{instance="m"}'),
        ("TidingsNoGatewayTakesClients", 'tidings_gateway_draining{instance="g"}'),
        ("TidingsNoPresence", 'up{job="tidings-presence",instance="p"}'),
    ],
)
def test_somebody_is_woken_up_when_nothing_is_left_to_scrape(alert: str, series: str, tmp_path: Path) -> None:
    """A sum over nothing is nothing, which is not below 1."""
    promtool = need("promtool", "Debian: apt-get install prometheus")
    well = "0" if alert == "TidingsNoGatewayTakesClients" else "1"
    rules = yaml.safe_load((FOLDER / "tidings.rules.yml").read_text())["groups"]
    (rule,) = [rule for group in rules for rule in group["rules"] if rule["alert"] == alert]
    fires = {"exp_labels": rule["labels"], "exp_annotations": rule["annotations"]}
    case = {
        "interval": "15s",
        "input_series": [{"series": series, "values": f"{well}x19 stale"}],  # gone after 5 minutes
        "alert_rule_test": [
            {"eval_time": "4m", "alertname": alert, "exp_alerts": []},
            {"eval_time": "6m", "alertname": alert, "exp_alerts": [fires]},
        ],
    }
    file = tmp_path / "test.yml"  # JSON is YAML
    file.write_text(json.dumps({"rule_files": [str(FOLDER / "tidings.rules.yml")], "tests": [case]}))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
