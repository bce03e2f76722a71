"""The Tiltfile, evaluated with fakes of Tilt's functions: it runs what the manifests and compose files have."""

import re
import shlex
from dataclasses import dataclass, field
from typing import Any

import pytest
import starlark
import yaml

from tests.support.docs import ROOT
from tests.support.manifests import PROCESSES, manifests, selects
from tidings_cli.local.dev_reload import PACKAGES

TILTFILE = ROOT / "Tiltfile"
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
SECRETS = """
apiVersion: v1
kind: Secret
metadata: {name: tidings-nats, namespace: tidings}
"""


@dataclass
class Tilt:
    """The calls of a Tiltfile."""

    flags: dict[str, bool]
    defined: dict[str, str] = field(default_factory=dict)
    yaml: list[str] = field(default_factory=list)
    builds: dict[str, dict[str, Any]] = field(default_factory=dict)
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)  # Kubernetes
    services: dict[str, dict[str, Any]] = field(default_factory=dict)  # compose
    buttons: dict[str, dict[str, Any]] = field(default_factory=dict)
    composed: list[Any] = field(default_factory=list)
    project: str = ""
    commands: list[str] = field(default_factory=list)


def evaluate(**flags: bool) -> Tilt:
    manifests("tilt")  # skips here where kustomize is missing: Starlark would make an error of it
    tilt = Tilt(flags)
    module = starlark.Module()

    def define_bool(name: str, usage: str = "") -> None:
        tilt.defined[name] = usage

    def kustomize(path: str) -> str:
        folder = ROOT / path
        assert (folder / "kustomization.yaml").is_file()
        return manifests(folder.name).text

    def local(command: str, quiet: bool = False, echo_off: bool = False) -> str:
        tilt.commands.append(command)
        return SECRETS

    def docker_build(
        ref: str,
        context: str,
        dockerfile: str = "Dockerfile",
        build_args: dict[str, str] | None = None,
        live_update: list[Any] | None = None,
        entrypoint: list[str] | None = None,
    ) -> None:
        tilt.builds[ref] = {
            "context": context,
            "dockerfile": dockerfile,
            "arguments": build_args,
            "live": live_update,
            "entry": entrypoint,
        }

    def k8s_resource(
        workload: str = "",
        new_name: str = "",
        objects: list[str] | None = None,
        resource_deps: list[str] | None = None,
        port_forwards: list[Any] | None = None,
        labels: list[str] | None = None,
    ) -> None:
        tilt.resources[new_name or workload] = {
            "workload": workload,
            "objects": objects or [],
            "deps": resource_deps or [],
            "forwards": port_forwards or [],
            "labels": labels or [],
        }

    def docker_compose(files: list[Any], project_name: str = "") -> None:
        tilt.composed.extend(files)
        tilt.project = project_name

    def dc_resource(name: str, labels: list[str] | None = None) -> None:
        tilt.services[name] = {"labels": labels or []}

    def local_resource(
        name: str,
        cmd: str = "",
        auto_init: bool = True,
        trigger_mode: str = "auto",
        resource_deps: list[str] | None = None,
        labels: list[str] | None = None,
    ) -> None:
        assert (auto_init, trigger_mode) == (False, "manual"), f"{name} would run by itself"
        tilt.buttons[name] = {"cmd": cmd, "deps": resource_deps or [], "labels": labels or []}

    for name, function in {
        "config_define_bool": define_bool,
        "config_parse": lambda: tilt.flags,
        "kustomize": kustomize,
        "local": local,
        "k8s_yaml": tilt.yaml.extend,
        "docker_build": docker_build,
        "docker_compose": docker_compose,
        "encode_yaml": yaml.safe_dump,
        "decode_yaml_stream": lambda text: [one for one in yaml.safe_load_all(text) if one],
        "k8s_resource": k8s_resource,
        "dc_resource": dc_resource,
        "local_resource": local_resource,
        "port_forward": lambda local, container, name="": [local, container, name],
        "sync": lambda source, target: ["sync", source, target],
        "fall_back_on": lambda files: ["fall_back_on", *files],
        "restart_container": lambda: ["restart_container"],
    }.items():
        module.add_callable(name, function)
    module["TRIGGER_MODE_MANUAL"] = "manual"
    dialect = starlark.Dialect.extended()
    dialect.enable_top_level_stmt = True
    # `config` is an object with methods in Tilt, which stand-ins are given one by one.
    text = re.sub(r"\bconfig\.", "config_", TILTFILE.read_text())
    starlark.eval(module, starlark.parse("Tiltfile", text, dialect=dialect), starlark.Globals.standard())
    return tilt


@pytest.fixture(scope="module")
def on_kubernetes() -> Tilt:
    return evaluate()


@pytest.fixture(scope="module")
def on_compose() -> Tilt:
    return evaluate(compose=True)


def test_the_flag_is_one_that_tilt_knows(on_kubernetes: Tilt) -> None:
    assert set(on_kubernetes.defined) == {"compose"}
    assert on_kubernetes.defined["compose"]


def test_its_resources_are_the_workloads_of_the_manifests(on_kubernetes: Tilt) -> None:
    of = manifests("tilt")
    named = {one["workload"] for one in on_kubernetes.resources.values()} - {""}
    assert named == {workload.name for workload in of.workloads}
    assert on_kubernetes.services == {}
    assert on_kubernetes.composed == []
    (secrets,) = on_kubernetes.commands
    assert (ROOT / shlex.split(secrets)[1]).is_file()


