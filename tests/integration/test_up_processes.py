"""`tidings up`: everything starts, heals, and stops without leaving a process behind."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.deadline import PATIENCE_S, wait_until
from tests.support.docs import ROOT, blocks
from tests.support.requires import need
from tests.support.running import RunningTidings
from tidings_cli.local.servers import NatsServer, RedisServer

CHILDREN = {"gateway-1", "gateway-2", "presence-1", "metrics-1", "agent", "nats-server", "redis-server"}


@pytest.fixture(scope="module", autouse=True)
def _brokers() -> None:
    need("nats-server")
    need("redis-server")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up")


@pytest.fixture(scope="module")
def running(data_dir: Path) -> Iterator[RunningTidings]:
    with RunningTidings(data_dir) as tidings:
        yield tidings.wait_ready()


def tidings(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tidings_cli", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def test_all_children_run(running: RunningTidings) -> None:
    assert all(running.child(name).is_running() for name in CHILDREN)
    lines = running.output.splitlines()
    for name in CHILDREN:
        assert any(line.lstrip().startswith(f"✓ {name}") for line in lines), name


def test_a_service_as_documented_answers_calls(running: RunningTidings, data_dir: Path) -> None:
    address = data_dir / "app_nats_url"
    assert address.stat().st_mode & 0o777 == 0o600
    code = next(block.body for block in blocks(ROOT / "docs" / "calls.md") if block.info == "python")
    environment = os.environ | {"NATS_URL": address.read_text().strip()}
    body = {"method": "prices.quote", "data": {"symbol": "X"}}

    def answer() -> httpx.Response:
        return httpx.post(f"{running.url}/api/rpc", json=body, timeout=PATIENCE_S)

    with subprocess.Popen([sys.executable, "-c", code], env=environment) as service:
        try:
            wait_until(lambda: answer().status_code == 200, "the service to answer")
            assert answer().json()["data"]["price"] == 42.5
        finally:
            service.kill()
    wait_until(lambda: answer().json().get("code") == "unknown_method", "the service to be gone")


def test_the_address_answers(running: RunningTidings) -> None:
    assert httpx.get(f"{running.url}/readyz", timeout=PATIENCE_S).status_code == 200
    assert httpx.get(running.url, timeout=PATIENCE_S).status_code == 200


def test_no_secret_is_on_a_command_line(running: RunningTidings, data_dir: Path) -> None:
    secrets = [
        json.loads((data_dir / which / "state.json").read_text())["password"] for which in ("nats", "redis")
    ]
    secrets.append((data_dir / "session_secret").read_text().strip())
    lines = [" ".join(process.cmdline()) for process in running.family()]
    assert not [line for line in lines for secret in secrets if secret in line]
    assert not [secret for secret in secrets if secret in running.output]


def test_pub_and_sub_meet_across_gateways(running: RunningTidings, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    with heard.open("w") as file:
        listening = subprocess.Popen(
            [sys.executable, "-m", "tidings_cli", "sub", "lobby", "--url", running.url], stdout=file
        )

    def messages() -> list[dict[str, object]]:
        lines = [
            json.loads(line) for line in heard.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]
        return [line for line in lines if line["type"] == "room_message"]

    def published_and_heard() -> bool:
        done = tidings("pub", "lobby", '{"n": 1}', "--json", "--url", running.url)
        assert done.returncode == 0, done.stderr
        ack = json.loads(done.stdout)
        assert (ack["type"], ack["seq"] > 0) == ("ack", True)
        return bool(messages())

    try:
        # Nothing says from outside that the other has joined: publish until it heard.
        wait_until(published_and_heard, "a message")
        assert (messages()[0]["room"], messages()[0]["content"]) == ("lobby", {"n": 1})
    finally:
        listening.send_signal(signal.SIGINT)
        assert listening.wait(PATIENCE_S) == 130


def test_sub_goes_on_when_its_gateway_is_killed(tmp_path: Path) -> None:
    """As README's "Break something": no message is missed, and no exception is printed."""
    heard, said = tmp_path / "heard", tmp_path / "said"
    with RunningTidings(tmp_path / "data", "--gateways", "1") as running:
        running.wait_ready()
        with heard.open("w") as out, said.open("w") as err:
            command = [
                sys.executable,
                "-m",
                "tidings_cli",
                "sub",
                "hall",
                "--url",
                running.url,
            ]
            listening = subprocess.Popen(command, stdout=out, stderr=err)
        try:

            def joined_and_heard() -> bool:
                tidings("pub", "hall", "before", "--url", running.url)
                return "before" in heard.read_text()

            wait_until(joined_and_heard, "it is in the room")
            running.child("gateway-1").kill()
            wait_until(lambda: "connecting again" in said.read_text(), "it notices")
            running.wait_for("gateway-1 is back")
            for text in ("one", "two"):
                assert tidings("pub", "hall", text, "--url", running.url).returncode == 0
            wait_until(lambda: '"two"' in heard.read_text(), "both messages")
        finally:
            listening.kill()
            listening.wait()
    messages = [json.loads(line) for line in heard.read_text().splitlines()]
    contents = [one["content"] for one in messages if one["type"] == "room_message"]
    assert [content for content in contents if content != "before"] == ["one", "two"]
    assert "the connection to the gateway was lost" in said.read_text()


