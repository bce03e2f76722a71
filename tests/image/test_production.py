"""The compose file for production: TLS and a user for each process, and failover of servers.

Prometheus and Grafana are left out; nothing here stands in for Grafana.
"""

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.image.composed import IMAGE, PRODUCTION, Composed
from tests.image.engine import Engine
from tests.support.deadline import PATIENCE_S, eventually, fetched, wait_until
from tidings_cli.local.processes import free_port
from tidings_cli.secret_files import NATS_SERVERS, REDIS_SERVERS, SENTINELS

pytestmark = [pytest.mark.image, pytest.mark.timeout(900), pytest.mark.xdist_group("image")]

VERIFY_S = 12
_REDIS_CLI = ("redis-cli", "--tls", "--cacert", "/run/secrets/ca", "--no-auth-warning")


@pytest.fixture(scope="module")
def secrets(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `tidings secrets` of the image makes, as the deployment page says."""
    folder = tmp_path_factory.mktemp("deploy")
    engine.run(
        *(
            "podman",
            "run",
            "--rm",
            "--network=none",
            "--user",
            str(os.getuid()),
            "--volume",
            f"{folder}:/deploy",
        ),
        *(IMAGE, "secrets", "/deploy/secrets", "--site", "localhost"),
    )
    return folder / "secrets"


@pytest.fixture(scope="module")
def production(engine: Engine, secrets: Path) -> Iterator[Composed]:
    ports = {"HTTP_PORT": str(free_port()), "OPEN_FILES": "20000", "SECRETS": str(secrets)}
    with Composed(engine, PRODUCTION, "lb", "presence", "metrics", "agent", **ports) as production:
        yield production


@pytest.fixture(scope="module")
def trusting(secrets: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(secrets / "ca.pem"))


@pytest.fixture(scope="module")
def token(production: Composed) -> str:
    """One of an administrator, as the deployment page says."""
    return production.container("gateway").execute(
        "tidings", "token", "--sub", "ada", "--name", "Ada", "--admin"
    )


def site(production: Composed) -> str:
    return f"https://localhost:{production.port}"


def test_all_are_healthy_and_there_are_two_of_each(production: Composed) -> None:
    states = {
        one.name.removeprefix(f"{production.project}_"): one.health() for one in production.containers()
    }
    servers = {f"{name}_1" for name in (*NATS_SERVERS, *REDIS_SERVERS, *SENTINELS)}
    ours = {f"{name}_{number}" for name in ("gateway", "presence", "metrics") for number in (1, 2)}
    assert set(states) == servers | ours | {"lb_1", "agent_1"}
    assert set(states.values()) == {"healthy"}


async def test_people_come_in_with_a_token_over_tls(
    production: Composed, token: str, trusting: ssl.SSLContext
) -> None:
    async with httpx.AsyncClient(verify=trusting, base_url=site(production), timeout=PATIENCE_S) as http:
        assert (await http.get("/api/presence")).status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        async with connect(
            f"wss://localhost:{production.port}/ws", ssl=trusting, additional_headers=headers
        ) as socket:
            welcome = json.loads(await socket.recv())
            assert (welcome["type"], welcome["userId"]) == ("welcome", "ada")

            async def is_seen() -> bool:
                users = await fetched(http, "/api/presence", headers=headers)
                return [user["userId"] for user in users] == ["ada"]

            await eventually(is_seen, "who came is online")  # presence is notified of connections in batches
        ticket = (await http.post("/api/tickets", headers=headers)).json()["ticket"]
        async with connect(f"wss://localhost:{production.port}/ws?ticket={ticket}", ssl=trusting) as socket:
            assert json.loads(await socket.recv())["userId"] == "ada"

        async def both() -> bool:  # a gateway that answers late is left out
            return len(await fetched(http, "/api/gateways", headers=headers)) == 2

        await eventually(both, "two gateways to be listed")


async def test_an_api_key_publishes(production: Composed, secrets: Path, trusting: ssl.SSLContext) -> None:
    key = json.loads((secrets / "passwords.json").read_text())["api_key"]
    async with httpx.AsyncClient(verify=trusting, base_url=site(production), timeout=PATIENCE_S) as http:
        body = {"room": "news", "content": "from a server"}
        assert (await http.post("/api/publish", json=body)).status_code == 401
        answer = await http.post("/api/publish", json=body, headers={"x-api-key": key})
        assert (answer.status_code, answer.json()["type"]) == (200, "ack")


@pytest.fixture(scope="module")
def inside_gateway(production: Composed, token: str, trusting: ssl.SSLContext) -> dict[str, Any]:
    # The stream of tickets is made with the first one.
    answer = httpx.post(
        f"{site(production)}/api/tickets",
        headers={"Authorization": f"Bearer {token}"},
        verify=trusting,
        timeout=PATIENCE_S,
    )
    assert answer.status_code == 201
    return _inside(production, "gateway")


def _inside(production: Composed, service: str) -> dict[str, Any]:
    program = Path(__file__).with_name(f"inside_{service}.py").read_text()
    said: dict[str, Any] = json.loads(production.container(service).python(program).splitlines()[-1])
    return said


def test_every_stream_is_on_three_servers(inside_gateway: dict[str, Any]) -> None:
    for stream in ("rooms-default", "inbox", "tickets", "revocations"):
        copies, others, leader = inside_gateway[stream]
        assert (copies, others) == (3, 2), stream
        assert leader in NATS_SERVERS


def test_nats_refuses_what_a_process_has_no_business_with(inside_gateway: dict[str, Any]) -> None:
    assert "permissions violation" in inside_gateway["refused"]


def test_unknown_clients_are_refused(production: Composed) -> None:
    said = _inside(production, "presence")
    assert said["nats without TLS"] == ""  # it hung up
    assert "ConnectionError" in said["redis without TLS"]
    assert "AuthenticationError" in said["nobody"]
    assert "AuthenticationError" in said["nobody at a sentinel"]
    assert "NoPermissionError" in said["flush"]
    assert "NoPermissionError" in said["another's key"]
    assert said["its own key"] == 0


def test_servers_fail_and_clients_go_on(
    production: Composed,
    token: str,
    secrets: Path,
    trusting: ssl.SSLContext,
    inside_gateway: dict[str, Any],
) -> None:
    """The NATS server that leads the rooms' stream and the Redis that is master, gone at once, while `tidings verify` publishes and receives."""
    verifying = subprocess.Popen(
        [
            *(sys.executable, "-m", "tidings_cli", "verify", "--url", site(production)),
            *("--duration", f"{VERIFY_S}s", "--members", "8", "--streams", "2", "--rate", "5"),
        ],
        env={**os.environ, "SSL_CERT_FILE": str(secrets / "ca.pem"), "TIDINGS_TOKEN": token},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    http = httpx.Client(
        verify=trusting,
        base_url=site(production),
        headers={"Authorization": f"Bearer {token}"},
        timeout=PATIENCE_S,
    )

    with http:

        def connections() -> int:
            return sum(int(one["connections"]) for one in http.get("/api/gateways").json())

        try:
            wait_until(lambda: connections() >= 8, "the clients to be there", 40)
            leader = inside_gateway["rooms-default"][2]
            production.container(leader).stop()
            production.container("redis-1").stop()
            said, _ = verifying.communicate(timeout=VERIFY_S + 60)
        finally:
            verifying.kill()
        assert verifying.returncode == 0, said
        assert "Every acknowledged message reached every member once, in order." in said

        role = (*_REDIS_CLI, "-h", "localhost", "--user", "tidings", "--pass", operator(secrets), "ROLE")
        wait_until(
            lambda: production.container("redis-2").execute(*role, check=False).startswith("master"),
            "the other Redis to be master",
            60,
        )
        wait_until(lambda: http.get("/api/presence").status_code == 200, "presence to answer", 60)
        production.container("redis-1").start()
        wait_until(
            lambda: production.container("redis-1").execute(*role, check=False).startswith("slave"),
            "the first Redis to follow it",
            60,
        )
        production.container(leader).start()
        for name in (leader, "redis-1"):
            wait_until(lambda name=name: production.container(name).health() == "healthy", name, 60)  # type: ignore[misc]


def operator(secrets: Path) -> str:
    """Return the password of Redis's administrator."""
    return str(json.loads((secrets / "passwords.json").read_text())["redis_operator"])


def test_nothing_went_wrong_meanwhile(production: Composed) -> None:
    for container in production.containers():
        lines = container.logs().splitlines()
        assert (container.name, [line for line in lines if "Traceback" in line]) == (container.name, [])
