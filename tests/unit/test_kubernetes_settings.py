"""The settings of pods are those that processes read, and their deadlines are consistent."""

import os
import re
from pathlib import Path

import pytest

from gateway.contracts.openapi import ENDPOINTS
from services.health import HealthServer
from services.settings import Settings
from tests.support.manifests import OVERLAYS, PROCESSES, Workload, manifests

_OVERTIME_S = 1.0  # what lifecycle allows the event loop to close, after TIDINGS_SHUTDOWN_S
_CLOSING_S = 2.0  # what a gateway does after its clients are gone: presence, bus

both = pytest.mark.parametrize("overlay", OVERLAYS)
all_processes = pytest.mark.parametrize("process", PROCESSES)


def settings_of(overlay: str, process: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Settings:
    """Return the settings that a container's environment makes."""
    for name in [name for name in os.environ if name.startswith("TIDINGS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)
    of = manifests(overlay)
    environment = of.environment(of.workload(process))
    assert [value for value in environment.values() if "$(" in value] == [], "put in only what stands before"
    for name, value in environment.items():
        if name.startswith("TIDINGS_"):
            field = name.removeprefix("TIDINGS_").lower()
            assert field in Settings.model_fields, f"{name} is no setting"
            # A secret as `secrets.sh` makes one; it is a URL's password too.
            monkeypatch.setenv(name, re.sub(r"SECRET:[\w-]+:[\w-]+", "t" + "0" * 48, value))
    return Settings()


@both
@all_processes
def test_every_variable_is_a_setting_and_parses(
    overlay: str, process: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = settings_of(overlay, process, monkeypatch, tmp_path)
    assert settings.nats_url.partition("://")[2].startswith(f"{process}:")
    assert settings.instance, "each pod has a name of its own"
    assert settings.log_format == "json"
    with_state = process in ("presence", "metrics")
    assert bool(settings.redis_url) == with_state
    if with_state:
        assert f"//{process}:" in settings.redis_url
    if overlay == "prod":
        assert settings.nats_url.startswith("tls://")
        assert settings.nats_ca is not None
        assert not with_state or settings.redis_url.startswith("rediss")


def test_gateways_in_production_require_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_of("prod", "gateway", monkeypatch, tmp_path)
    assert settings.auth == "jwt"
    assert settings.jwt_secrets


def test_open_gateways_are_reached_by_a_port_forward_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = settings_of("dev", "gateway", monkeypatch, tmp_path)
    assert (settings.auth, settings.open_beyond_loopback) == ("open", True)
    assert settings.session_secret.get_secret_value(), "the same at all gateways"
    assert manifests("dev").of("Ingress", "Gateway", "HTTPRoute") == []
    for service in manifests("dev").of("Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_production_stores_each_message_on_every_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    servers = manifests("prod").workload("nats").resource["spec"]["replicas"]
    assert settings_of("prod", "gateway", monkeypatch, tmp_path).replicas == servers == 3
    assert manifests("prod").environment(manifests("prod").workload("nats"))["NATS_SYNC_INTERVAL"] == "always"


@both
@all_processes
def test_probes_ask_what_the_processes_answer(
    overlay: str, process: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workload = manifests(overlay).workload(process)
    settings = settings_of(overlay, process, monkeypatch, tmp_path)
    health = HealthServer(settings, process, {"bus": lambda: True})
    served = {endpoint.path for endpoint in ENDPOINTS}
    for probe, path in (("startup", "/healthz"), ("readiness", "/readyz"), ("liveness", "/healthz")):
        asked = workload.container[f"{probe}Probe"]["httpGet"]
        assert asked["path"] == path
        assert path in served
        assert health.respond(f"GET {path} HTTP/1.1\r\n\r\n".encode()).startswith(b"HTTP/1.1 200 ")
        assert workload.port(asked["port"]) == settings.health_port != 0
    if process == "gateway":
        assert workload.port("http") == settings.port
    startup = workload.container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > settings.bus_connect_s + 10


def _wait_s(workload: Workload) -> float:
    return float(
        workload.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    )


@both
@all_processes
def test_the_grace_period_is_longer_than_stopping_takes(
    overlay: str, process: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workload = manifests(overlay).workload(process)
    settings = settings_of(overlay, process, monkeypatch, tmp_path)
    grace_s = workload.pod["terminationGracePeriodSeconds"]
    assert grace_s >= _wait_s(workload) + settings.shutdown_s + _OVERTIME_S + 5
    assert settings.shutdown_s >= settings.drain_s + _CLOSING_S
    if process == "gateway":
        readiness = workload.container["readinessProbe"]
        assert _wait_s(workload) >= readiness["periodSeconds"] * readiness["failureThreshold"]


@both
def test_a_probe_has_one_way_to_ask(overlay: str) -> None:
    """Merged from two files it may have two, which Kubernetes refuses and schemas do not."""
    ways = {"exec", "httpGet", "tcpSocket", "grpc"}
    for workload in manifests(overlay).workloads:
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert len(ways & set(workload.container.get(name, {"exec": ()}))) == 1, (workload.name, name)


@both
def test_brokers_have_time_to_send_their_clients_away(overlay: str) -> None:
    nats = manifests(overlay).workload("nats")
    config = manifests(overlay).get("ConfigMap", "nats-config")["data"]["nats.conf"]
    lame = [float(text) for text in re.findall(r"^lame_duck_\w+: (\d+)s$", config, re.MULTILINE)]
    assert len(lame) == 2
    assert nats.pod["terminationGracePeriodSeconds"] > sum(lame) + 5
    assert nats.container["lifecycle"]["preStop"]["exec"]["command"][:2] == ["nats-server", "--signal"]


@both
def test_kubernetes_puts_no_variables_of_its_own_beside_ours(overlay: str) -> None:
    for workload in manifests(overlay).workloads:
        assert workload.pod["enableServiceLinks"] is False
