"""Each kind of open connection and each way to end it; and access while revocations are unknown."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from gateway.auth.tokens import CLOCK_SKEW_S
from tests.support.cluster import Cluster, ServiceProcess
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.deployment import Deployment
from tests.support.secured import SERVER, WITH_TOKENS, bearer, client, token
from tidings_cli.local.servers import NatsServer, RedisServer

GRANTS = {"join": ["*"], "channels": ["presence", "metrics"]}
STREAMS = ("/events", "/events?channels=inbox", "/events?rooms=a,b&channels=presence", "/events/metrics")


@pytest.fixture(scope="module")
def deployment(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    settings: dict[str, object] = {
        **WITH_TOKENS,
        "nats_url": nats_server.url,
        "redis_url": redis_server.url,
        "prefix": "auth-endings",
        "expiry_notice_s": 1,
    }
    with Deployment(tmp_path_factory.mktemp("auth-endings"), gateways=1, services=False, **settings) as made:
        yield made
        assert made.faults() == []


@pytest.fixture
def gateway(deployment: Deployment) -> ServiceProcess:
    return deployment.gateways[0]


class Everything:
    """One connection of each kind, all with one token."""

    def __init__(self, gateway: ServiceProcess, stack: AsyncExitStack, text: str) -> None:
        self._gateway = gateway
        self._stack = stack
        self._text = text
        self.ends: dict[str, asyncio.Task[str]] = {}

    async def open(self) -> None:
        one = await self._stack.enter_async_context(client(self._gateway, self._text))
        self.ends["/ws"] = asyncio.ensure_future(_close_code(one.closed()))
        http = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=self._gateway.url, timeout=PATIENCE_S)
        )
        for path in STREAMS:
            stream = http.stream("GET", path, headers=bearer(self._text))
            response = await self._stack.enter_async_context(stream)
            assert response.status_code == 200, path
            self.ends[path] = asyncio.ensure_future(_text_of(response))

    async def ended(self) -> dict[str, str]:
        """Wait until all have ended; return how."""
        _, open_still = await asyncio.wait(self.ends.values(), timeout=PATIENCE_S)
        late = [path for path, end in self.ends.items() if end in open_still]
        assert late == [], f"still open: {late}"
        return {path: end.result() for path, end in self.ends.items()}

    @property
    def all_open(self) -> bool:
        return not any(end.done() for end in self.ends.values())

    def stop(self) -> None:
        for end in self.ends.values():
            end.cancel()


async def _close_code(closed: Awaitable[int]) -> str:
    return str(await closed)


async def _text_of(response: httpx.Response) -> str:
    try:
        return (await response.aread()).decode()
    except httpx.RemoteProtocolError as fault:  # cut off in the middle
        return f"cut: {fault}"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def everything(gateway: ServiceProcess, stack: AsyncExitStack, text: str) -> Everything:
    made = Everything(gateway, stack, text)
    stack.callback(made.stop)
    await made.open()
    return made


WAYS = {
    "disconnect": (4502, "DELETE", "/api/users/USER/connections", None),
    "disconnect and revoke": (4500, "DELETE", "/api/users/USER/connections?revoke=true", None),
    "revoke the user": (4500, "POST", "/api/revocations", {"userId": "USER"}),
    "revoke the token": (4500, "POST", "/api/revocations", {"tokenId": "USER-token"}),
}


@pytest.mark.parametrize("way", WAYS)
async def test_every_order_ends_every_kind(gateway: ServiceProcess, stack: AsyncExitStack, way: str) -> None:
    code, method, path, body = WAYS[way]
    user = way.replace(" ", "-")
    ours = await everything(gateway, stack, token(user, jti=f"{user}-token", tidings=GRANTS))
    others = await everything(gateway, stack, token("other", jti="other", tidings=GRANTS))
    async with httpx.AsyncClient(base_url=gateway.url, headers=SERVER, timeout=PATIENCE_S) as http:
        sent = None if body is None else {name: value.replace("USER", user) for name, value in body.items()}
        (await http.request(method, path.replace("USER", user), json=sent)).raise_for_status()
    how = await ours.ended()
    assert how["/ws"] in {str(code), "4500"}  # with `revoke=true` either may come first
    for stream in STREAMS[:-1]:
        assert "event: disconnect" in how[stream]
    assert others.all_open


async def test_expiry_ends_every_kind(gateway: ServiceProcess, stack: AsyncExitStack) -> None:
    ours = await everything(gateway, stack, token("short", life_s=0, tidings=GRANTS))
    how = await ours.ended()
    assert how["/ws"] == "4002"
    for stream in STREAMS[:-1]:
        assert "event: disconnect" in how[stream]


async def test_stopping_ends_every_kind(deployment: Deployment, stack: AsyncExitStack) -> None:
    stopping = deployment.extra_gateway("stopping", drain_s=2)
    ours = await everything(stopping, stack, token("late", tidings=GRANTS))
    stopping.terminate()
    how = await ours.ended()
    assert how["/ws"] == "1012"
    for stream in STREAMS[:-1]:
        assert "event: disconnect" in how[stream]
    assert "retry:" in how["/events/metrics"]


async def test_a_clock_that_is_ahead_is_no_way_around_a_revocation(gateway: ServiceProcess) -> None:
    ahead = token("fast", iat=int(time.time() + CLOCK_SKEW_S - 1))
    async with (
        httpx.AsyncClient(base_url=gateway.url, headers=SERVER, timeout=PATIENCE_S) as http,
        client(gateway, ahead) as fast,
    ):
        (await http.post("/api/revocations", json={"userId": "fast"})).raise_for_status()
        assert await fast.closed() == 4500
        status = (await http.get("/events", headers=bearer(ahead) | {"x-api-key": ""})).status_code
        assert status == 401


async def test_connections_are_refused_while_revocations_are_unknown(tmp_path: Path) -> None:
    settings = {"auth": "jwt", "jwt_secrets": WITH_TOKENS["jwt_secrets"], "api_keys": WITH_TOKENS["api_keys"]}
    with Cluster(tmp_path, gateways=2, with_services=False, **settings) as cluster:
        apart, other = cluster.gateways
        rita = token("rita", tidings=GRANTS)

        async def status(gateway: ServiceProcess) -> int:
            async with (
                httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http,
                http.stream("GET", "/events/metrics", headers=bearer(rita)) as response,
            ):
                return response.status_code

        assert await status(apart) == 200
        cluster.proxy.stall()  # or it would reconnect by itself
        cluster.proxy.reset()
        await eventually(lambda: not apart.ready(), "the gateway that lost the bus")
        async with httpx.AsyncClient(base_url=other.url, headers=SERVER, timeout=PATIENCE_S) as http:
            (await http.post("/api/revocations", json={"userId": "rita"})).raise_for_status()
        assert await status(other) == 401
        assert await status(apart) == 503
        cluster.proxy.heal()
        seen = set()

        async def decided() -> bool:
            seen.add(answer := await status(apart))
            return answer == 401

        await eventually(decided, "the revocation, after the return")
        assert seen <= {503, 401}
