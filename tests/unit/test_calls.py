"""Calls of clients over a fake bus: answers, faults and bounds."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from gateway.calls import Calls
from gateway.client.commands import CommandError
from gateway.delivery.counters import Counters
from gateway.delivery.publisher import Sender
from gateway.hooks.messages import HookRefused, HookUnavailable
from gateway.limits import Limit
from services.bus.errors import BusError, NoAnswer, NoResponders, PayloadTooLarge, Unavailable
from services.bus.message import BusMessage, encode_headers
from services.settings import Settings
from services.tasks import TaskSet
from services.wire.client import RpcCommand
from services.wire.codec import JSON
from services.wire.codes import ErrorCode
from services.wire.records import UNSET
from tests.support.deadline import eventually

ADA = Sender("ada", "Ada", "c1")
NULL = msgspec.Raw(b"null")


class FakeBus:
    """Answers each request by `reply`, which may raise."""

    def __init__(self, reply: Callable[[str], Any]) -> None:
        self.reply = reply
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> BusMessage:
        self.asked.append((subject, msgspec.json.decode(payload)))
        answer = self.reply(subject)
        if asyncio.iscoroutine(answer):
            answer = await answer
        body, headers = answer if isinstance(answer, tuple) else (answer, {})
        return BusMessage(subject, "", body, encode_headers(headers) if headers else b"")


def calls_over(
    reply: Callable[[str], Any],
    counters: Counters | None = None,
    tasks: TaskSet | None = None,
    hooks: Any = None,
    **settings: Any,
) -> tuple[Calls, FakeBus]:
    bus = FakeBus(reply)
    chosen = Settings(prefix="p", **settings)
    return Calls(bus, chosen, tasks if tasks is not None else TaskSet(), counters or Counters(), hooks), bus  # type: ignore[arg-type]


def start(calls: Calls, connection: str, method: str, answers: list[object]) -> None:
    read = JSON.content
    calls.start(Sender("u", "U", connection), RpcCommand(method=method), read, answers.append)


def outcomes() -> dict[str, float]:
    return {
        sample.labels["outcome"]: sample.value
        for metric in REGISTRY.collect()
        if metric.name == "tidings_rpc_requests"
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


async def refusal(calls: Calls, method: str = "orders") -> CommandError:
    with pytest.raises(CommandError) as refused:
        await calls.call(ADA, method, NULL)
    return refused.value


async def test_a_service_receives_the_user_and_its_answer_goes_back() -> None:
    calls, bus = calls_over(lambda _: b'{"data": {"id": 7}, "new": 1}')
    assert bytes(await calls.call(ADA, "orders.create", msgspec.Raw(b'{"sku":1}'))) == b'{"id": 7}'
    assert bus.asked == [
        (
            "p.rpc.orders.create",
            {
                "userId": "ada",
                "username": "Ada",
                "connectionId": "c1",
                "method": "orders.create",
                "data": {"sku": 1},
            },
        )
    ]


@pytest.mark.parametrize(
    ("fault", "code", "outcome", "retryable"),
    [
        (NoResponders("s"), "unknown_method", "unknown_method", False),
        (NoAnswer("s", "not within 5 s"), "unavailable", "timeout", True),
        (Unavailable("gone"), "unavailable", "unavailable", True),
        (PayloadTooLarge(9, 8), "too_large", "too_large", False),
    ],
)
async def test_faults_of_the_bus(fault: BusError, code: str, outcome: str, retryable: bool) -> None:
    def reply(_subject: str) -> Any:
        raise fault

    before = outcomes().get(outcome, 0)
    error = await refusal(calls_over(reply)[0])
    assert (error.code.code, error.code.retryable) == (code, retryable)
    assert outcomes()[outcome] == before + 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"no", b"[]", b"{}", b'{"data": 1', b'{"data": "\xff"}', b'{"data": 1e999}', b"[" * 5000,
     b'{"data": ' + b"[" * 65 + b"]" * 65 + b"}", b'{"data": "' + b"x" * 65_536 + b'"}'],
    ids=range(10),
)  # fmt: skip
async def test_an_answer_that_is_none(answer: bytes) -> None:
    before = outcomes().get("invalid", 0)
    error = await refusal(calls_over(lambda _: answer)[0])
    assert error.code.code == "unavailable"
    assert outcomes()["invalid"] == before + 1


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (b'{"refuse": {"code": "sold_out", "message": "none left"}}', "sold_out", "none left"),
        (b'{"refuse": {"code": "Sold Out", "message": "none left"}}', "refused", "none left"),
        (b'{"refuse": {"message": "none left"}, "data": 1}', "refused", "none left"),
        (b'{"refuse": {}}', "refused", "the application refused"),
        (b'{"refuse": 1}', "refused", "the application refused"),
        ((b"", {"Nats-Service-Error": "x" * 2000, "Nats-Service-Error-Code": "a" * 65}), "refused", "x" * 1024),
        ((b"", {"Nats-Service-Error": "none left", "Nats-Service-Error-Code": "sold_out"}), "sold_out", "none left"),
        ((b"", {"Nats-Service-Error": "none left", "Nats-Service-Error-Code": "409"}), "refused", "none left"),
        ((b"", {"Nats-Service-Error": "none left"}), "refused", "none left"),
    ],
)  # fmt: skip
async def test_refusals(answer: Any, code: str, message: str) -> None:
    error = await refusal(calls_over(lambda _: answer)[0])
    assert (error.code.code, error.message, error.code.retryable, error.code.http_status) == (
        code,
        message,
        False,
        403,
    )


async def test_a_fault_in_the_service_is_not_shown() -> None:
    headers = {"Nats-Service-Error": "KeyError('secret')", "Nats-Service-Error-Code": "500"}
    error = await refusal(calls_over(lambda _: (b"", headers))[0])
    assert error.code.code == "unavailable"
    assert "secret" not in error.message


@pytest.mark.parametrize("method", ["presence.list", "gateway.stats", "metrics", "metrics.a.b"])
async def test_where_the_version_before_asks_our_services_nothing_is_called(method: str) -> None:
    calls, bus = calls_over(lambda _: b'{"data": 1}')
    assert (await refusal(calls, method)).code.code == "unknown_method"
    assert bus.asked == []


async def test_bounds_of_calls_under_way() -> None:
    counters = Counters()
    released = asyncio.Event()

    async def late() -> bytes:
        await released.wait()
        return b'{"data": 1}'

    calls, _bus = calls_over(lambda _: late(), counters, rpc_per_connection=2, rpc_concurrency=8)
    answers: list[object] = []

    def refused(connection: str, method: str) -> tuple[str, bool]:
        with pytest.raises(CommandError) as error:
            start(calls, connection, method, answers)
        assert error.value.retry_after_ms == 1000
        return error.value.code.code, error.value.code.retryable

    start(calls, "a", "slow", answers)
    start(calls, "a", "slow", answers)
    assert refused("a", "other") == ("rate_limited", True)
    assert refused("b", "slow") == ("unavailable", True)  # a quarter of eight
    for number in range(6):
        start(calls, "b" if number < 2 else f"c{number}", f"other{number}", answers)
    assert refused("d", "another") == ("unavailable", True)
    assert counters.limited == {Limit.CONNECTION_CALLS: 1, Limit.METHOD_CALLS: 1, Limit.CALLS: 1}
    released.set()
    await eventually(lambda: len(answers) == 8, "answers")
    start(calls, "a", "slow", answers)
    await eventually(lambda: len(answers) == 9, "one more answer")
    assert not calls._by_caller
    assert not calls._by_method


async def test_a_slow_method_leaves_room_for_the_others() -> None:
    async def never() -> bytes:
        await asyncio.Event().wait()
        return b""

    tasks = TaskSet()
    reply = lambda subject: never() if subject.endswith("slow") else b'{"data": 1}'  # noqa: E731
    calls, _bus = calls_over(reply, tasks=tasks, rpc_concurrency=8)
    started = 0
    for number in range(20):
        try:
            start(calls, f"c{number}", "slow", [])
        except CommandError:
            continue
        started += 1
    assert started == 2
    assert bytes(await calls.call(ADA, "fast", NULL)) == b"1"
    await tasks.close()
    assert not calls._by_caller


async def test_users_over_http_are_counted_as_one_connection_each() -> None:
    released = asyncio.Event()

    async def late() -> bytes:
        await released.wait()
        return b'{"data": 1}'

    calls, _bus = calls_over(lambda _: late(), rpc_per_connection=1)
    first = asyncio.create_task(calls.call(Sender("ada", "Ada"), "m", NULL))
    await asyncio.sleep(0)
    with pytest.raises(CommandError, match="under way"):
        await calls.call(Sender("ada", "Ada"), "m", NULL)
    other = asyncio.create_task(calls.call(Sender("bob", "Bob"), "m", NULL))
    released.set()
    assert [bytes(one) for one in await asyncio.gather(first, other)] == [b"1", b"1"]


class FakeHooks:
    """The `rpc` hook, with one answer or fault."""

    def __init__(self, answer: Any, asks: tuple[str, ...] = ("rpc",)) -> None:
        self.asks = frozenset(asks)
        self.answer = answer
        self.asked: list[tuple[Sender, str, bytes]] = []

    async def rpc(self, sender: Sender, method: str, data: msgspec.Raw) -> msgspec.Raw:
        self.asked.append((sender, method, bytes(data)))
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await asyncio.Event().wait()
        return msgspec.Raw(self.answer)


def unanswered(_subject: str) -> Any:
    raise NoResponders("s")


async def test_without_a_service_the_hook_is_asked() -> None:
    hooks = FakeHooks(b"7")
    calls, bus = calls_over(unanswered, hooks=hooks)
    assert bytes(await calls.call(ADA, "orders", msgspec.Raw(b"[1]"))) == b"7"
    assert len(bus.asked) == 1
    assert hooks.asked == [(ADA, "orders", b"[1]")]
    assert bytes(await calls_over(lambda _: b'{"data": 1}', hooks=hooks)[0].call(ADA, "orders", NULL)) == b"1"
    assert len(hooks.asked) == 1
    assert (await refusal(calls, "presence.list")).code is ErrorCode.UNKNOWN_METHOD
    assert len(hooks.asked) == 1


@pytest.mark.parametrize(
    ("fault", "code", "outcome", "retry_after_ms"),
    [
        (HookRefused("sold_out", "none left"), "sold_out", "refused", UNSET),
        (HookUnavailable("timeout", 700), "unavailable", "hook_failed", 700),
        (None, "unavailable", "timeout", UNSET),
    ],
)
async def test_faults_of_the_hook(
    fault: Exception | None, code: str, outcome: str, retry_after_ms: Any
) -> None:
    before = outcomes().get(outcome, 0)
    error = await refusal(calls_over(unanswered, hooks=FakeHooks(fault), rpc_timeout_s=0.05)[0])
    assert (error.code.code, error.retry_after_ms) == (code, retry_after_ms)
    assert outcomes()[outcome] == before + 1


async def test_a_hook_that_is_not_for_calls_is_not_asked() -> None:
    hooks = FakeHooks(b"7", asks=("publish",))
    assert (await refusal(calls_over(unanswered, hooks=hooks)[0])).code is ErrorCode.UNKNOWN_METHOD
    assert hooks.asked == []


async def test_a_method_that_always_fails_does_not_fill_the_log() -> None:
    calls, _bus = calls_over(lambda _: b"no JSON")
    with capture_logs() as lines:
        for _ in range(50):
            await refusal(calls, "orders")
        await refusal(calls, "prices")
    methods = [line["method"] for line in lines if line["event"] == "call answered with no answer"]
    assert methods == ["orders", "orders", "prices"]
