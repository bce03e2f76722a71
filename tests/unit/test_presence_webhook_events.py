"""The body and signature of webhook posts, also of the one in the documentation; leases of deliveries."""

import json
import re

import msgspec
import pytest

from presence_svc.changes import DeliveryLease, EventKind, QueuedEvent
from presence_svc.policy import AnnouncePolicy
from presence_svc.webhooks import WebhookBody, WebhookDelivery, body_of, event_id
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
    lease = DeliveryLease(
        "e",
        3,
        [
            QueuedEvent(4, EventKind.USER_OFFLINE, "ann", "Ann", 11),
            QueuedEvent(5, EventKind.ROOM_VACATED, "lobby", "", 12),
            QueuedEvent(6, EventKind.MEMBER_JOINED, "ann", "Ann", 13, "lobby"),
        ],
    )
    assert json.loads(body_of(lease)) == {
        "epoch": "e",
        "dropped": 3,
        "events": [
            {
                "id": event_id(lease.events[0]),
                "type": "user_offline",
                "timestamp": 11,
                "userId": "ann",
                "username": "Ann",
            },
            {"id": event_id(lease.events[1]), "type": "room_vacated", "timestamp": 12, "room": "lobby"},
            {
                "id": event_id(lease.events[2]),
                "type": "member_joined",
                "timestamp": 13,
                "userId": "ann",
                "username": "Ann",
                "room": "lobby",
            },
        ],
    }


def test_each_secret_signs():
    # As `printf '1.{}' | openssl dgst -sha256 -hmac one` has it.
    one = "cdaeb70e3d9ef02be68d5e0961cfaeea90c358b13790d37f60b53095490ca50e"
    two = "03e1b953930fa8e1063d293ebd50393b051276c04e268a5c1abd8acef4093149"
    assert signature(["one", "two"], 1, b"{}") == f"v1={one},v1={two}"
    assert signature(["one"], 2, b"{}") != f"v1={one}"


def test_an_id_is_stable_and_unique():
    event = QueuedEvent(4, EventKind.USER_OFFLINE, "ann", "Ann", 11)
    others = [
        QueuedEvent(5, EventKind.USER_OFFLINE, "ann", "Ann", 11),
        QueuedEvent(4, EventKind.USER_ONLINE, "ann", "Ann", 11),
        QueuedEvent(4, EventKind.USER_OFFLINE, "bob", "Ann", 11),
        QueuedEvent(4, EventKind.USER_OFFLINE, "ann", "Ann", 12),
    ]
    assert event_id(event) == event_id(QueuedEvent(4, EventKind.USER_OFFLINE, "ann", "Ann", 11))
    assert len({event_id(one) for one in [event, *others]}) == 5


class Queue:
    """One event for each claim; records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    async def claim_events(self, target: str, owner: str, lease_ms: int, limit: int) -> DeliveryLease:
        self.calls.append(("claim", target, owner, lease_ms, limit))
        return DeliveryLease(
            "e", 0, [QueuedEvent(1, EventKind.USER_ONLINE, "ann", "Ann", 1)] if limit else []
        )

    async def ack_events(self, target: str, last: QueuedEvent) -> None:
        self.calls.append(("ack", target, last))

    async def release_events(self, target: str, owner: str) -> None:
        self.calls.append(("release", target, owner))


class Sender(WebhookSender):
    def __init__(self, *faults: NotTaken) -> None:
        self.faults = list(faults)

    async def post(self, url: str, body: bytes, headers: object = None) -> None:
        if self.faults:
            raise self.faults.pop(0)


async def test_the_store_gets_no_urls():
    queue = Queue()
    delivery = WebhookDelivery(queue, Sender(), "https://user:secret@example.org/hook?token=x")
    assert await delivery.deliver()
    await delivery.release()
    assert len(queue.calls) == 3
    assert not re.search("secret|example|token", repr(queue.calls))
    assert delivery.target == "example.org"


async def test_retry_after_of_a_receiver_holds_for_every_replica():
    queue = Queue()
    delivery = WebhookDelivery(queue, Sender(NotTaken("5xx", status=503, after_s=30)), "https://example.org")
    with pytest.raises(NotTaken):
        await delivery.deliver()
    (_, _, first, *_), (_, _, owner, lease_ms, limit) = queue.calls
    assert (owner, limit) == (first, 0)
    assert lease_ms >= 30_000


def test_event_names_of_the_configuration_are_kinds():
    configured = Settings(presence_webhook_urls=["https://example.org"], presence_webhook_secrets=["x"])
    members = EventKind.MEMBER_JOINED | EventKind.MEMBER_LEFT
    assert AnnouncePolicy.of(configured).events == ~members
    named = configured.model_copy(update={"presence_webhook_events": ["member_joined", "member_left"]})
    assert AnnouncePolicy.of(named).events == members
    assert AnnouncePolicy.of(Settings()).events == EventKind(0)  # no target
    with pytest.raises(ValueError, match="presence_webhook_events"):
        Settings(presence_webhook_events=["user_sneezed"])


def test_ids_of_events_without_a_room_stay_what_they_were():
    event = QueuedEvent(4, EventKind.USER_OFFLINE, "ann", "Ann", 11)
    before = msgspec.msgpack.decode(msgspec.msgpack.encode((4, 2, "ann", "Ann", 11)), type=QueuedEvent)
    assert event_id(event) == event_id(before) == "c1d1882e8a875dd4-4"
    assert event_id(msgspec.structs.replace(event, room="lobby")) != event_id(event)
