"""The Kubernetes manifests as kustomize renders them, and what tests ask of them."""

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from tests.support.docs import ROOT
from tests.support.requires import need

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("dev", "tilt", "prod")
PROCESSES = ("gateway", "presence", "metrics", "agent")

# The one in C where there is one: ten times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Resource = dict[str, Any]
Labels = Mapping[str, str]


@cache
def _rendered(overlay: str) -> str:
    kustomize = need("kustomize", "Debian: apt-get install kustomize")
    done = subprocess.run(
        [kustomize, "build", str(FOLDER / "overlays" / overlay)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment, StatefulSet or DaemonSet."""

    resource: Resource

    @property
    def name(self) -> str:
        return str(self.resource["metadata"]["name"])

    @property
    def kind(self) -> str:
        return str(self.resource["kind"])

    @property
    def namespace(self) -> str:
        return str(self.resource["metadata"]["namespace"])

    @property
    def labels(self) -> Labels:
        """The labels of its pods."""
        labels: Labels = self.resource["spec"]["template"]["metadata"]["labels"]
        return labels

    @property
    def pod(self) -> dict[str, Any]:
        pod: dict[str, Any] = self.resource["spec"]["template"]["spec"]
        return pod

    @property
    def container(self) -> dict[str, Any]:
        """Its one container."""
        (container,) = self.pod["containers"]
        assert isinstance(container, dict)
        return container

    def port(self, name: object) -> int:
        """Return the number of a port, given by number or by name."""
        if isinstance(name, int):
            return name
        (number,) = [port["containerPort"] for port in self.container["ports"] if port["name"] == name]
        return int(number)


class Manifests:
    """All resources of one overlay."""

    def __init__(self, overlay: str) -> None:
        self.overlay = overlay
        self.text = _rendered(overlay)
        self.resources: list[Resource] = [one for one in yaml.load_all(self.text, _LOADER) if one]

    def of(self, *kinds: str) -> list[Resource]:
        """Return the resources of some kinds."""
        return [resource for resource in self.resources if resource["kind"] in kinds]

    def get(self, kind: str, name: str, namespace: str = "tidings") -> Resource:
        """Return one resource; a generated name may end with a hash."""
        (found,) = [
            resource
            for resource in self.of(kind)
            if resource["metadata"].get("namespace") == namespace
            and (
                resource["metadata"]["name"] == name
                or resource["metadata"]["name"].rpartition("-")[0] == name
            )
        ]
        return found

    @property
    def workloads(self) -> list[Workload]:
        """Everything that makes pods."""
        return [Workload(resource) for resource in self.of("Deployment", "StatefulSet", "DaemonSet")]

    def workload(self, name: str) -> Workload:
        """Return the one of that name."""
        (found,) = [workload for workload in self.workloads if workload.name == name]
        return found

    @property
    def processes(self) -> list[Workload]:
        """The processes of Tidings."""
        return [self.workload(name) for name in PROCESSES]

    def environment(self, workload: Workload) -> dict[str, str]:
        """Return a container's variables as Kubernetes makes them; secrets are `SECRET:NAME:KEY`, fields `FIELD:PATH`.

        `$(NAME)` is replaced where NAME stands before it in `env`, and stays where it does not.
        """
        values: dict[str, str] = {}
        for source in workload.container.get("envFrom", []):
            values |= self.get("ConfigMap", _base(source["configMapRef"]["name"]), workload.namespace)["data"]
        known: dict[str, str] = {}
        for variable in workload.container.get("env", []):
            known[variable["name"]] = _value(variable, known)
        return values | known


def _base(name: str) -> str:
    return name.rpartition("-")[0] if name.count("-") else name


def _value(variable: dict[str, Any], known: Mapping[str, str]) -> str:
    if "value" in variable:
        text = str(variable["value"])
        for name, value in known.items():
            text = text.replace(f"$({name})", value)
        return text
    source = variable["valueFrom"]
    if "secretKeyRef" in source:
        return f"SECRET:{source['secretKeyRef']['name']}:{source['secretKeyRef']['key']}"
    return f"FIELD:{source['fieldRef']['fieldPath']}"


@cache
def manifests(overlay: str) -> Manifests:
    """Return an overlay, rendered once for all tests."""
    return Manifests(overlay)


def containers(pod: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all containers of a pod."""
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


def secret_references(workload: Workload) -> Iterator[tuple[str, str, str, bool]]:
    """Yield namespace, name, key (empty: the whole) and whether it may be missing, of each secret a pod refers to."""
    for container in containers(workload.pod):
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                yield (
                    workload.namespace,
                    reference["name"],
                    reference["key"],
                    reference.get("optional", False),
                )
    for volume in workload.pod.get("volumes", []):
        for source in volume.get("projected", {}).get("sources", []):
            for item in source.get("secret", {}).get("items", []):
                yield workload.namespace, source["secret"]["name"], item["key"], False
        if "secret" in volume:
            yield (
                workload.namespace,
                volume["secret"]["secretName"],
                "",
                volume["secret"].get("optional", False),
            )


def selects(selector: Mapping[str, Any] | None, labels: Labels) -> bool:
    """Whether a label selector selects; an empty one selects all."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True
