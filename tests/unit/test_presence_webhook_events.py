"""What is posted to webhooks, and how it is signed; the documentation's example is one."""

import json
import re

import msgspec
import pytest

from presence_svc.hooks import HookEvent, HookKind, HookTurn, kinds_named
from presence_svc.policy import HookQueue
from presence_svc.webhooks import Courier, WebhookBody, body_of, event_id
from services.settings import Settings
from services.webhooks import NotTaken, WebhookSender, signature
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
            {
                "id": event_id(turn.events[0]),
                "type": "user_offline",
                "timestamp": 11,
                "userId": "ann",
                "username": "Ann",
            },
            {"id": event_id(turn.events[1]), "type": "room_vacated", "timestamp": 12, "room": "lobby"},
        ],
    }


def test_each_secret_signs():
    # As `printf '1.{}' | openssl dgst -sha256 -hmac one` has it.
    one = "cdaeb70e3d9ef02be68d5e0961cfaeea90c358b13790d37f60b53095490ca50e"
    two = "03e1b953930fa8e1063d293ebd50393b051276c04e268a5c1abd8acef4093149"
    assert signature(["one", "two"], 1, b"{}") == f"v1={one},v1={two}"
    assert signature(["one"], 2, b"{}") != f"v1={one}"


def test_an_id_stays_and_no_other_event_has_it():
    event = HookEvent(4, HookKind.USER_OFFLINE, "ann", "Ann", 11)
    others = [
        HookEvent(5, HookKind.USER_OFFLINE, "ann", "Ann", 11),
        HookEvent(4, HookKind.USER_ONLINE, "ann", "Ann", 11),
        HookEvent(4, HookKind.USER_OFFLINE, "bob", "Ann", 11),
        HookEvent(4, HookKind.USER_OFFLINE, "ann", "Ann", 12),
    ]
    assert event_id(event) == event_id(HookEvent(4, HookKind.USER_OFFLINE, "ann", "Ann", 11))
    assert len({event_id(one) for one in [event, *others]}) == 5


class Queue(HookQueue):
    """One event for whoever asks; remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    async def take_hooks(self, target: str, holder: str, hold_ms: int, limit: int) -> HookTurn:
        self.calls.append(("take", target, holder, hold_ms, limit))
        return HookTurn("e", 0, [HookEvent(1, HookKind.USER_ONLINE, "ann", "Ann", 1)] if limit else [])

    async def hooks_delivered(self, target: str, last: HookEvent) -> None:
        self.calls.append(("delivered", target, last))

    async def give_up_hooks(self, target: str, holder: str) -> None:
        self.calls.append(("give up", target, holder))


class Sender(WebhookSender):
    def __init__(self, *faults: NotTaken) -> None:
        self.faults = list(faults)

    async def post(self, url: str, body: bytes, headers: object = None) -> None:
        if self.faults:
            raise self.faults.pop(0)


async def test_the_store_does_not_learn_urls():
    queue = Queue()
    courier = Courier(queue, Sender(), "https://user:secret@example.org/hook?token=x")
    assert await courier.deliver()
    await courier.give_up_turn()
    assert len(queue.calls) == 3
    assert not re.search("secret|example|token", repr(queue.calls))
    assert courier.target == "example.org"


async def test_a_receiver_that_asks_for_time_gets_it_from_every_replica():
    queue = Queue()
    courier = Courier(queue, Sender(NotTaken("5xx", status=503, after_s=30)), "https://example.org")
    with pytest.raises(NotTaken):
        await courier.deliver()
    (_, _, first, *_), (_, _, holder, hold_ms, limit) = queue.calls
    assert (holder, limit) == (first, 0)
    assert hold_ms >= 30_000


def test_names_of_the_configuration_are_kinds():
    assert kinds_named(Settings().presence_webhook_events) == ~HookKind(0)
    with pytest.raises(ValueError, match="presence_webhook_events"):
        Settings(presence_webhook_events=["user_sneezed"])