def test_sub_ends_after_the_count(running: RunningTidings) -> None:
    done = tidings("sub", "--channels", "metrics", "--count", "2", "--url", running.url)
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["type"], second["type"]) == ("initial_state", "metrics_update")


def test_check_reaches_the_servers_of_a_running_up(running: RunningTidings, data_dir: Path) -> None:
    done = tidings("check", TIDINGS_DATA_DIR=str(data_dir))
    assert done.returncode == 0, done.stdout
    for name in ("configuration", "NATS", "JetStream", "Redis"):
        assert any(line.startswith(name) and " ok " in line for line in done.stdout.splitlines()), name


def test_metrics_of_this_machine_arrive(running: RunningTidings) -> None:
    def records() -> list[dict[str, float]]:
        answer = httpx.get(f"{running.url}/api/metrics/history", timeout=PATIENCE_S)
        return list(answer.json()) if answer.status_code == 200 else []

    newest = wait_until(records, "a metrics record")[-1]
    assert newest["memory"] > 0


def test_a_second_up_on_the_same_directory_is_refused(running: RunningTidings, data_dir: Path) -> None:
    with RunningTidings(data_dir) as second:
        assert second.end() == 1
        assert f"another `tidings up` (pid {running.process.pid}) uses {data_dir}" in second.output


def test_a_busy_port_is_reported_at_once(running: RunningTidings, tmp_path: Path) -> None:
    with RunningTidings(tmp_path, port=running.port) as second:
        assert second.end() == 1
        assert f"port {running.port} on 127.0.0.1 cannot be used: Address already in use" in second.output
        assert "--port" in second.output


@pytest.mark.parametrize("name", ["gateway-1", "nats-server", "redis-server", "presence-1"])
def test_dead_processes_are_restarted(running: RunningTidings, name: str) -> None:
    before = running.output.count(f"{name} is back")
    process = running.child(name)
    process.kill()
    wait_until(lambda: running.output.count(f"{name} is back") > before, f"{name} to come back")
    assert f"{name} was killed by SIGKILL; starting it again in " in running.output

    def taken() -> bool:
        # By whichever gateway the kernel chooses, and one may be ready before the other.
        return tidings("pub", "lobby", "after", "--url", running.url).returncode == 0

    wait_until(taken, "a message to be taken")


def test_stops_in_order_and_starts_again_on_its_data(tmp_path: Path) -> None:
    with RunningTidings(tmp_path) as first:
        first.wait_ready()
        published = json.loads(tidings("pub", "lobby", "kept", "--url", first.url).stdout)
        assert first.stop() == 0, first.output
        assert first.survivors() == []
    with RunningTidings(tmp_path, port=first.port) as second:
        second.wait_ready()
        again = json.loads(tidings("pub", "lobby", "more", "--url", second.url).stdout)
        assert (again["epoch"], again["seq"]) == (published["epoch"], published["seq"] + 1)
        assert second.stop() == 0
        assert second.survivors() == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    with RunningTidings(tmp_path) as tidings:
        tidings.wait_ready()
        assert len(tidings.family()) >= len(CHILDREN)
        tidings.process.kill()
        wait_until(lambda: not tidings.survivors(), "the children to be gone")


def test_a_stop_while_starting_leaves_nothing(tmp_path: Path) -> None:
    with RunningTidings(tmp_path) as tidings:
        tidings.wait_for("✓ nats-server")
        assert tidings.stop() == 0, tidings.output
        assert tidings.survivors() == []


