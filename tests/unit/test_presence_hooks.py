"""What is posted to webhooks, and how it is signed; the documentation's example is one."""

import json
import re

import msgspec
import pytest

from presence_svc.hooks import HookEvent, HookKind, HookTurn, kinds_named
from presence_svc.webhooks import WebhookBody, body_of, signature, target_key
from services.settings import Settings
from tests.support.docs import ROOT, blocks


def test_the_documented_post_is_genuine_and_of_the_right_form():
    (example,) = [block for block in blocks(ROOT / "docs" / "presence.md") if block.info == "http"]
    head, _, body = example.body.rstrip("\n").partition("\n\n")
    headers = dict(re.findall(r"^(\S+): (.*)$", head, re.MULTILINE))
    stamp = int(headers["Tidings-Timestamp"])
    assert headers["Tidings-Signature"] == signature(["example-secret"], stamp, body.encode())
    parsed = msgspec.json.decode(body, type=WebhookBody)
    assert json.loads(msgspec.json.encode(parsed)) == json.loads(body)


def test_users_and_rooms_have_their_own_fields():
    turn = HookTurn(
        "e",
        3,
        [
            HookEvent(4, HookKind.USER_OFFLINE, "ann", "Ann", 11),
            HookEvent(5, HookKind.ROOM_VACATED, "lobby", "", 12),
        ],
    )
    assert json.loads(body_of(turn)) == {
        "epoch": "e",
        "dropped": 3,
        "events": [
            {"id": "e-4", "type": "user_offline", "timestamp": 11, "userId": "ann", "username": "Ann"},
            {"id": "e-5", "type": "room_vacated", "timestamp": 12, "room": "lobby"},
        ],
    }


def test_each_secret_signs():
    both = signature(["one", "two"], 1, b"{}").split(",")
    assert both == [signature(["one"], 1, b"{}"), signature(["two"], 1, b"{}")]
    assert all(re.fullmatch(r"v1=[0-9a-f]{64}", one) for one in both)


def test_the_store_does_not_learn_urls():
    key = target_key("https://user:secret@example.org/hook")
    assert "secret" not in key
    assert key != target_key("https://example.org/hook")


def test_names_of_the_configuration_are_kinds():
    assert kinds_named(Settings().presence_webhook_events) == ~HookKind(0)
    with pytest.raises(ValueError, match="presence_webhook_events"):
        Settings(presence_webhook_events=["user_sneezed"])
