"""Calls of clients: real gateways, a real NATS, and a service of the application in a process of its own."""

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.support.call_service import ANSWERS
from tests.support.clients import Client, client
from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S
from tests.support.deployment import Deployment
from tests.support.docs import ROOT
from tidings_cli.local.servers import NatsServer, RedisServer

PREFIX = f"calls{secrets.token_hex(4)}"
USELESS = ["huge", "text", "empty", "list", "bare", "number", "deep", "bytes"]


@pytest.fixture(scope="module")
def calling(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """The first gateway is patient; the second gives up soon and has few calls under way."""
    with Deployment(
        tmp_path_factory.mktemp("calls"),
        nats_url=nats_server.url,
        redis_url=redis_server.url,
        prefix=PREFIX,
        gateways=1,
        rpc_timeout_s=PATIENCE_S,
    ) as deployment:
        deployment.extra_gateway("hasty", rpc_timeout_s=0.5, rpc_per_connection=3, rpc_concurrency=8)
        yield deployment


@pytest.fixture
def patient(calling: Deployment) -> ServiceProcess:
    return calling.gateways[0]


@pytest.fixture
def hasty(calling: Deployment) -> ServiceProcess:
    return calling.gateways[1]


@asynccontextmanager
async def service(nats: NatsServer) -> AsyncIterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.support.call_service", nats.url, PREFIX]
    process = await asyncio.to_thread(subprocess.Popen, command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
        yield process
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)


async def result(one: Client, method: str, data: Any = None) -> Any:
    answer = await call(one, method, data)
    assert answer["type"] == "rpc_result", answer
    return answer["data"]


async def call(one: Client, method: str, data: Any = None) -> dict[str, Any]:
    return await one.ask("rpc", method=method, data=data)


async def post(gateway: ServiceProcess, body: dict[str, Any], **query: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:
        return await http.post("/api/rpc", json=body, params=query)


def outcomes(gateway: ServiceProcess, metric: str = "tidings_rpc_requests_total") -> dict[str, float]:
    text = httpx.get(f"{gateway.url}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith(f"{metric}{{")]
    return {line.split('"')[1]: float(line.split()[1]) for line in lines}


def limited(gateway: ServiceProcess, name: str) -> float:
    return outcomes(gateway, "tidings_gateway_limited_total").get(name, 0.0)


@pytest.mark.parametrize("subprotocol", ["tidings.v1.json", "tidings.v1.msgpack"])
async def test_a_service_answers_calls(
    patient: ServiceProcess, nats_server: NatsServer, subprotocol: str
) -> None:
    async with (
        service(nats_server) as process,
        client(patient, "username=ada", subprotocol=subprotocol) as ada,
    ):
        data = {"sku": 7, "list": [1.5, None, "é"]}
        answer = await call(ada, "who", data)
        assert answer["type"] == "rpc_result"
        assert answer["data"] == {
            "userId": ada.user,
            "username": "ada",
            "connectionId": ada.welcome["connectionId"],
            "method": "who",
            "data": data,
            "pid": process.pid,
        }
        await ada.send("rpc", method="who", id="bare")
        assert (await ada.expect("rpc_result", id="bare"))["data"]["data"] is None
        assert (await call(ada, "null"))["data"] is None
        assert len((await call(ada, "large"))["data"]) == 65_000


async def test_calls_over_http(patient: ServiceProcess, nats_server: NatsServer) -> None:
    async with service(nats_server), client(patient, "username=ada") as ada:
        session = ada.welcome["session"]
        answer = await post(patient, {"method": "who", "data": {"a": 1}}, session=session)
        assert answer.status_code == 200
        assert answer.json().keys() == {"data"}
        said = answer.json()["data"]
        assert (said["userId"], said["connectionId"], said["data"]) == (ada.user, "", {"a": 1})
        async with httpx.AsyncClient(base_url=patient.url, timeout=PATIENCE_S) as http:
            for connection, seen in (
                (ada.welcome["connectionId"], ada.welcome["connectionId"]),
                ("forged", ""),
            ):
                answer = await http.post(
                    "/api/rpc",
                    json={"method": "who"},
                    params={"session": session},
                    headers={"Tidings-Connection": connection},
                )
                assert answer.json()["data"]["connectionId"] == seen
        for method, status, code in (
            ("refuse", 403, "sold_out"),
            ("none", 404, "unknown_method"),
            ("presence.list", 404, "unknown_method"),
            ("text", 503, "unavailable"),
            ("a..b", 400, "invalid_field"),
        ):
            answer = await post(patient, {"method": method})
            assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_refusals_and_faults_of_a_service(patient: ServiceProcess, nats_server: NatsServer) -> None:
    async with service(nats_server), client(patient) as one:
        for method, data, code, message in (
            ("refuse", None, "sold_out", "no tickets are left"),
            ("refuse.plainly", None, "refused", "no"),
            ("refuse.oddly", None, "refused", "the application refused"),
            ("error", "empty_shelf", "empty_shelf", "the shelf is empty"),
            ("error", "404", "refused", "the shelf is empty"),
            ("error", "503", "unavailable", "the application failed"),
            ("fail", None, "unavailable", "the application failed"),
        ):
            answer = await call(one, method, data)
            assert (answer["type"], answer["code"], answer["message"]) == ("error", code, message)
            assert answer["retryable"] is (code == "unavailable")
        before = outcomes(patient).get("invalid", 0)
        for method in USELESS:
            answer = await call(one, method)
            assert answer["code"] == "unavailable", (method, answer)
        assert outcomes(patient)["invalid"] == before + len(USELESS)
        assert set(USELESS) < set(ANSWERS)
        assert patient.log_text().count("call answered with no answer") >= len(USELESS)
        assert "a secret of the application" in patient.log_text()  # for the operator alone


@pytest.mark.parametrize(
    "method", ["", ".", "a.", ".a", "a..b", "*", ">", "a.*", "a.>", "who ", "who\n", "a b", "x" * 65, "é", "who\r\nPUB x 0", "_INBOX.x\x00"]
)  # fmt: skip
async def test_names_that_are_none(patient: ServiceProcess, method: str) -> None:
    async with client(patient) as one:
        answer = await call(one, method)
        assert (answer["type"], answer["code"]) == ("error", "invalid_field")


async def test_no_method_reaches_anything_of_ours(calling: Deployment, patient: ServiceProcess) -> None:
    async with client(patient) as one:
        for method in ("presence.list", "presence.stats", "metrics.state", "metrics.unsilence", "gateway.stats", "service.presence.list", "in.room.default.x", "control", "roster"):  # fmt: skip
            answer = await call(one, method, {})
            assert answer["code"] == "unknown_method", (method, answer)


async def test_a_slow_service_times_out_and_holds_up_nothing(
    hasty: ServiceProcess, nats_server: NatsServer
) -> None:
    async with service(nats_server), client(hasty) as one:
        await one.send("rpc", method="slow", data=20, id="slow")
        assert (await call(one, "null"))["type"] == "rpc_result"
        answer = await one.expect("error", id="slow")
        assert (answer["code"], answer["retryable"]) == ("unavailable", True)
        assert "no answer within 0.5 s" in answer["message"]
        assert outcomes(hasty)["timeout"] >= 1


async def test_calls_under_way_are_bounded(hasty: ServiceProcess, nats_server: NatsServer) -> None:
    """Of its eight calls one method has two."""
    async with service(nats_server), client(hasty) as one, client(hasty) as other:
        before = limited(hasty, "method_calls")
        for number in range(3):
            await one.send("rpc", method="slow", data=20, id=str(number))
        answer = await one.expect("error")
        assert (answer["id"], answer["code"], answer["retryAfterMs"]) == ("2", "unavailable", 1000)
        assert "of this method" in answer["message"]
        assert "of this method" in (await call(other, "slow"))["message"]
        assert (await call(one, "null"))["type"] == "rpc_result"
        assert limited(hasty, "method_calls") == before + 2
        assert {(await one.expect("error"))["id"] for _ in range(2)} == {"0", "1"}


async def test_a_service_that_dies_with_a_call(
    patient: ServiceProcess, hasty: ServiceProcess, nats_server: NatsServer
) -> None:
    """The call times out; the next ones go to another replica, and without one the method is unknown."""
    async with client(hasty) as one:
        async with service(nats_server) as first:
            await one.send("rpc", method="die", id="die")
            assert (await one.expect("error", id="die"))["code"] == "unavailable"
            assert await asyncio.to_thread(first.wait, PATIENCE_S) == 3
            assert (await call(one, "null"))["code"] == "unknown_method"
        async with service(nats_server) as second, service(nats_server) as third:
            pids = {(await result(one, "who"))["pid"] for _ in range(40)}
            assert pids == {second.pid, third.pid}
            second.kill()
            await asyncio.to_thread(second.wait)
            async with client(patient) as other:
                pids = {(await result(other, "who"))["pid"] for _ in range(5)}
            assert pids == {third.pid}


async def test_a_client_that_leaves_with_a_call_is_no_fault(
    calling: Deployment, hasty: ServiceProcess, nats_server: NatsServer
) -> None:
    async with service(nats_server):
        async with client(hasty) as one:
            await one.send("rpc", method="slow", data=0.3, id="left")
            await one.send("rpc", method="slow", data=20, id="too")
        async with client(hasty) as other:
            assert await result(other, "null") is None
            await asyncio.sleep(0.6)
            assert (await call(other, "null"))["type"] == "rpc_result"
    log = hasty.log_text()
    assert "Traceback" not in log
    assert "background task failed" not in log


async def test_calls_count_as_messages(calling: Deployment, nats_server: NatsServer) -> None:
    slow = calling.extra_gateway("limited", message_rate=2)
    async with service(nats_server), client(slow) as one:
        codes = [(await call(one, "null")).get("code") for _ in range(6)]
        assert codes[:4] == [None] * 4
        assert "rate_limited" in codes[4:]
