"""The load balancer's configuration, run by the real HAProxy in front of two real gateways. Nothing is sticky."""

import os
import re
import secrets
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from socket import create_connection
from typing import Any

import httpx
import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.clients import Client, client, event_source
from tests.support.cluster import ServiceProcess, aside
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.load_balancer import CONFIGURATION, LoadBalancer
from tests.support.secured import SERVER, WITH_TOKENS, bearer, token
from tidings_cli.local.processes import free_port
from tidings_cli.local.servers import NatsServer

pytestmark = pytest.mark.xdist_group("load balancer")  # one deployment for all of them

PER_ADDRESS = 12  # connections; more than any test here opens at one gateway from 127.0.0.1
_SERVED_BY = re.compile(r"gateways/(gateway-\d+) .* (POST /api/tickets|GET /ws)$", re.MULTILINE)


@pytest.fixture(scope="module")
def gateways(
    nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[ServiceProcess]]:
    directory = tmp_path_factory.mktemp("balanced")
    shared = {
        "nats_url": nats_server.url,
        "prefix": f"lb{secrets.token_hex(4)}",
        "port": free_port(),
        "trusted_proxies": "127.0.0.1",
        "connections_per_address": PER_ADDRESS,
        "drain_s": 2,
        **WITH_TOKENS,
    }
    settings = {f"TIDINGS_{name.upper()}": str(value) for name, value in shared.items()}
    both = [
        ServiceProcess(
            f"gateway-{n}",
            "gateway",
            directory / f"gateway-{n}.log",
            settings | {"TIDINGS_HOST": f"127.0.0.{n}"},
        )
        for n in (1, 2)
    ]
    try:
        for gateway in both:
            gateway.spawn()
        for gateway in both:
            gateway.wait_ready()
        yield both
    finally:
        for gateway in both:
            gateway.kill()


@pytest.fixture(scope="module")
def _balanced(
    gateways: list[ServiceProcess], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoadBalancer]:
    with LoadBalancer(tmp_path_factory.mktemp("haproxy"), gateways) as balancer:
        yield balancer


@pytest.fixture
async def balancer(_balanced: LoadBalancer, gateways: list[ServiceProcess]) -> AsyncIterator[LoadBalancer]:
    """The load balancer; afterwards both gateways run again, and it knows."""
    yield _balanced
    for gateway in gateways:
        await aside(gateway.start)  # nothing where it runs
    await eventually(lambda: _balanced.healthy() == len(gateways), "all gateways to be found healthy")


@pytest.fixture
def room() -> str:
    return f"room-{secrets.token_hex(4)}"


@asynccontextmanager
async def joined(balancer: Any, room: str, sub: str = "ada", **fields: Any) -> AsyncIterator[Client]:
    """Connect through the load balancer and join; the answer is in `inbox`."""
    async with client(balancer, additional_headers=bearer(token(sub))) as one:
        one.inbox.append(await one.join(room, **fields))
        yield one


def renewed(balancer: LoadBalancer, certificate: Path) -> str:
    """Put a certificate in place as the documentation says, and return what HAProxy answers."""
    script = CONFIGURATION.with_name("renew.sh")
    environment = {"LB_CERTIFICATE": str(certificate), "PATH": os.environ["PATH"]}
    commands = subprocess.run(["/bin/sh", script], env=environment, capture_output=True, check=True).stdout
    with create_connection(("127.0.0.1", balancer.admin_port)) as api:
        api.sendall(commands)
        return b"".join(iter(lambda: api.recv(4096), b"")).decode()


async def say(balancer: LoadBalancer, room: str, content: object) -> None:
    async with httpx.AsyncClient(base_url=balancer.url, headers=SERVER, timeout=PATIENCE_S) as http:
        answer = await http.post("/api/publish", json={"room": room, "content": content})
        assert answer.status_code == 200, answer.text


async def test_connections_are_shared_and_messages_reach_all(balancer: LoadBalancer, room: str) -> None:
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(joined(balancer, room, f"user-{n}")) for n in range(4)]
        places = [str(member.welcome["gateway"]) for member in members]
        assert sorted(places) == ["gateway-1", "gateway-1", "gateway-2", "gateway-2"]
        await members[0].ask("room_message", room=room, content="to all")
        for member in members[1:]:
            assert (await member.expect("room_message", content="to all"))["userId"] == "user-0"


