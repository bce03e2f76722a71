"""NATS and Redis as the manifests configure them, run by the real servers with the Secrets that the script makes."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
import yaml

from services.settings import Settings
from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S, wait_until
from tests.support.manifests import FOLDER, OVERLAYS, PROCESSES, manifests, secret_references
from tests.support.requires import need
from tidings_cli.certificates import names_of
from tidings_cli.local.processes import free_port
from tidings_cli.secret_files import SecretFiles

Secrets = Mapping[tuple[str, str], Mapping[str, str]]  # by namespace and name


def run_script(*options: str) -> subprocess.CompletedProcess[str]:
    command = [need("sh"), str(FOLDER / "secrets.sh"), *options]
    return subprocess.run(command, capture_output=True, text=True)


def script(*options: str) -> str:
    done = run_script(*options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def secrets_in(text: str) -> Secrets:
    return {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one["stringData"]
        for one in yaml.safe_load_all(text)
    }


@pytest.fixture(scope="module")
def folder_of_secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    for _ in SecretFiles(folder, Settings(), "").write():
        pass
    return folder


@pytest.fixture(scope="module")
def secrets(folder_of_secrets: Path) -> Secrets:
    """The Secrets of production."""
    return secrets_in(script("--from", str(folder_of_secrets)))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_script_makes_every_secret_that_is_referred_to(overlay: str, secrets: Secrets) -> None:
    made = secrets if overlay == "prod" else secrets_in(script())
    referred = set()
    for workload in manifests(overlay).workloads:
        for namespace, name, key, optional in secret_references(workload):
            referred.add((namespace, name))
            if not optional:
                assert (namespace, name) in made
                assert not key or key in made[namespace, name]
    assert set(made) == referred, "made and never used"


def test_secrets_differ_each_time_unless_they_are_kept(tmp_path: Path) -> None:
    kept = tmp_path / "deep" / "secrets.yaml"
    assert script() != script()
    first = script("--keep", str(kept))
    assert script("--keep", str(kept)) == first == kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    values = [value for secret in secrets_in(first).values() for value in secret.values()]
    assert all(re.fullmatch(r"[a-z][a-z0-9]{32,}", value) for value in values)


def test_the_script_reports_its_errors(folder_of_secrets: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(folder_of_secrets, half)
    (half / "redis.key").unlink()
    for options, said in (
        (["--form"], "--from FOLDER"),
        (["--keep"], "--keep needs"),
        (["--from", str(half)], "redis.key; run: tidings secrets"),
        (["--from", str(half), "--keep", "x"], "leave out --keep"),
    ):
        done = run_script(*options)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stdout == ""


def test_the_files_that_servers_of_production_read_are_mounted() -> None:
    of = manifests("prod")
    read = of.get("ConfigMap", "redis-servers")["data"]
    for name, config in (("redis", "redis.conf"), ("sentinel", "sentinel.conf")):
        workload = of.workload(name)
        mounts = {mount["name"]: mount["mountPath"] for mount in workload.container["volumeMounts"]}
        (sources,) = [
            one["projected"]["sources"] for one in workload.pod["volumes"] if one["name"] == "secrets"
        ]
        mounted = {
            f"{mounts['secrets']}/{item['path']}" for source in sources for item in source["secret"]["items"]
        }
        assert mounted == set(re.findall(r"/run/secrets/\w+", read[config]))
        assert f"{mounts['config']}/{config}" in read["start.sh"]


def test_servers_have_the_names_of_their_certificates(folder_of_secrets: Path) -> None:
    of = manifests("prod")
    by_pod = {
        service["metadata"]["name"]: service["spec"]["selector"]["statefulset.kubernetes.io/pod-name"]
        for service in of.of("Service")
        if "statefulset.kubernetes.io/pod-name" in service["spec"]["selector"]
    }
    pods = set()
    for name in ("nats", "redis", "sentinel"):
        spec = of.workload(name).resource["spec"]
        pods |= {f"{name}-{spec['ordinals']['start'] + number}" for number in range(spec["replicas"])}
    assert by_pod == {pod: pod for pod in pods}
    certified = {
        name
        for file in ("nats.pem", "redis.pem")
        for name in names_of((folder_of_secrets / file).read_bytes())
    }
    # How each process calls them, from its own namespace.
    called = {
        host
        for process in of.processes
        for variable, value in of.environment(process).items()
        if variable in ("TIDINGS_NATS_URL", "TIDINGS_REDIS_URL")
        for host in re.findall(r"[@/,]([\w.-]+):\d+", value)
    }
    assert called <= certified
    assert {host.removesuffix(".tidings") for host in called} <= pods


def environment(overlay: str, name: str, secrets: Secrets) -> dict[str, str]:
    """Return the variables of a container with its secrets in place; one that may be missing and is, is not set."""
    of = manifests(overlay)
    workload = of.workload(name)
    optional = {(secret, key) for _, secret, key, may_miss in secret_references(workload) if may_miss}

    def value_of(found: re.Match[str]) -> str:
        return secrets[workload.namespace, found[1]][found[2]]

    values = {}
    for variable, value in of.environment(workload).items():
        whole = re.fullmatch(r"SECRET:([\w-]+):([\w-]+)", value)
        absent = whole and whole[2] not in secrets[workload.namespace, whole[1]]
        if whole and absent:
            assert (whole[1], whole[2]) in optional
            continue
        values[variable] = re.sub(r"SECRET:([\w-]+):([\w-]+)", value_of, value)
    return values


def write_configuration(overlay: str, name: str, folder: Path, moved: Mapping[str, str]) -> None:
    """Write the files of a broker's ConfigMaps; paths and ports are moved to where a test may have them."""
    of = manifests(overlay)
    for config in (f"{name}-config", f"{name}-users"):
        for file, text in of.get("ConfigMap", config)["data"].items():
            (folder / file).write_text(replaced(text, moved))


