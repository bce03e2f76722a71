"""The examples of the page on Kubernetes are valid for kustomize and Kubernetes, and its tables match the manifests."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.docs import ROOT, blocks
from tests.support.manifests import FOLDER, manifests, secret_references
from tests.support.requires import need

PAGE = ROOT / "docs" / "kubernetes.md"
TEXT = PAGE.read_text()
EXAMPLES = {
    document["kind"]: document
    for block in blocks(PAGE)
    if block.info == "yaml"
    for document in yaml.safe_load_all(block.body)
}


def test_an_overlay_of_ones_own_is_built_on_ours(tmp_path: Path) -> None:
    kustomize = need("kustomize", "Debian: apt-get install kustomize")
    example = EXAMPLES["Kustomization"]
    (address,) = example["resources"]
    place, _, version = address.partition("//")[2].partition("//")[2].partition("?ref=v")
    assert (ROOT / place).is_dir()
    assert version in {image["newTag"] for image in example["images"]}
    # kustomize takes folders by relative paths alone.
    folder = tmp_path / "mine"
    folder.mkdir()
    (tmp_path / "ours").symlink_to(ROOT / "deploy")
    example["resources"] = [f"../ours/{Path(place).relative_to('deploy')}"]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(example))
    done = subprocess.run([kustomize, "build", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert "tidings.example.com" not in {
        host for one in built if one["kind"] == "HTTPRoute" for host in one["spec"]["hostnames"]
    }
    (gateway,) = [one for one in built if one["kind"] == "Gateway"]
    assert {listener["hostname"] for listener in gateway["spec"]["listeners"]} == {"chat.example.org"}
    settings = [one["data"] for one in built if one["metadata"]["name"].startswith("tidings-settings-")]
    assert any(data.get("TIDINGS_ORIGINS") == "https://www.example.org" for data in settings)
    images = {
        container["image"]
        for one in built
        if one["kind"] in ("Deployment", "DaemonSet")
        for container in one["spec"]["template"]["spec"]["containers"]
    }
    assert images == {f"registry.example.org/chat/tidings:{version}"}


def test_the_policy_of_the_example_is_one_for_gateways() -> None:
    policy = EXAMPLES["NetworkPolicy"]
    labels = manifests("prod").workload("gateway").labels
    assert labels.items() >= policy["spec"]["podSelector"]["matchLabels"].items()
    assert policy["metadata"]["namespace"] == "tidings"


def test_the_table_of_secrets_names_all_of_them() -> None:
    rows = re.findall(r"^\| (`tidings`|`tidings-agent`|both) \| (.+?) \|", TEXT, re.MULTILINE)
    named = {
        (namespace, secret)
        for where, secrets in rows
        for namespace in (("tidings", "tidings-agent") if where == "both" else (where.strip("`"),))
        for secret in re.findall(r"`([\w-]+)`", secrets)
    }
    referred = {
        (namespace, name)
        for workload in manifests("prod").workloads
        for namespace, name, _, _ in secret_references(workload)
    }
    assert named == referred


@pytest.mark.parametrize(
    "folder", re.findall(r"^\| `([\w/]+)` \|", TEXT.partition("- [On one")[0], re.MULTILINE)
)
def test_the_folders_it_names_are_there(folder: str) -> None:
    assert (FOLDER / folder).is_dir()


def test_numbers_in_its_sentences_are_those_of_the_manifests() -> None:
    of = manifests("prod")
    gateway = of.workload("gateway")
    settings = of.environment(gateway)
    (autoscaler,) = of.of("HorizontalPodAutoscaler")
    spec = gateway.resource["spec"]
    per_pod = {
        metric["pods"]["metric"]["name"]: int(metric["pods"]["target"]["averageValue"])
        for metric in autoscaler["spec"]["metrics"]
        if metric["type"] == "Pods"
    }
    for sentence in (
        f"ready for {spec['minReadySeconds']} s (`minReadySeconds`)",
        f"for {gateway.container['lifecycle']['preStop']['sleep']['seconds']} s more (`preStop`)",
        f"up to {settings['TIDINGS_DRAIN_S']} s (`TIDINGS_DRAIN_S`)",
        f"`TIDINGS_SHUTDOWN_S` ({settings['TIDINGS_SHUTDOWN_S']} s)",
        f"after {gateway.pod['terminationGracePeriodSeconds']} s (`terminationGracePeriodSeconds`)",
        f"from {autoscaler['spec']['minReplicas']} to {autoscaler['spec']['maxReplicas']}",
        f"{per_pod['tidings_gateway_connections']:,} WebSocket connections",
        f"{per_pod['tidings_gateway_sse_streams']:,} streams",
        f"`TIDINGS_ACCEPT_RATE` ({settings['TIDINGS_ACCEPT_RATE']}/s)",
    ):
        assert sentence in " ".join(TEXT.split()), sentence
