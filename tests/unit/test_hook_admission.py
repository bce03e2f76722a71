"""Whom a gateway admits beside an application: by the application's answer, by a token, or without an answer."""

import time
from typing import Any

import jwt
import pytest

from gateway.auth.authenticator import Authenticator
from gateway.auth.identity import AuthRefused, Identity
from gateway.hooks.admission import Admitter
from gateway.hooks.hooks import ConnectDecision
from gateway.hooks.messages import ClientRequest
from services.settings import Settings
from services.wire.grants import DEFAULT

KEY = "k" * 32


class FakeHooks:
    """Answers `connect` with one decision, and keeps whom it was asked about."""

    asks_connect = True
    asks_join = False

    def __init__(self, decision: ConnectDecision | None) -> None:
        self.decision = decision
        self.proven: list[str | None] = []

    async def connect(
        self, _request: ClientRequest, proven: Identity | None, **_: Any
    ) -> ConnectDecision | None:
        self.proven.append(proven and proven.user_id)
        return self.decision


def request(**claims: object) -> ClientRequest:
    headers = {"cookie": "sessionid=x"}
    if claims:
        token = jwt.encode({"exp": time.time() + 600, "aud": "tidings", **claims}, KEY, "HS256")
        headers["authorization"] = f"Bearer {token}"
    return ClientRequest(headers, {}, lambda: "10.0.0.1")


def admitter(hooks: FakeHooks) -> Admitter:
    settings = Settings(auth="jwt", jwt_secrets=KEY)
    return Admitter(Authenticator(settings), hooks)  # type: ignore[arg-type]


BO = Identity("bo", "Bo", DEFAULT)


async def test_the_application_names_the_user() -> None:
    hooks = FakeHooks(ConnectDecision(BO, ("lobby",)))
    admission = await admitter(hooks).admit(request(sub="ann"))
    assert (admission.identity, admission.rooms) == (BO, ("lobby",))
    assert (await admitter(hooks).admit(request())).identity == BO
    assert hooks.proven == ["ann", None]


async def test_without_a_name_it_is_the_user_of_the_token() -> None:
    admission = await admitter(FakeHooks(ConnectDecision(None, ("lobby",)))).admit(request(sub="ann"))
    assert (admission.identity.user_id, admission.rooms) == ("ann", ("lobby",))


async def test_without_an_answer_a_token_is_needed() -> None:
    allowing = admitter(FakeHooks(None))
    assert (await allowing.admit(request(sub="ann"))).identity.user_id == "ann"
    with pytest.raises(AuthRefused):
        await allowing.admit(request())


async def test_the_operator_is_not_asked_about() -> None:
    hooks = FakeHooks(ConnectDecision(BO))
    admission = await admitter(hooks).admit(request(sub="root", tidings={"admin": True}))
    assert admission.identity.user_id == "root"
    assert hooks.proven == []
