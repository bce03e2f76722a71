"""Calls that the application answers by its hook, where no service on the bus does."""

import asyncio
import subprocess
import sys
from typing import Any

import httpx
import pytest

from tests.support.clients import client
from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S
from tests.support.deployment import Deployment
from tests.support.docs import ROOT
from tests.support.hook_application import HookApplication
from tidings_cli.local.servers import NatsServer

Gateways = tuple[ServiceProcess, ServiceProcess]
COOKIE = {"Cookie": "sessionid=ann"}


@pytest.mark.parametrize("subprotocol", ["tidings.v1.json", "tidings.v1.msgpack"])
async def test_the_application_answers_calls(
    gateways: Gateways, application: HookApplication, subprotocol: str
) -> None:
    async with client(gateways[0], additional_headers=COOKIE, subprotocol=subprotocol) as ann:
        answer = await ann.ask("rpc", method="echo", data={"a": [1, None]})
        assert (answer["type"], answer["data"]) == ("rpc_result", {"a": [1, None]})
        refused = await ann.ask("rpc", method="orders.none")
        assert (refused["code"], refused["message"], refused["retryable"]) == (
            "unknown_method",
            "no such method",
            False,
        )
        assert (await ann.ask("rpc", method="metrics.state"))["code"] == "unknown_method"
    first, second = application.asked("rpc")
    assert first | {"id": "", "timestamp": 0} == {
        "hook": "rpc",
        "id": "",
        "timestamp": 0,
        "connectionId": ann.welcome["connectionId"],
        "userId": "ann",
        "username": "Ann",
        "method": "echo",
        "data": {"a": [1, None]},
    }
    assert (second["method"], second["data"]) == ("orders.none", None)


async def test_calls_over_http(gateways: Gateways, application: HookApplication) -> None:
    async with httpx.AsyncClient(base_url=gateways[1].url, headers=COOKIE, timeout=PATIENCE_S) as ann:
        answer = await ann.post("/api/rpc", json={"method": "echo", "data": "x"})
        assert (answer.status_code, answer.json()) == (200, {"data": "x"})
        answer = await ann.post("/api/rpc", json={"method": "none"})
        assert (answer.status_code, answer.json()["code"]) == (403, "unknown_method")
    (connect, _, _, _) = application.asked()
    assert connect["hook"] == "connect"


async def test_a_service_on_the_bus_is_asked_first(
    gateways: Gateways, deployment: Deployment, application: HookApplication, nats_server: NatsServer
) -> None:
    prefix = str(deployment._settings["prefix"])
    command = [sys.executable, "-m", "tests.support.call_service", nats_server.url, prefix]
    process = await asyncio.to_thread(subprocess.Popen, command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
        async with client(gateways[0], additional_headers=COOKIE) as ann:
            answer = await ann.ask("rpc", method="who")
            assert answer["data"]["userId"] == "ann"
            assert application.asked("rpc") == []
            assert (await ann.ask("rpc", method="echo", data=1))["data"] == 1
            process.kill()
            await asyncio.to_thread(process.wait)
            assert (await ann.ask("rpc", method="who"))["message"] == "no such method"
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)


@pytest.mark.parametrize(
    "fault",
    [{"fault": "redirect"}, {"fault": "huge"}, {"body": "no JSON"}, {"answers": {"rpc": {}}}],
    ids=str,
)
async def test_an_answer_that_is_none(
    gateways: Gateways, application: HookApplication, fault: dict[str, Any]
) -> None:
    async with client(gateways[0], additional_headers=COOKIE) as ann:
        application.misbehave(**fault)
        answer = await ann.ask("rpc", method="echo", data=1)
        assert (answer["code"], answer["retryable"]) == ("unavailable", True)
        application.behave()
        assert (await ann.ask("rpc", method="echo", data=1))["type"] == "rpc_result"
