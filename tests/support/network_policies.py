"""Connections that NetworkPolicies allow, by the rules of the API (networking.k8s.io/v1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from tests.support.manifests import Labels, Manifests, selects


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as policies see it. `policed` is false outside of our namespaces: there, others' policies hold.

    An `address` makes it something on the network that is no pod: only an `ipBlock` selects it.
    """

    namespace: str
    labels: Labels
    policed: bool = True
    address: str = ""


# The name server of a cluster, Prometheus where its operator is usually put, and whatever stands before the gateways.
DNS = Pod("kube-system", {"k8s-app": "kube-dns"}, policed=False)
PROMETHEUS = Pod("monitoring", {"app.kubernetes.io/name": "prometheus"}, policed=False)
NODE_DNS = Pod("", {}, policed=False, address="169.254.20.10")
CLOUD_DNS = Pod("", {}, policed=False, address="169.254.169.254")
STRANGER = Pod("elsewhere", {"app": "anything"}, policed=False)


def pods(of: Manifests) -> dict[str, Pod]:
    """Return a pod of each workload."""
    return {workload.name: Pod(workload.namespace, workload.labels) for workload in of.workloads}


def reaches(of: Manifests, source: Pod, target: Pod, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection from one pod to a port of another is let through, at both ends."""
    return _allows(of, source, target, port, protocol, "egress", "to") and _allows(
        of, target, source, port, protocol, "ingress", "from"
    )


def _allows(of: Manifests, at: Pod, other: Pod, port: int, protocol: str, way: str, peer: str) -> bool:
    if not at.policed:
        return True
    policies = [
        policy["spec"]
        for policy in of.of("NetworkPolicy")
        if policy["metadata"]["namespace"] == at.namespace
        and way.capitalize() in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], at.labels)
    ]
    if not policies:
        return True
    return any(
        _is_peer(rule.get(peer), other, at.namespace) and _is_port(rule.get("ports"), port, protocol)
        for policy in policies
        for rule in policy.get(way, [])
    )


def _is_peer(peers: list[Mapping[str, Any]] | None, other: Pod, namespace: str) -> bool:
    if not peers:
        return True
    blocks = [ip_network(peer["ipBlock"]["cidr"]) for peer in peers if "ipBlock" in peer]
    if other.address:
        return any(ip_address(other.address) in block for block in blocks)
    return any(
        (
            selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace})
            if "namespaceSelector" in peer
            else other.namespace == namespace
        )
        and selects(peer.get("podSelector", {}), other.labels)
        for peer in peers
        if "ipBlock" not in peer
    )


def _is_port(ports: list[Mapping[str, Any]] | None, port: int, protocol: str) -> bool:
    if not ports:
        return True
    return any(rule["port"] == port and rule.get("protocol", "TCP") == protocol for rule in ports)