def replaced(text: str, moved: Mapping[str, str]) -> str:
    for there, here in moved.items():
        text = text.replace(there, here)
    return text


def write_certificates(secret: Mapping[str, str], folder: Path) -> None:
    for name, text in secret.items():
        (folder / name).write_text(text + "\n")


@contextmanager
def nats_server(folder: Path, variables: Mapping[str, str], pod: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, **variables, "POD_NAME": pod}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [need("nats-server"), "--config", str(folder / "nats.conf")],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _moved(folder: Path, client: int, monitor: int, routes: list[int], me: int) -> dict[str, str]:
    return {
        "0.0.0.0:4222": f"127.0.0.1:{client}",
        "0.0.0.0:8222": f"127.0.0.1:{monitor}",
        "0.0.0.0:6222": f"127.0.0.1:{routes[me]}",
        **{f"nats-{n}:6222": f"localhost:{port}" for n, port in enumerate(routes, start=1)},
        "/etc/nats-tls": str(folder),
        "/run/nats": str(folder),
        "/data": str(folder / "data"),
    }


@contextmanager
def redis_server(folder: Path, secrets: Secrets) -> Iterator[int]:
    """Run the init container's script and then the server, as in the development overlay."""
    pod = manifests("dev").workload("redis").pod
    port = free_port()
    moved = {
        "/run/secrets": str(folder),
        "/etc/redis": str(folder),
        "/data": str(folder),
        "port 6379": f"port {port}",
    }
    write_configuration("dev", "redis", folder, moved)
    (prepare,) = pod["initContainers"]
    shell, flags, text = prepare["command"]
    passwords = secrets["tidings", "tidings-redis"]
    variables = {one["name"]: passwords[one["valueFrom"]["secretKeyRef"]["key"]] for one in prepare["env"]}
    subprocess.run([shell, flags, replaced(text, moved)], env={**os.environ, **variables}, check=True)
    assert (folder / "users.conf").stat().st_mode & 0o777 == 0o600
    (container,) = pod["containers"]
    command = [need("redis-server"), str(folder / "redis.conf"), *container["args"], "--bind", "127.0.0.1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: b"Ready to accept connections" in (folder / "log").read_bytes(), "redis-server")
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _moved_environment(overlay: str, name: str, secrets: Secrets, moved: Mapping[str, str]) -> dict[str, str]:
    variables = environment(overlay, name, secrets) | {
        "TIDINGS_HOST": "127.0.0.1",
        "TIDINGS_AGENT_PROC": "/proc",
    }
    # A gateway is asked on its own port here; of several on one machine, each would want the same health port.
    variables.pop("TIDINGS_HEALTH_PORT")
    for variable in ("TIDINGS_NATS_URL", "TIDINGS_REDIS_URL", "TIDINGS_NATS_CA"):
        if variable in variables:
            variables[variable] = replaced(variables[variable], moved)
    return variables


def process_of(
    overlay: str, name: str, secrets: Secrets, folder: Path, moved: Mapping[str, str]
) -> ServiceProcess:
    """Return a process with the environment of its container, but for where others are."""
    variables = _moved_environment(overlay, name, secrets, moved)
    module = {
        "gateway": "gateway",
        "presence": "presence_svc",
        "metrics": "metrics_svc",
        "agent": "metrics_svc.agent",
    }
    return ServiceProcess(name, module[name], folder / f"{name}.log", variables)


def test_all_processes_are_ready_on_the_brokers_of_the_development_overlay(tmp_path: Path) -> None:
    secrets = secrets_in(script())
    client, folder = free_port(), tmp_path / "nats"
    folder.mkdir()
    write_configuration("dev", "nats", folder, _moved(folder, client, free_port(), [free_port()], 0))
    (tmp_path / "redis").mkdir()
    with ExitStack() as running:
        running.enter_context(nats_server(folder, environment("dev", "nats", secrets), "nats-0"))
        store = running.enter_context(redis_server(tmp_path / "redis", secrets))
        there = {"@nats:4222": f"@localhost:{client}", "@nats.tidings:4222": f"@localhost:{client}"}
        there["@redis:6379"] = f"@localhost:{store}"
        # Each proves at its start that its user may do what it needs, and ends where it may not.
        processes = [process_of("dev", name, secrets, tmp_path, there) for name in PROCESSES]
        for process in processes:
            running.callback(process.kill)
            process.spawn()
        for process in processes:
            process.wait_ready()

        # As the page says to look: from within a pod, with what that process may do.
        for name in ("gateway", "presence"):
            checked = subprocess.run(
                [sys.executable, "-m", "tidings_cli", "check", name],
                env={**os.environ, **_moved_environment("dev", name, secrets, there)},
                capture_output=True,
                text=True,
            )
            assert checked.returncode == 0, checked.stdout + checked.stderr

        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=store).ping()
        presence = secrets["tidings", "tidings-redis"]["presence"]
        with redis.Redis(port=store, username="presence", password=presence) as login:
            assert login.info("server")["redis_version"]
            with pytest.raises(redis.exceptions.NoPermissionError):
                login.get("{tidings:metrics}:anything")


