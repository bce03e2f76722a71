"""One gateway's requests to an application that answers, and to one that is slow, down or wrong."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from gateway.delivery.publisher import Sender
from gateway.hooks.caller import BREAKER, HookCaller
from gateway.hooks.hooks import Hooks, JoinDecision
from gateway.hooks.messages import ClientRequest, HookRefused, HookUnavailable
from services.settings import Settings
from tests.support.deadline import eventually
from tests.support.hook_application import SECRET, HookApplication
from tidings_cli.local.processes import free_port

ANN = Sender("ann", "Ann", "c1")
CONTENT = msgspec.Raw(b'{"text":"hi"}')


def client(
    headers: dict[str, str], query: dict[str, str] | None = None, address: str = "10.0.0.1", **fields: str
) -> ClientRequest:
    return ClientRequest(headers, query or {}, lambda: address, **fields)


COOKIE = client({"cookie": "sessionid=ann", "x-forwarded-for": "6.6.6.6"}, {"page": "1"}, connection_id="c1")
MakeHooks = Callable[..., Hooks]


@pytest.fixture
async def make_hooks(application: HookApplication) -> AsyncIterator[MakeHooks]:
    made: list[Hooks] = []

    def make(**overrides: Any) -> Hooks:
        values = {**application.settings, "hooks": "connect,join,publish", **overrides}
        settings = Settings(**values)
        made.append(Hooks(settings, HookCaller(settings)))
        return made[-1]

    yield make
    for hooks in made:
        hooks.close()


async def failed(asking: Awaitable[object]) -> HookUnavailable:
    with pytest.raises(HookUnavailable) as caught:
        await asking
    return caught.value


async def test_each_hook_is_asked_and_answered(application: HookApplication, make_hooks: MakeHooks) -> None:
    hooks = make_hooks()
    admission = await hooks.connect(COOKIE, None, needs_user=True)
    assert admission is not None
    assert admission.identity is not None
    assert (admission.identity.user_id, admission.identity.username) == ("ann", "Ann")
    assert await hooks.join(ANN, "lobby") == JoinDecision()
    decision = await hooks.publish(ANN, msgspec.Raw(b'{"replace":[1]}'), room="lobby")
    assert bytes(decision.content) == b"[1]"
    assert bytes(await hooks.rpc(ANN, "echo", msgspec.Raw(b'{"a":1}'))) == b'{"a":1}'
    asked = application.asked()
    assert [one["hook"] for one in asked] == ["connect", "join", "publish", "rpc"]
    assert len({one["id"] for one in asked}) == 4
    assert abs(asked[0]["timestamp"] / 1000 - time.time()) < 60
    connect = {name: value for name, value in asked[0].items() if name not in ("id", "timestamp")}
    assert connect == {
        "hook": "connect",
        "connectionId": "c1",
        "userId": "",
        "username": "",
        "headers": {"cookie": "sessionid=ann"},
        "query": {"page": "1"},
        "address": "10.0.0.1",
        "dialect": "tidings",
    }
    assert (asked[1]["userId"], asked[1]["username"], asked[1]["connectionId"]) == ("ann", "Ann", "c1")


async def test_a_message_says_where_to(application: HookApplication, make_hooks: MakeHooks) -> None:
    hooks = make_hooks()
    await hooks.publish(ANN, CONTENT, room="lobby")
    await hooks.publish(ANN, CONTENT, target_user_id="bob")
    await hooks.publish(ANN, CONTENT)
    names = ("room", "targetUserId", "broadcast")
    targets = [{name: one[name] for name in names if name in one} for one in application.asked()]
    assert targets == [{"room": "lobby"}, {"targetUserId": "bob"}, {"broadcast": True}]


async def test_a_refusal_is_the_applications_own(make_hooks: MakeHooks) -> None:
    hooks = make_hooks(hooks_on_failure="allow")  # a refusal is no failure
    with pytest.raises(HookRefused) as caught:
        await hooks.connect(client({}), None, needs_user=True)
    assert (caught.value.code, caught.value.message) == ("login_required", "log in first")
    with pytest.raises(HookRefused) as caught:
        await hooks.publish(ANN, msgspec.Raw(b'{"refuse":"Not Plain!"}'))
    assert (caught.value.code, caught.value.message) == ("refused", "not here")


async def test_both_secrets_sign(application: HookApplication, make_hooks: MakeHooks) -> None:
    await make_hooks(hooks_secrets=f"the-new-one,{SECRET}").join(ANN, "lobby")
    fault = await failed(make_hooks(hooks_secrets="unknown-there").join(ANN, "lobby"))
    assert fault.reason == "4xx"
    assert len(application.asked()) == 1


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ({"delay_s": 5.0}, "timeout"),
        ({"fault": "trickle"}, "timeout"),
        ({"fault": "huge"}, "too_large"),
        ({"fault": "redirect"}, "3xx"),
        ({"fault": "broken"}, "broken"),
        ({"status": 500}, "5xx"),
        ({"status": 204}, "2xx"),
        ({"status": 404, "body": "{}"}, "4xx"),
        ({"body": "<html>"}, "invalid"),
        ({"body": '"text"'}, "invalid"),
        ({"body": "[" * 60_000}, "invalid"),
        ({"answers": {"connect": {}}}, "invalid"),  # no user, and none proven
        ({"answers": {"connect": {"userId": 7}}}, "invalid"),
        ({"answers": {"connect": {"userId": ""}}}, "invalid"),
        ({"answers": {"connect": {"userId": "u" * 129}}}, "invalid"),
        ({"answers": {"connect": {"userId": "server"}}}, "invalid"),
        ({"answers": {"connect": {"userId": "ann", "grants": {"joni": ["*"]}}}}, "invalid"),
        ({"answers": {"connect": {"userId": "ann", "rooms": "lobby"}}}, "invalid"),
        ({"answers": {"connect": {"userId": "ann", "rooms": ["lobby", ""]}}}, "invalid"),
        ({"answers": {"connect": {"userId": "ann", "rooms": [f"r{n}" for n in range(101)]}}}, "invalid"),
        ({"answers": {"connect": {"userId": "ann", "customData": "x" * 5000}}}, "invalid"),
        ({"answers": {"connect": {"userId": "ann", "expiresAt": 1_000_000_000_000}}}, "invalid"),
        ({"answers": {"connect": {"userId": "ann", "ttl": -1}}}, "invalid"),
    ],
)
async def test_what_is_no_answer_is_refused_or_allowed(
    application: HookApplication, make_hooks: MakeHooks, trouble: dict[str, Any], reason: str
) -> None:
    application.misbehave(**trouble)
    started = time.monotonic()
    refusing, allowing = (
        make_hooks(hooks_timeout_s=0.5),
        make_hooks(hooks_timeout_s=0.5, hooks_on_failure="allow"),
    )
    fault = await failed(refusing.connect(COOKIE, None, needs_user=True))
    assert fault.reason == reason
    assert fault.retry_after_ms > 0
    assert await allowing.connect(COOKIE, None, needs_user=True) is None
    assert time.monotonic() - started < 4


async def test_under_allow_a_failure_changes_nothing_but_a_call_fails(
    application: HookApplication, make_hooks: MakeHooks
) -> None:
    application.misbehave(status=503)
    hooks = make_hooks(hooks_on_failure="allow")
    assert await hooks.join(ANN, "lobby") == JoinDecision()
    decision = await hooks.publish(ANN, CONTENT, room="lobby")
    assert (decision.content, decision.skip) == (CONTENT, False)
    await failed(hooks.rpc(ANN, "echo", CONTENT))


async def test_a_refusal_of_a_wrong_type_refuses_under_allow_too(
    application: HookApplication, make_hooks: MakeHooks
) -> None:
    application.misbehave(answers={"join": {"refuse": True}})
    with pytest.raises(HookRefused):
        await make_hooks(hooks_on_failure="allow").join(ANN, "lobby")


async def test_unknown_fields_are_ignored_and_null_is_absent(
    application: HookApplication, make_hooks: MakeHooks
) -> None:
    application.misbehave(
        answers={
            "connect": {"userId": "ann", "refuse": None, "grants": None, "customData": None, "newer": [1]},
            "publish": {"content": None, "skip": None},
        }
    )
    hooks = make_hooks()
    admission = await hooks.connect(COOKIE, None, needs_user=True)
    assert admission is not None
    assert admission.identity is not None
    assert admission.identity.grants == Settings().default_grants
    assert (await hooks.publish(ANN, CONTENT)).content == CONTENT


async def test_the_identity_is_as_the_application_says(
    application: HookApplication, make_hooks: MakeHooks
) -> None:
    later = int(time.time()) + 3600
    answer = {
        "userId": "ann",
        "grants": {"join": ["team:*"]},
        "rooms": ["lobby", "lobby", "team:1"],
        "customData": {"mood": "ok"},
        "expiresAt": later * 1000,
    }
    application.misbehave(answers={"connect": answer})
    hooks = make_hooks()
    admission = await hooks.connect(COOKIE, None, needs_user=True)
    assert admission is not None
    assert admission.identity is not None
    assert admission.identity.grants.may_join("team:7")
    assert not admission.identity.grants.may_publish("team:7")
    assert admission.identity.expires_at == later
    assert admission.rooms == ("lobby", "team:1")
    assert json.loads(bytes(admission.custom_data)) == {"mood": "ok"}  # type: ignore[arg-type]
    application.misbehave(answers={"connect": {**answer, "expiresAt": later}})  # as tokens have it
    admission = await hooks.connect(COOKIE, None, needs_user=True)
    assert admission is not None
    assert admission.identity is not None
    assert admission.identity.expires_at == later


async def test_answers_are_remembered_as_long_as_they_say(
    application: HookApplication, make_hooks: MakeHooks
) -> None:
    application.misbehave(answers={"join": {"ttl": 60, "history": 5}})
    hooks = make_hooks()
    for _ in range(3):
        assert await hooks.join(ANN, "lobby") == JoinDecision(history=5)
    await hooks.join(ANN, "other")
    await hooks.join(Sender("bob", "Bob"), "lobby")
    assert len(application.asked()) == 3
    application.misbehave(status=503)
    assert await hooks.join(ANN, "lobby") == JoinDecision(history=5)
    await failed(hooks.join(ANN, "a third"))


async def test_an_answer_to_connect_is_for_the_same_request_only(
    application: HookApplication, make_hooks: MakeHooks
) -> None:
    application.misbehave(answers={"connect": {"userId": "ann", "ttl": 60}})
    hooks = make_hooks()
    for one in (
        client({"cookie": "a", "x-request-id": "1"}, connection_id="c1"),
        client({"cookie": "a", "x-request-id": "2", "accept": "*"}, {"ticket": "t"}, connection_id="c2"),
    ):
        await hooks.connect(one, None, needs_user=True)
    assert len(application.asked()) == 1
    for other in (
        client({"cookie": "b"}),
        client({"cookie": "a"}, {"page": "2"}),
        client({"cookie": "a"}, address="10.0.0.2"),
        client({"cookie": "a", "origin": "https://else"}),
        client({"cookie": "a"}, dialect="pusher"),
    ):
        await hooks.connect(other, None, needs_user=True)
    assert len(application.asked()) == 6
    assert all("ticket" not in one["query"] for one in application.asked())


async def test_few_requests_are_under_way_and_more_than_may_wait_are_refused(
    application: HookApplication, make_hooks: MakeHooks
) -> None:
    application.misbehave(delay_s=0.02)
    hooks = make_hooks(hooks_concurrency=2, hooks_timeout_s=10)
    outcomes = await asyncio.gather(*[hooks.join(ANN, f"r{n}") for n in range(200)], return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, HookUnavailable)]
    assert [one.reason for one in refused] == ["busy"] * (200 - 2 - 2 * 16)
    times = sorted(one.retry_after_ms for one in refused)
    assert len(set(times)) > len(times) / 2  # not all at once
    assert application.most_under_way == 2


async def test_a_request_that_waits_too_long_is_refused_and_does_not_open_the_breaker(
    application: HookApplication, make_hooks: MakeHooks
) -> None:
    application.misbehave(delay_s=0.3)
    hooks = make_hooks(hooks_concurrency=1, hooks_timeout_s=0.5)
    outcomes = await asyncio.gather(*[hooks.join(ANN, f"r{n}") for n in range(12)], return_exceptions=True)
    reasons = [one.reason for one in outcomes if isinstance(one, HookUnavailable)]
    assert set(reasons) <= {"busy", "timeout"}
    assert reasons.count("busy") >= 9
    assert await hooks.join(ANN, "lobby") == JoinDecision()


async def test_the_breaker_opens_asks_once_and_closes(tmp_path: Path, make_hooks: MakeHooks) -> None:
    application = HookApplication(tmp_path / "application.log")
    hooks = make_hooks(**application.settings)
    for _ in range(BREAKER.threshold):
        assert (await failed(hooks.join(ANN, "lobby"))).reason == "unreachable"
    fault = await failed(hooks.join(ANN, "lobby"))
    assert fault.reason == "open"
    assert 500 < fault.retry_after_ms < 3000
    assert REGISTRY.get_sample_value("tidings_hook_breaker_open") == 1
    with application:
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(HookUnavailable):
                await hooks.join(ANN, "lobby")
                break
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert len(application.asked()) == 1
    assert REGISTRY.get_sample_value("tidings_hook_breaker_open") == 0


async def test_a_kept_connection_that_the_server_closed_is_replaced(
    tmp_path: Path, make_hooks: MakeHooks
) -> None:
    with HookApplication(tmp_path / "application.log") as application:
        hooks = make_hooks(**application.settings)
        await hooks.join(ANN, "lobby")
        application.kill()
        application.start()
        await hooks.join(ANN, "lobby")
        assert len(application.asked()) == 1


async def test_cancelling_a_request_frees_its_place(
    application: HookApplication, make_hooks: MakeHooks
) -> None:
    application.misbehave(delay_s=30)
    hooks = make_hooks(hooks_concurrency=1, hooks_timeout_s=30)
    asking = asyncio.create_task(hooks.join(ANN, "lobby"))
    await eventually(lambda: application.most_under_way, "the question to arrive")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    application.misbehave(delay_s=0)
    await hooks.join(ANN, "lobby")


def test_no_secret_is_in_any_text(application: HookApplication) -> None:
    settings = Settings(
        hooks="join", hooks_url=f"http://127.0.0.1:{free_port()}/s3cret?t=s3cret", hooks_secrets="s3cret"
    )
    assert "s3cret" not in repr(settings.hooks_secrets)

    async def ask() -> str:
        hooks = Hooks(settings, HookCaller(settings))
        return str(await failed(hooks.join(ANN, "lobby")))

    assert "s3cret" not in asyncio.run(ask())
