"""Redundancy in production, roll-outs and drains one pod at a time, and autoscaling of gateways by connections."""

import re
from typing import Any

import pytest
import yaml

from services.telemetry import MetricName
from tests.support.manifests import FOLDER, OVERLAYS, PROCESSES, Manifests, manifests, selects

both = pytest.mark.parametrize("overlay", OVERLAYS)
SERVICES = ("gateway", "presence", "metrics")


def _autoscaler() -> dict[str, Any]:
    (autoscaler,) = manifests("prod").of("HorizontalPodAutoscaler")
    spec: dict[str, Any] = autoscaler["spec"]
    return spec


def _replicas(of: Manifests, name: str) -> int:
    workload = of.workload(name)
    for autoscaler in of.of("HorizontalPodAutoscaler"):
        target = autoscaler["spec"]["scaleTargetRef"]
        if (target["kind"], target["name"]) == (workload.kind, name):
            assert "replicas" not in workload.resource["spec"], "each `apply` would undo the autoscaler"
            return int(autoscaler["spec"]["minReplicas"])
    return int(workload.resource["spec"]["replicas"])


def test_production_has_two_of_each_service_and_a_majority_of_servers() -> None:
    for name in SERVICES:
        assert _replicas(manifests("prod"), name) >= 2
    assert _replicas(manifests("prod"), "nats") == 3
    assert _replicas(manifests("prod"), "redis") == 2
    assert _replicas(manifests("prod"), "sentinel") == 3


@both
def test_selectors_select_their_own_pods_alone(overlay: str) -> None:
    of = manifests(overlay)
    for workload in of.workloads:
        selector = workload.resource["spec"]["selector"]
        selected = [other.name for other in of.workloads if selects(selector, other.labels)]
        assert selected == [workload.name]
    for service in of.of("Service"):
        selector = dict(service["spec"]["selector"])
        pod = selector.pop("statefulset.kubernetes.io/pod-name", "")
        (workload, *others) = [
            one
            for one in of.workloads
            if selects({"matchLabels": selector}, one.labels)
            and (not pod or pod.rpartition("-")[0] == one.name)
        ]
        assert not others or service["metadata"]["name"] == "redis-servers"
        for port in service["spec"].get("ports", []):
            assert workload.port(port["targetPort"]) == port["port"]


@both
def test_drains_of_nodes_take_one_pod_at_a_time(overlay: str) -> None:
    of = manifests(overlay)
    guarded = {}
    for budget in of.of("PodDisruptionBudget"):
        (workload,) = [one for one in of.workloads if selects(budget["spec"]["selector"], one.labels)]
        guarded[workload.name] = budget["spec"]["maxUnavailable"]
    expected = {*SERVICES, "nats", "redis", "sentinel"} if overlay == "prod" else {*SERVICES}
    assert guarded == dict.fromkeys(expected, 1)


@both
@pytest.mark.parametrize("name", SERVICES)
def test_a_new_pod_serves_before_an_old_one_goes(overlay: str, name: str) -> None:
    spec = manifests(overlay).workload(name).resource["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert spec["minReadySeconds"] >= 5


def test_replicas_are_spread() -> None:
    of = manifests("prod")
    for name in (*SERVICES, "nats"):
        workload = of.workload(name)
        keys = {constraint["topologyKey"] for constraint in workload.pod["topologySpreadConstraints"]}
        assert "topology.kubernetes.io/zone" in keys
        for constraint in workload.pod["topologySpreadConstraints"]:
            assert selects(constraint["labelSelector"], workload.labels)
        apart = workload.pod["affinity"]["podAntiAffinity"]
        for term in [
            *apart.get("requiredDuringSchedulingIgnoredDuringExecution", []),
            *(
                one["podAffinityTerm"]
                for one in apart.get("preferredDuringSchedulingIgnoredDuringExecution", [])
            ),
        ]:
            assert term["topologyKey"] == "kubernetes.io/hostname"
            assert selects(term["labelSelector"], workload.labels)
    assert (
        "requiredDuringSchedulingIgnoredDuringExecution"
        in of.workload("nats").pod["affinity"]["podAntiAffinity"]
    )


def test_gateways_scale_by_metrics_that_they_have() -> None:
    asked = {
        metric["pods"]["metric"]["name"] for metric in _autoscaler()["metrics"] if metric["type"] == "Pods"
    }
    assert asked == {MetricName.GATEWAY_CONNECTIONS.value.name, MetricName.GATEWAY_SSE_STREAMS.value.name}
    assert {metric.value.kind for metric in MetricName if metric.value.name in asked} == {"gauge"}

    values = yaml.safe_load(
        (FOLDER / "components" / "autoscaling" / "prometheus-adapter.values.yaml").read_text()
    )
    (rule,) = values["rules"]["custom"]
    (pattern,) = re.findall(r'__name__=~"([^"]+)"', rule["seriesQuery"])
    answered = {metric.value.name for metric in MetricName if re.fullmatch(pattern, metric.value.name)}
    assert answered == asked
    assert "name" not in rule, "the autoscaler asks by the metric's own name"
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}


def test_gateways_go_slowly_and_come_at_once() -> None:
    spec = _autoscaler()
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gateway"}
    assert spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 0
    down = spec["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 900
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]
    grace_s = manifests("prod").workload("gateway").pod["terminationGracePeriodSeconds"]
    assert down["policies"][0]["periodSeconds"] > grace_s, "one gateway is gone before the next goes"


def test_what_is_scraped_has_the_jobs_that_rules_and_dashboard_know() -> None:
    of = manifests("prod")
    monitor = of.get("PodMonitor", "tidings")["spec"]
    scraped = {
        process.name
        for process in of.workloads
        if selects(monitor["selector"], process.labels)
        and process.namespace in monitor["namespaceSelector"]["matchNames"]
    }
    assert scraped == set(PROCESSES)
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["path"] == "/metrics"
    assert {of.workload(name).port(endpoint["port"]) for name in scraped} == {8081}
    job = next(rule for rule in endpoint["relabelings"] if rule["targetLabel"] == "job")
    assert job["sourceLabels"] == ["__meta_kubernetes_pod_label_app_kubernetes_io_component"]
    jobs = {
        job["replacement"].replace("$1", of.workload(name).labels["app.kubernetes.io/component"])
        for name in scraped
    }
    monitoring = FOLDER.parent / "monitoring"
    configured = yaml.safe_load((monitoring / "prometheus.yml").read_text())["scrape_configs"]
    # HAProxy stands in front of the compose file alone.
    assert jobs == {one["job_name"] for one in configured} - {"tidings-lb"}

    rules = yaml.safe_load((monitoring / "tidings.rules.yml").read_text())
    assert of.get("PrometheusRule", "tidings")["spec"] == rules, "run: make docs"
    dashboard = of.get("ConfigMap", "tidings-dashboard")
    assert dashboard["data"]["tidings.json"] == (monitoring / "grafana-dashboard.json").read_text()
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
