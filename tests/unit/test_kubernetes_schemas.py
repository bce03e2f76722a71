"""Rendered manifests are valid for Kubernetes and the operators beside it."""

import re
from importlib import import_module
from itertools import product
from typing import Any

import pytest
import yaml

from services import __version__
from tests.support.docs import ROOT, name_of, project_files
from tests.support.manifests import FOLDER, OVERLAYS, containers, manifests
from tests.support.requires import missing

# From the first version in which `preStop.sleep` is on by itself.
VERSIONS = ("1.30", "1.37")
OPERATORS = {"monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1"}
GATEWAY_API = "gateway.networking.k8s.io/v1"


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        missing(name, "uv sync --group deploy")


# What differs between versions is in production; the other overlays have the same base.
@pytest.mark.parametrize(
    ("overlay", "version"), [*product(["prod"], VERSIONS), ("dev", VERSIONS[-1]), ("tilt", VERSIONS[-1])]
)
def test_kubernetes_takes_every_resource_of_its_own(overlay: str, version: str) -> None:
    validator = _module("kubernetes_validate")
    for resource in manifests(overlay).resources:
        if resource["apiVersion"] not in {*OPERATORS, GATEWAY_API}:
            validator.validate(resource, version, strict=True)


def test_the_validator_notices_a_misspelt_field() -> None:
    validator = _module("kubernetes_validate")
    deployment = yaml.safe_load(yaml.safe_dump(manifests("dev").workload("gateway").resource))
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    with pytest.raises(validator.ValidationError, match="terminationGracePeriod"):
        validator.validate(deployment, VERSIONS[0], strict=True)


def test_the_prometheus_operator_takes_what_is_for_it() -> None:
    taken = []
    for resource in manifests("prod").resources:
        if resource["apiVersion"] in OPERATORS:
            models = _module(OPERATORS[resource["apiVersion"]])
            read = getattr(models, resource["kind"]).model_validate(resource)
            # The models drop unknown fields, so the result shows a misspelt one.
            assert read.model_dump(by_alias=True, exclude_unset=True, mode="json") == resource
            taken.append(resource["kind"])
    assert sorted(taken) == ["PodMonitor", "PrometheusRule"]


def test_the_way_in_leads_to_the_gateways_without_a_time_limit() -> None:
    prod = manifests("prod")
    # Not among the processes: the proxy of some implementations runs beside the Gateway.
    gateway = prod.get("Gateway", "tidings", "tidings-ingress")["spec"]
    listeners = {listener["name"]: listener for listener in gateway["listeners"]}
    assert {name: (one["protocol"], one["port"]) for name, one in listeners.items()} == {
        "https": ("HTTPS", 443),
        "http": ("HTTP", 80),
    }
    assert listeners["https"]["tls"]["certificateRefs"] == [{"kind": "Secret", "name": "tidings-tls"}]

    rule, inside = prod.get("HTTPRoute", "tidings")["spec"]["rules"]
    whole, stream = rule["matches"]
    assert whole["path"] == {"type": "PathPrefix", "value": "/"}
    # The text for Prometheus is not for clients, the stream of that name is: the longer match wins.
    assert inside["matches"] == [{"path": stream["path"]}]
    assert (stream["path"], stream["headers"]) == (
        {"type": "Exact", "value": "/metrics"},
        [{"name": "accept", "value": "text/event-stream"}],
    )
    assert "backendRefs" not in inside
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    (backend,) = rule["backendRefs"]
    service = prod.get("Service", backend["name"])
    assert backend["port"] in [port["port"] for port in service["spec"]["ports"]]

    (redirect,) = prod.get("HTTPRoute", "tidings-to-https")["spec"]["rules"]
    assert "backendRefs" not in redirect, "plain HTTP reaches a gateway"
    for route in prod.of("HTTPRoute"):
        assert route["apiVersion"] == GATEWAY_API
        assert route["spec"]["hostnames"] == [listeners["https"]["hostname"]]
        (parent,) = route["spec"]["parentRefs"]
        assert (parent["name"], parent["namespace"]) == ("tidings", "tidings-ingress")
        assert parent["sectionName"] in listeners


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_pinned_and_ours_is_this_version(overlay: str) -> None:
    for workload in manifests(overlay).workloads:
        for container in containers(workload.pod):
            tag = container["image"].rpartition(":")[2]
            assert re.fullmatch(r"\d+\.\d+\.\d+(-alpine)?", tag), container["image"]
    for process in manifests(overlay).processes:
        image, _, tag = process.container["image"].rpartition(":")
        assert image.rpartition("/")[2] == "tidings"
        assert tag == __version__
        assert process.container["args"] == [process.name]
        if overlay != "tilt":
            assert "command" not in process.container, "the image's own entry point is `tidings`"


def test_servers_are_those_of_the_compose_files() -> None:
    def servers(image: str) -> tuple[str, ...]:
        name, _, tag = image.rpartition(":")
        return name, *tag.split("-")[0].split(".")[:2]

    ours = {servers(manifests("dev").workload(name).container["image"]) for name in ("nats", "redis")}
    for path in (ROOT / "deploy").glob("compose*.yaml"):
        images = {
            servers(service["image"])
            for service in yaml.safe_load(path.read_text())["services"].values()
            if re.search(r"/(nats|redis):", service.get("image", ""))
        }
        assert images <= ours, path.name


def test_no_file_is_written_twice() -> None:
    """Base, components and overlays share by reference; what stands elsewhere in `deploy/` is not here again."""
    seen: dict[str, str] = {}
    for path in project_files():
        if path.is_relative_to(ROOT / "deploy") and path.suffix in {".yaml", ".yml", ".conf", ".template"}:
            text = "\n".join(
                line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")
            )
            first = seen.setdefault(text.strip(), name_of(path))
            assert first == name_of(path), f"{first} is also {name_of(path)}"


def test_every_manifest_is_used() -> None:
    named = "".join(path.read_text() for path in FOLDER.rglob("kustomization.yaml"))
    for path in FOLDER.rglob("*"):
        if path.suffix in {".yaml", ".conf"} and path.name != "kustomization.yaml":
            assert path.name in named, name_of(path)