def test_its_objects_are_all_there_is_beside_workloads(on_kubernetes: Tilt) -> None:
    grouped = [name for one in on_kubernetes.resources.values() for name in one["objects"]]
    assert len(grouped) == len(set(grouped))
    assert "tidings-nats:secret:tidings" in grouped
    expected = {
        ":".join(
            filter(
                None,
                (
                    one["metadata"]["name"],
                    one["kind"].lower(),
                    one["metadata"].get("namespace"),
                ),
            )
        )
        for one in manifests("tilt").resources
        # Tilt puts Services with the workloads that they select.
        if one["kind"] not in {"Deployment", "StatefulSet", "DaemonSet", "Service"}
    }
    assert set(grouped) - {"tidings-nats:secret:tidings"} == expected


def test_port_forwards_lead_to_ports_that_are_there(on_kubernetes: Tilt) -> None:
    of = manifests("tilt")
    local_ports = []
    for one in on_kubernetes.resources.values():
        for forward in one["forwards"]:
            local, container = (int(forward), int(forward)) if isinstance(forward, str) else forward[:2]
            local_ports.append(local)
            assert container in {
                port["containerPort"] for port in of.workload(one["workload"]).container["ports"]
            }
    assert len(local_ports) == len(set(local_ports))
    assert 8080 in local_ports


def test_changed_files_go_where_the_process_looks(on_kubernetes: Tilt, on_compose: Tilt) -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    for tilt in (on_kubernetes, on_compose):
        build = tilt.builds["tidings"]
        assert build["dockerfile"] == "deploy/Dockerfile"
        first, *steps = build["live"]
        assert first[0] == "fall_back_on"
        assert all((ROOT / name).is_file() for name in first[1:])
        synced = {step[1]: step[2] for step in steps if step[0] == "sync"}
        assert tuple(synced) == PACKAGES
        assert all((ROOT / package / "__init__.py").is_file() for package in synced)
        if tilt is on_kubernetes:
            # The program that restarts processes is in the image, and its folder is a volume of every process.
            assert build["arguments"] == {"GROUP": "reload"}
            folder = "/live"
            for process in manifests("tilt").processes:
                assert process.container["command"] == [
                    "python",
                    "-m",
                    "tidings_cli.local.dev_reload",
                    folder,
                ]
                assert folder in {mount["mountPath"] for mount in process.container["volumeMounts"]}
            assert set(synced.values()) == {f"{folder}/{package}" for package in PACKAGES}
        else:
            assert steps[-1] == ["restart_container"]
            environment = re.search(r"UV_PROJECT_ENVIRONMENT=(\S+)", dockerfile)
            version = re.search(r"python:(\d+\.\d+)-", dockerfile)
            assert environment is not None
            assert version is not None
            installed = f"{environment[1]}/lib/python{version[1]}/site-packages"
            assert set(synced.values()) == {f"{installed}/{package}" for package in PACKAGES}


def test_on_compose_its_resources_are_the_services(on_compose: Tilt) -> None:
    assert set(on_compose.services) == set(COMPOSE["services"])
    assert on_compose.resources == {}
    assert on_compose.yaml == []
    path, override = on_compose.composed
    assert (ROOT / path).is_file()
    changed = yaml.safe_load(override)["services"]
    ours = {name for name, service in COMPOSE["services"].items() if service["image"].startswith("tidings:")}
    # Tilt looks up the container of a service, and cannot distinguish two.
    assert changed.pop("gateway") == {"read_only": False, "deploy": {"replicas": 1}}
    assert changed == {name: {"read_only": False} for name in ours - {"gateway"}}
    scaled = {name for name, service in COMPOSE["services"].items() if "deploy" in service}
    assert scaled == {"gateway"}
    # Else it is that of the folder, and what buttons do is for another project.
    assert on_compose.project == COMPOSE["name"]
    assert ours == set(PROCESSES)


@pytest.mark.parametrize("flags", [{}, {"compose": True}], ids=["kubernetes", "compose"])
def test_buttons_act_on_what_is_there(flags: dict[str, bool]) -> None:
    tilt = evaluate(**flags)
    assert set(tilt.buttons) == {
        "kill a gateway",
        "replace all gateways",
        "pause nats",
        "resume nats",
        "open the page",
        "prove delivery",
        "run the tests",
    }
    of = manifests("tilt")
    for name, button in tilt.buttons.items():
        command = button["cmd"]
        assert button["labels"] == ["buttons"]
        assert set(button["deps"]) <= set(tilt.resources) | set(tilt.services)
        for kind, target in re.findall(r"\b(deployment|statefulset)/(\w+)", command):
            assert of.workload(target).kind.lower() == kind, name
        for label, value in re.findall(r"-l (\S+)=(\S+)", command):
            assert [
                one.name for one in of.workloads if selects({"matchLabels": {label: value}}, one.labels)
            ] == ["gateway"]
        for service in re.findall(r"compose -f \S+ (?:pause|unpause|restart|ps -q) (\w+)", command):
            assert service in COMPOSE["services"], name
        for targets in re.findall(r"\bmake ([a-z -]+)", command):
            makefile = (ROOT / "Makefile").read_text()
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets.split()), name


@pytest.mark.parametrize("flags", [{}, {"compose": True}], ids=["kubernetes", "compose"])
def test_everything_is_in_a_group_and_waits_for_what_exists(flags: dict[str, bool]) -> None:
    tilt = evaluate(**flags)
    resources = tilt.resources | tilt.services
    assert {label for one in resources.values() for label in one["labels"]} <= {
        "tidings",
        "servers",
        "cluster",
    }
    assert all(len(one["labels"]) == 1 for one in resources.values())
    for one in tilt.resources.values():
        assert set(one["deps"]) <= set(resources)