def test_a_gateway_is_ready_on_three_servers_over_tls_as_production_has_them(
    tmp_path: Path, secrets: Secrets
) -> None:
    routes, clients = [free_port() for _ in range(3)], [free_port() for _ in range(3)]
    (tmp_path / "ca.crt").write_text(secrets["tidings", "tidings-ca"]["ca.crt"] + "\n")
    with ExitStack() as running:
        for n in range(3):
            folder = tmp_path / f"nats-{n}"
            folder.mkdir()
            write_certificates(secrets["tidings", "nats-tls"], folder)
            write_configuration("prod", "nats", folder, _moved(folder, clients[n], free_port(), routes, n))
            running.enter_context(nats_server(folder, environment("prod", "nats", secrets), f"nats-{n}"))
        # The certificates are for their names and for localhost.
        there = {f"nats-{n}:4222": f"localhost:{port}" for n, port in enumerate(clients, start=1)}
        there["/etc/tidings-ca"] = str(tmp_path)
        gateway = process_of("prod", "gateway", secrets, tmp_path, there)
        running.callback(gateway.kill)
        # Its streams are made with a copy on each server, so it is ready when all three work together.
        gateway.start()
        kept = "nats-*/data/jetstream/*/streams/tidings-rooms-default"
        wait_until(lambda: len(list(tmp_path.glob(kept))) == 3, "a copy of the stream on each server")