async def test_a_reconnect_to_another_gateway_misses_nothing(
    balancer: LoadBalancer, gateways: list[ServiceProcess], room: str
) -> None:
    async with joined(balancer, room) as before:
        await say(balancer, room, "seen")
        seen = await before.expect("room_message", content="seen")
        epoch = (await before.expect("joined_room"))["epoch"]
        first = next(one for one in gateways if one.name == before.welcome["gateway"])
        await aside(first.kill)
        assert await before.closed() is None  # cut off, as by a crash
    await say(balancer, room, "missed")  # at once: the other gateway is tried where this one is asked first
    async with joined(balancer, room, since={"epoch": epoch, "seq": seen["seq"]}) as back:
        assert back.welcome["gateway"] != first.name
        answer = await back.expect("joined_room")
        assert answer["recovered"] is True
        assert [message["content"] for message in answer["missed"]] == ["missed"]


async def test_a_ticket_is_good_at_whichever_gateway_is_asked(balancer: LoadBalancer) -> None:
    begins = len(balancer.log_text())
    async with httpx.AsyncClient(base_url=balancer.url, headers=bearer(token()), timeout=PATIENCE_S) as http:

        async def redeemed_elsewhere() -> bool:
            ticket = (await http.post("/api/tickets")).json()["ticket"]
            async with client(balancer, f"ticket={ticket}") as one:
                assert one.user == "ada"
            assert ticket not in balancer.log_text()
            served = _SERVED_BY.findall(balancer.log_text()[begins:])
            issued, redeemed = (
                [name for name, what in served if what.startswith(verb)] for verb in ("POST", "GET")
            )
            return any(here != there for here, there in zip(issued, redeemed, strict=False))

        await eventually(redeemed_elsewhere, "a ticket of one gateway to be redeemed at the other")


async def test_a_stream_is_not_collected_and_goes_on_elsewhere(
    balancer: LoadBalancer, gateways: list[ServiceProcess], room: str
) -> None:
    first, second = gateways
    await aside(second.kill)  # so that the stream's gateway is known
    async with event_source(balancer, rooms=room, headers=bearer(token())) as source:
        await source.expect("joined_room")
        await say(balancer, room, "one")
        # The stream goes on: of a proxy that collects it, this would not come.
        assert (await source.expect("room_message"))["content"] == "one"
        await aside(second.start)
        await eventually(lambda: balancer.healthy() == 2, "the other gateway to be found healthy")
        await aside(first.terminate)
        await source.ended()
    await say(balancer, room, "two")
    async with event_source(balancer, rooms=room, last_id=source.last_id, headers=bearer(token())) as back:
        assert (await back.expect("room_message"))["content"] == "two"
    assert await aside(lambda: first.wait(PATIENCE_S)) == 0


async def test_a_gateway_is_drained_without_cutting_connections(
    balancer: LoadBalancer, gateways: list[ServiceProcess], room: str
) -> None:
    async with AsyncExitStack() as stack:
        members: dict[str, list[Client]] = {"gateway-1": [], "gateway-2": []}

        async def on_both() -> bool:
            # One that was just started gets its share by and by.
            async with AsyncExitStack() as joining:
                member = await joining.enter_async_context(joined(balancer, room))
                there = members[member.welcome["gateway"]]
                if len(there) < 4:
                    there.append(member)
                    stack.push_async_exit(joining.pop_all())
            return all(members.values())

        await eventually(on_both, "members on both gateways")
        leaving, staying = members.values()
        await aside(gateways[0].terminate)
        await eventually(lambda: not gateways[0].ready(), "gateway-1 to begin")
        newcomers = 0
        while gateways[0].running:  # while it drains, the other one serves new clients
            async with joined(balancer, room, "newcomer") as newcomer:
                assert newcomer.welcome["gateway"] == "gateway-2"
                newcomers += 1
        assert newcomers > 0
        assert await aside(lambda: gateways[0].wait(PATIENCE_S)) == 0
        for member in leaving:
            end = await member.closed()
            assert end is not None
            assert end.code == 1012
            assert any(message["type"] == "disconnect" for message in member.inbox)
        for member in staying:
            assert (await member.ask("heartbeat"))["type"] == "heartbeat_ack"


