"""The Dockerfile and the compose files, read by their own programs and compared with the rest of the project."""

import json
import os
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trustme

from services import __version__
from services.settings import Settings
from tests.support.docs import ROOT
from tests.support.load_balancer import CONFIGURATION
from tests.support.manifests import manifests
from tests.support.requires import need
from tidings_cli.secret_files import PASSWORDS, derived

DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
COMPOSE_FILES = [DEPLOY / "compose.yaml", DEPLOY / "compose.prod.yaml"]
OURS = ("gateway", "presence", "metrics", "agent")
_IN_GROUP = "the dependency group `deploy`"
_DIGITS = re.compile(r":v?\d+\.\d+[\w.-]*$")
_SETTINGS = {f"TIDINGS_{name.upper()}" for name in Settings.model_fields} | {"TIDINGS_CONFIG"}


@cache
def composed(file: Path) -> dict[str, Any]:
    """Return a compose file as Docker Compose understands it."""
    program = need("docker-compose", _IN_GROUP)
    done = subprocess.run(
        [program, "--file", str(file), "--profile", "*", "config", "--format", "json"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    assert "level=warning" not in done.stderr, done.stderr
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def each_file() -> Any:
    return pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: file.name)


# --- the image --------------------------------------------------------------------------------------------------------


def test_the_dockerfile_is_well_made() -> None:
    hadolint = need("hadolint", _IN_GROUP)
    done = subprocess.run([hadolint, "--no-color", str(DOCKERFILE)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_base_images_are_pinned() -> None:
    named = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert len(named) >= 2
    for image in named:
        assert re.search(r":v?\d+(\.\d+)*[\w.-]*$", image), image


def test_versions_are_those_of_the_project() -> None:
    text = DOCKERFILE.read_text()
    assert f"ARG VERSION={__version__}\n" in text
    assert f"tidings:{__version__} ." in text


def test_what_is_copied_is_not_ignored() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    for source in sources:
        assert any(source == one or source.startswith(f"{one}/") for one in let_in), source
        assert (ROOT / source).exists(), source


def test_every_package_of_the_project_is_in_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE.read_text(), re.MULTILINE))
    assert set(packages) <= copied


# --- compose ----------------------------------------------------------------------------------------------------------


@each_file()
def test_images_are_pinned_by_version(file: Path) -> None:
    for name, service in composed(file)["services"].items():
        assert _DIGITS.search(service["image"]), (name, service["image"])


@each_file()
def test_processes_have_no_privileges(file: Path) -> None:
    for name, service in composed(file)["services"].items():
        assert not service.get("privileged"), name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["restart"] == "unless-stopped", name
        if name in OURS:
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["image"].endswith(f"tidings:{__version__}")
            assert service["command"] == [name]
            assert service["healthcheck"]["test"] == ["CMD", "tidings", "health", "--ready"]


@each_file()
def test_gateways_have_time_to_send_their_clients_away(file: Path) -> None:
    for name in OURS:
        service = composed(file)["services"][name]
        environment = service["environment"]
        shutdown_s = float(environment.get("TIDINGS_SHUTDOWN_S", Settings().shutdown_s))
        assert shutdown_s > float(environment.get("TIDINGS_DRAIN_S", Settings().drain_s))
        grace = re.fullmatch(r"(?:(\d+)m)?(\d+)s", service["stop_grace_period"])
        assert grace is not None
        assert int(grace[1] or 0) * 60 + int(grace[2]) > shutdown_s + 2, name


@each_file()
def test_networks_are_as_ownership_says(file: Path) -> None:
    networks = {name: set(service["networks"]) for name, service in composed(file)["services"].items()}
    stores = [name for name in networks if name.startswith(("redis", "sentinel"))]
    buses = [name for name in networks if name.startswith("nats")]
    assert stores
    assert buses
    for store in stores:
        reaching = {name for name in OURS if networks[name] & networks[store]}
        assert reaching == {"presence", "metrics"}, store
    for bus in buses:
        assert {name for name in OURS if networks[name] & networks[bus]} == set(OURS)
        assert not networks[bus] & networks["lb"]


def test_what_is_tried_is_published_on_loopback_alone() -> None:
    services = composed(DEPLOY / "compose.yaml")["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert list(published) == ["lb"]
    assert [port["host_ip"] for port in published["lb"]] == ["127.0.0.1"]


def test_production_publishes_the_load_balancer_and_grafana_on_loopback() -> None:
    services = composed(DEPLOY / "compose.prod.yaml")["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"lb", "grafana"}
    assert [port["host_ip"] for port in published["grafana"]] == ["127.0.0.1"]
    for name in ("gateway", "presence", "metrics"):
        assert services[name]["deploy"]["replicas"] == 2


def test_production_has_no_secret_in_it() -> None:
    """They are files, of which `tidings secrets` makes every one."""
    read = composed(DEPLOY / "compose.prod.yaml")
    for name, service in read["services"].items():
        for variable in service.get("environment", {}):
            assert not re.search(r"(NATS_URL|REDIS_URL|LOGIN|SECRETS?|KEYS|PASSWORD)$", variable), (
                name,
                variable,
            )
    files = {Path(secret["file"]).name for secret in read["secrets"].values()}
    made = {"ca.pem", "site.pem", *(f"{name}.{end}" for name in ("nats", "redis") for end in ("pem", "key"))}
    made |= set(derived(dict.fromkeys(PASSWORDS, "x"), Settings()))
    assert files <= made
    # Mounted nowhere: the operator's own, and that of your services.
    assert made - files == {"app_nats_url", "tidings_nats_url", "tidings_redis_url"}


def test_production_has_the_memory_that_it_has_on_kubernetes() -> None:
    """Less the load balancer, which has every client; agents and Sentinels run their health checks in the container."""
    services = composed(DEPLOY / "compose.prod.yaml")["services"]
    of = manifests("prod")
    units = {"Mi": 2**20, "Gi": 2**30}
    for name, service in services.items():
        kind = name.rstrip("-123")
        if name == "lb" or kind in ("prometheus", "grafana"):
            assert ("mem_limit" in service) == (name != "lb")
            continue
        limit = of.workload(kind).container["resources"]["limits"]["memory"]
        factor = 2 if kind in ("agent", "sentinel") else 1
        assert int(service["mem_limit"]) == factor * int(limit[:-2]) * units[limit[-2:]], name
        if kind == "redis":
            kept = of.environment(of.workload("redis"))["REDIS_MAXMEMORY"]
            assert service["environment"]["REDIS_MAXMEMORY"] == kept
            assert 2 * int(kept.removesuffix("mb")) * 10**6 <= int(service["mem_limit"])


def test_every_service_of_production_has_a_health_check() -> None:
    services = composed(DEPLOY / "compose.prod.yaml")["services"]
    assert {name for name, service in services.items() if "healthcheck" not in service} == set()


def test_redis_is_ready_on_both_when_it_has_its_data_or_follows_its_master() -> None:
    (_, checked) = composed(DEPLOY / "compose.prod.yaml")["services"]["redis-1"]["healthcheck"]["test"]
    probe = manifests("prod").workload("redis").container["readinessProbe"]["exec"]["command"]
    assert probe == ["sh", "-c", checked.replace("$$", "$")]
    assert "role | grep -qE '^(master|connected)$'" in probe[2]


def test_the_two_files_are_projects_of_their_own() -> None:
    """Else `down` of the one to try removes the other's containers."""
    names = [composed(file)["name"] for file in COMPOSE_FILES]
    assert len(set(names)) == len(names)


def test_limits_by_address_and_user_are_on_in_production() -> None:
    of = manifests("prod")
    for environment in (
        composed(DEPLOY / "compose.prod.yaml")["services"]["gateway"]["environment"],
        of.environment(of.workload("gateway")),
    ):
        for limit in ("ACCEPT_RATE", "REQUEST_RATE", "CONNECTIONS_PER_ADDRESS", "CONNECTIONS_PER_USER"):
            assert int(environment[f"TIDINGS_{limit}"]) > 0


def test_settings_named_in_deployment_files_exist() -> None:
    for path in [
        DOCKERFILE,
        CONFIGURATION,
        *COMPOSE_FILES,
        *(DEPLOY / "nats").glob("*"),
        *(DEPLOY / "redis").glob("*"),
    ]:
        named = set(re.findall(r"\bTIDINGS_[A-Z0-9_]+\b", path.read_text()))
        unknown = {name for name in named - _SETTINGS if name.removesuffix("_FILE") not in _SETTINGS}
        assert unknown == set(), path.name


# --- servers' own configuration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("certificate", [False, True], ids=["plain", "tls"])
def test_haproxy_reads_its_configuration(certificate: bool, tmp_path: Path) -> None:
    program = need("haproxy", "Debian: apt-get install haproxy")
    environment = {"PATH": os.environ["PATH"]}
    if certificate:
        environment["LB_CERTIFICATE"] = str(tmp_path / "site.pem")
        environment["LB_ACME"] = "127.0.0.1:8402"
        issued = trustme.CA().issue_cert("chat.example")
        issued.private_key_and_cert_chain_pem.write_to_path(environment["LB_CERTIFICATE"])
    done = subprocess.run(
        [program, "-c", "-V", "-f", str(CONFIGURATION)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_nats_reads_its_configuration() -> None:
    program = need("nats-server")
    passwords = {f"NATS_{role.upper()}_PASSWORD": "p" for role in (*OURS, "app", "operator")}
    file = DEPLOY / "nats" / "nats.conf"
    done = subprocess.run([program, "-t", "-c", str(file)], env=passwords, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
