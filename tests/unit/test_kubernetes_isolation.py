"""Allowed connections, restrictions of pods, and the secrets of each: the ownership table in Kubernetes."""

from typing import Any

import pytest

from services.permissions import Role
from services.permissions.redis import ROLES as WITH_STATE
from tests.support.manifests import OVERLAYS, PROCESSES, Manifests, containers, manifests, secret_references
from tests.support.network_policies import CLOUD_DNS, DNS, NODE_DNS, PROMETHEUS, STRANGER, Pod, pods, reaches

both = pytest.mark.parametrize("overlay", OVERLAYS)


def _expected(of: Manifests) -> set[tuple[str, str]]:
    """Every connection there is, by what opens it and to which port of what."""
    found = {("stranger", "gateway:8080"), ("prometheus", "gateway:8080")}
    found |= {(process, "nats:4222") for process in PROCESSES}
    found |= {(str(role), "redis:6379") for role in WITH_STATE}
    found |= {("prometheus", f"{process}:8081") for process in PROCESSES}
    if of.overlay == "prod":
        found.add(("nats", "nats:6222"))
        found |= {(str(role), "sentinel:26379") for role in WITH_STATE}
        found |= {
            (server, port) for server in ("redis", "sentinel") for port in ("redis:6379", "sentinel:26379")
        }
    return found


@both
def test_connections_are_those_of_the_ownership_table(overlay: str) -> None:
    of = manifests(overlay)
    inside = pods(of)
    sources: dict[str, Pod] = {**inside, "prometheus": PROMETHEUS, "stranger": STRANGER}
    open_ports = {
        (source, f"{target}:{port['containerPort']}")
        for source, pod in sources.items()
        for target in inside
        for port in of.workload(target).container["ports"]
        if reaches(of, pod, inside[target], port["containerPort"])
    }
    assert open_ports == _expected(of)
    # Whatever else may listen there one day.
    for source, pod in sources.items():
        assert not any(reaches(of, pod, target, 9999) for target in inside.values()), source


@both
def test_services_of_the_application_reach_nats_alone(overlay: str) -> None:
    of = manifests(overlay)
    inside = pods(of)
    app = Pod("tidings", {"app": "orders", "tidings/calls": "true"})
    reached = {
        (name, port["containerPort"])
        for name, pod in inside.items()
        for port in of.workload(name).container["ports"]
        if reaches(of, app, pod, port["containerPort"])
    }
    assert reached == {("nats", 4222)}
    assert not reaches(of, Pod("tidings", {"app": "orders"}), inside["nats"], 4222)
    assert not reaches(of, Pod("elsewhere", app.labels, policed=False), inside["nats"], 4222)


@both
def test_gateways_cannot_reach_redis(overlay: str) -> None:
    of = manifests(overlay)
    inside = pods(of)
    assert not reaches(of, inside["gateway"], inside["redis"], 6379)
    assert not reaches(of, inside["agent"], inside["redis"], 6379)
    gateway = of.workload("gateway")
    assert "redis" not in str(gateway.resource).lower()


@both
def test_names_can_be_looked_up_and_nothing_else_outside_reached(overlay: str) -> None:
    of = manifests(overlay)
    for name, pod in pods(of).items():
        for server in (DNS, NODE_DNS, CLOUD_DNS):
            assert reaches(of, pod, server, 53, "UDP"), (name, server)
            assert reaches(of, pod, server, 53, "TCP"), (name, server)
            assert not reaches(of, pod, server, 443), (name, server)
        assert not reaches(of, pod, STRANGER, 443), name


@both
def test_every_port_that_a_policy_opens_has_a_listener(overlay: str) -> None:
    of = manifests(overlay)
    listened = {
        port["containerPort"] for workload in of.workloads for port in workload.container["ports"]
    } | {53}
    opened = {
        port["port"]
        for policy in of.of("NetworkPolicy")
        for way in ("ingress", "egress")
        for rule in policy["spec"].get(way, [])
        for port in rule.get("ports", [])
    }
    assert opened - listened == set()
    for policy in of.of("NetworkPolicy"):
        for way in ("ingress", "egress"):
            for rule in policy["spec"].get(way, []):
                assert rule.get("ports"), f"{policy['metadata']['name']} opens every port"


@both
def test_every_namespace_is_closed_first(overlay: str) -> None:
    of = manifests(overlay)
    for namespace in {workload.namespace for workload in of.workloads}:
        spec = of.get("NetworkPolicy", "default-deny", namespace)["spec"]
        assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def _restricted(pod: dict[str, Any]) -> None:
    """Assert the Pod Security Standard `restricted`, except for volumes."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        assert not pod.get(name)
    for container in containers(pod):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in security
        assert all("hostPort" not in port for port in container.get("ports", []))


@both
def test_pods_may_do_as_little_as_they_need(overlay: str) -> None:
    for workload in manifests(overlay).workloads:
        _restricted(workload.pod)
        assert workload.pod["automountServiceAccountToken"] is False
        for container in containers(workload.pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


@both
def test_only_the_agent_sees_its_host_and_only_to_read(overlay: str) -> None:
    of = manifests(overlay)
    for workload in of.workloads:
        host = [volume for volume in workload.pod.get("volumes", []) if "hostPath" in volume]
        if workload.name != "agent":
            assert host == []
            continue
        assert [volume["hostPath"]["path"] for volume in host] == ["/proc"]
        (mount,) = [one for one in workload.container["volumeMounts"] if one["name"] == host[0]["name"]]
        assert mount["readOnly"] is True
        assert of.environment(workload)["TIDINGS_AGENT_PROC"] == mount["mountPath"]
    levels = {
        space["metadata"]["name"]: space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for space in of.of("Namespace")
        if space["metadata"]["name"] in {workload.namespace for workload in of.workloads}
    }
    assert levels == {"tidings": "restricted", "tidings-agent": "privileged"}
    assert {workload.name for workload in of.workloads if workload.namespace == "tidings-agent"} == {"agent"}


@both
def test_each_process_sees_its_own_passwords_alone(overlay: str) -> None:
    """The users are those that `tidings permissions` explains."""
    assert {*PROCESSES, "app"} == {str(role) for role in Role}
    of = manifests(overlay)
    for process in of.processes:
        seen = {(name, key) for _, name, key, _ in secret_references(process)}
        expected = {("tidings-nats", process.name)}
        if process.name in {str(role) for role in WITH_STATE}:
            expected.add(("tidings-redis", process.name))
            if overlay == "prod":
                expected.add(("tidings-redis", "sentinel-login"))
        if process.name == "gateway":
            expected |= {("tidings-auth", key) for key in ("jwt-secrets", "session-secret", "api-keys")}
        if overlay == "prod":
            expected.add(("tidings-ca", ""))
        assert seen == expected


@both
def test_secrets_are_referred_to_and_never_in_the_tree(overlay: str) -> None:
    of = manifests(overlay)
    assert of.of("Secret") == []
    values = [
        variable["value"]
        for workload in of.workloads
        for container in containers(workload.pod)
        for variable in container.get("env", [])
        if "value" in variable
    ]
    for value in values:
        if "@" in value:
            assert "PASSWORD)@" in value, "a password in the manifests"