async def test_clients_are_distinguished_by_their_own_address(balancer: LoadBalancer) -> None:
    async def attempt(stack: AsyncExitStack, address: str, **headers: str) -> int:
        try:
            await stack.enter_async_context(
                connect(
                    f"ws://127.0.0.1:{balancer.port}/ws",
                    local_addr=(address, 0),
                    additional_headers=bearer(token()) | headers,
                )
            )
        except InvalidStatus as refused:
            return refused.response.status_code
        return 101

    made_up: list[dict[str, str]] = [{}, {"X-Forwarded-For": "192.0.2.7"}, {"Forwarded": "for=192.0.2.7"}]
    async with AsyncExitStack() as stack:
        answers = [
            await attempt(stack, "127.0.0.9", **headers)
            for headers in made_up
            for _ in range(2 * PER_ADDRESS)
        ]
        assert set(answers) == {101, 429}
        assert answers.count(101) <= 2 * PER_ADDRESS  # so many at each gateway
        assert await attempt(stack, "127.0.0.10") == 101


async def test_with_a_certificate_everything_is_behind_tls(
    gateways: list[ServiceProcess], balancer: LoadBalancer, tmp_path: Path
) -> None:
    authority = trustme.CA()
    served = tmp_path / "site.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(served))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    tls_port = free_port()
    with LoadBalancer(tmp_path, gateways, LB_CERTIFICATE=str(served), LB_TLS_PORT=str(tls_port)) as secured:
        site = f"https://localhost:{tls_port}"
        async with (
            httpx.AsyncClient(
                verify=trusting, headers=bearer(token(tidings={"channels": ["metrics"]})), timeout=PATIENCE_S
            ) as http,
            connect(
                f"wss://localhost:{tls_port}/ws", ssl=trusting, additional_headers=bearer(token())
            ) as socket,
        ):
            assert '"welcome"' in str(await socket.recv())
            page = await http.get(site)
            assert page.status_code == 200
            assert "max-age" in page.headers["strict-transport-security"]
            assert "set-cookie" not in page.headers
            moved = await http.get(f"{secured.url}/api/rooms?x=1")
            assert moved.status_code == 308
            assert moved.headers["location"].startswith("https://")
            assert (await http.get(f"{site}/metrics")).status_code == 404
            async with http.stream(
                "GET", f"{site}/metrics", headers={"accept": "text/event-stream"}
            ) as stream:
                assert stream.status_code == 200


async def test_a_new_certificate_cuts_no_connection(
    gateways: list[ServiceProcess], balancer: LoadBalancer, tmp_path: Path
) -> None:
    served, before, after = tmp_path / "site.pem", trustme.CA(), trustme.CA()
    before.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(served))
    trusting_before, trusting_after = ssl.create_default_context(), ssl.create_default_context()
    before.configure_trust(trusting_before)
    after.configure_trust(trusting_after)
    tls_port = free_port()
    url, user = f"wss://localhost:{tls_port}/ws", bearer(token())
    with LoadBalancer(tmp_path, gateways, LB_CERTIFICATE=str(served), LB_TLS_PORT=str(tls_port)) as secured:
        async with connect(url, ssl=trusting_before, additional_headers=user) as socket:
            await socket.recv()
            after.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(served))
            assert "Success" in await aside(lambda: renewed(secured, served))
            async with connect(url, ssl=trusting_after, additional_headers=user) as newer:
                assert '"welcome"' in str(await newer.recv())
            await socket.send('{"type":"heartbeat","id":"still here"}')
            assert '"still here"' in str(await socket.recv())


async def test_the_load_balancer_is_scraped_apart_from_clients(balancer: LoadBalancer) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        text = (await http.get(f"http://127.0.0.1:{balancer.watch_port}/metrics")).text
        assert 'haproxy_server_status{proxy="gateways",server="gateway-1",state="UP"} 1' in text
        assert (await http.get(f"http://127.0.0.1:{balancer.watch_port}/")).status_code == 404


def test_time_limits_are_longer_than_what_keeps_connections_busy() -> None:
    text = CONFIGURATION.read_text()
    limits = {name: int(value) * {"s": 1, "m": 60, "h": 3600}[unit] for name, value, unit in re.findall(
        r"^\s*timeout (\S+) (\d+)([smh])$", text, re.MULTILINE
    )}  # fmt: skip
    assert limits["tunnel"] >= 600  # gateways ping every 25 s, and end what is silent for 60 s
    assert limits["client"] >= 60  # streams: a message or a heartbeat every 5 s
    assert limits["server"] >= 60
    assert not re.search(r"^\s*(cookie|stick|balance source|compression)", text, re.MULTILINE)