def test_uses_servers_that_run_already(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "n") as nats, RedisServer(tmp_path / "r") as store:
        urls = {"TIDINGS_NATS_URL": nats.url, "TIDINGS_REDIS_URL": store.url}
        with RunningTidings(tmp_path / "up", "--gateways", "1", **urls) as tidings:
            tidings.wait_ready()
            assert f"at 127.0.0.1:{nats.port}" in tidings.output
            assert not [
                process
                for process in tidings.family()
                if process.name() in ("nats-server", "redis-server", "valkey-server")
            ]
            assert tidings.stop() == 0
        assert nats.ready()
        assert store.ready()


@pytest.mark.parametrize(
    ("variable", "url", "message"),
    [
        ("TIDINGS_NATS_URL", "nats://127.0.0.1:{port}", "cannot reach NATS (TIDINGS_NATS_URL)"),
        ("TIDINGS_REDIS_URL", "redis://127.0.0.1:{port}", "cannot use Redis at 127.0.0.1:{port}"),
    ],
)
def test_given_servers_that_do_not_answer_are_named(
    tmp_path: Path, variable: str, url: str, message: str
) -> None:
    with socket.socket() as held:  # bound and not listening: no other process gets this port
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with RunningTidings(tmp_path, **{variable: url.format(port=port)}) as tidings:
            assert tidings.end() == 1
            assert message.format(port=port) in tidings.output


def test_an_open_deployment_listens_on_loopback_alone(tmp_path: Path) -> None:
    with RunningTidings(tmp_path, "--host", "0.0.0.0") as tidings:  # noqa: S104  # refused
        assert tidings.end() == 2
        assert "TIDINGS_AUTH=jwt" in tidings.output


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TIDINGS_JWT_SECRETS": "short"}, "TIDINGS_JWT_SECRETS: number 1 has 5 bytes"),
        ({"TIDINGS_AUTH": "jwt"}, "TIDINGS_AUTH: is `jwt`, and nothing says how tokens are signed"),
        (
            {"TIDINGS_API_KEYS": "k;scopes=publsh"},
            "TIDINGS_API_KEYS: number 1 has a scope other than publish",
        ),
        ({"TIDINGS_REDIS_URL": "http://127.0.0.1"}, "TIDINGS_REDIS_URL: begins with none of redis"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_starts(
    tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    with RunningTidings(tmp_path / "data", **variables) as refused:
        assert refused.end() == 2
        (line,) = refused.output.splitlines()
        assert message in line
    assert not (tmp_path / "data").exists()
    for command in ("config", "check"):
        done = tidings(command, **variables)
        assert done.returncode == 2
        assert message.partition(": ")[2] in done.stderr + done.stdout


def test_children_get_the_secrets_they_need_and_no_others(tmp_path: Path) -> None:
    secrets = {
        "jwt_secrets": "JWT" * 12, "api_keys": "APIKEY" * 6, "session_secret": "SESSION" * 6,
        "presence_webhook_urls": "http://127.0.0.1:1/PRESENCEHOOK", "presence_webhook_secrets": "SIGNING" * 6,
        "webhook_urls": "http://127.0.0.1:1/ALERTHOOK", "token": "TOKEN" * 6, "jwt_secret": "MISSPELLED" * 4,
    }  # fmt: skip
    of_gateways = {"jwt_secrets", "api_keys", "session_secret"}
    needed = {
        "gateway-1": of_gateways,
        "presence-1": {"presence_webhook_urls", "presence_webhook_secrets"},
        "metrics-1": {"webhook_urls"},
        "agent": set(),
        "nats-server": set(),
        "redis-server": set(),
    }
    variables = {f"TIDINGS_{name.upper()}": value for name, value in secrets.items()}
    lower_case = {"tidings_jwt_secrets": variables.pop("TIDINGS_JWT_SECRETS")}
    with RunningTidings(tmp_path, "--gateways", "1", **variables, **lower_case) as tidings:
        tidings.wait_ready()
        assert (
            "TIDINGS_JWT_SECRET is no setting and is ignored; did you mean TIDINGS_JWT_SECRETS?"
            in tidings.output
        )
        for name, expected in needed.items():
            environment = " ".join(tidings.child(name).environ().values())
            assert {one for one, secret in secrets.items() if secret in environment} == expected, name


def test_the_lock_of_a_dead_supervisor_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4711")
    with (tmp_path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with RunningTidings(tmp_path) as refused:
            assert refused.end() == 1
            assert "another `tidings up` (pid 4711)" in refused.output
    with RunningTidings(tmp_path, "--gateways", "1") as tidings:
        assert tidings.wait_ready().stop() == 0
