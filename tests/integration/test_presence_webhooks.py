"""Webhooks of presence, from real replicas to a real HTTP server that fails and recovers."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from presence_svc.policy import AnnouncePolicy, LeaseTimings
from presence_svc.store import PresenceStore
from presence_svc.webhooks import LEASE_MS, target_key
from services.settings import Settings
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.presence import SimulatedGateway, connected, disconnected, joined, left
from tests.support.presence_replica import PATIENT, QUICK, Replica, replica
from tests.support.webhook_receiver import WebhookReceiver

KEY = "a-secret-that-both-know"


@pytest.fixture
def settings(make_settings: Callable[..., Settings], receiver: WebhookReceiver) -> Settings:
    return make_settings(
        presence_webhook_urls=[receiver.url], presence_webhook_secrets=["an-old-one", KEY], **PATIENT
    )


@pytest.fixture
async def gateway(settings: Settings) -> AsyncIterator[SimulatedGateway]:
    """Changes presence as a replica would, one that publishes and posts nothing."""
    async with Redis.from_url(settings.redis_url) as redis:
        store = PresenceStore(redis, settings.prefix, LeaseTimings.of(settings), AnnouncePolicy.of(settings))
        yield SimulatedGateway(store)
        await store.close()


@asynccontextmanager
async def ready(settings: Settings, tmp_path: Path) -> AsyncIterator[Replica]:
    more = {
        "TIDINGS_PRESENCE_WEBHOOK_URLS": ",".join(settings.presence_webhook_urls),
        "TIDINGS_PRESENCE_WEBHOOK_SECRETS": ",".join(
            one.get_secret_value() for one in settings.presence_webhook_secrets
        ),
    }
    async with replica(settings, tmp_path, **more) as running:
        await eventually(running.ready, "presence_svc ready")
        yield running


def lines(events: list[dict[str, object]]) -> list[str]:
    return [f"{event['type']} {event.get('userId') or event.get('room')}" for event in events]


async def test_first_and_last_are_posted_signed_and_in_order(settings, receiver, gateway, tmp_path):
    async with ready(settings, tmp_path):
        await gateway.send(connected("c1", "ann", "Ann"), joined("c1", "lobby"))
        await gateway.send(connected("c2", "ann", "Ann"), connected("c3", "bob"), joined("c3", "lobby"))
        await gateway.send(left("c1", "lobby"), left("c3", "lobby"), disconnected("c3", clean=True))
        await eventually(lambda: len(receiver.accepted) >= 5, "all events")
    assert lines(receiver.accepted) == [
        "user_online ann", "room_occupied lobby", "user_online bob", "user_offline bob", "room_vacated lobby",
    ]  # fmt: skip
    first = receiver.accepted[0]
    assert set(first) == {"id", "type", "timestamp", "userId", "username"}
    assert first["username"] == "Ann"
    assert len({event["id"] for event in receiver.accepted}) == 5
    assert all(post.signed_with(KEY) and post.signed_with("an-old-one") for post in receiver.posts)
    assert not receiver.posts[0].signed_with("another")
    assert receiver.posts[0].headers["content-type"] == "application/json"


async def test_a_receiver_that_fails_gets_everything_when_it_recovers(settings, receiver, gateway, tmp_path):
    receiver.status = 503
    async with ready(settings, tmp_path) as service:
        await gateway.send(connected("c1", "ann"))
        await eventually(lambda: len(receiver.posts) >= 2, "a retry")
        assert [post.json["events"][0]["id"] for post in receiver.posts[:2]] == [
            receiver.posts[0].json["events"][0]["id"]
        ] * 2  # by which a repeat is recognised
        receiver.stop()
        await gateway.send(connected("c2", "bob"))
        receiver.status = 200
        await asyncio.to_thread(receiver.start)
        await eventually(lambda: len(receiver.accepted) == 2, "both events")
        _, text = await service.health("/metrics")
        assert re.search(r'^tidings_presence_webhook_events_total\{outcome="delivered"\} 2\.0', text, re.M)
        assert 'tidings_presence_webhook_faults_total{reason="5xx"}' in text
    assert lines(receiver.accepted) == ["user_online ann", "user_online bob"]
    assert "token=x" not in service.log.read_text()


async def test_events_of_many_users_are_posted_together(settings, receiver, gateway, tmp_path):
    await gateway.send(*(connected(f"c{n}", f"u{n:03}") for n in range(250)))
    async with ready(settings, tmp_path):
        await eventually(lambda: len(receiver.accepted) == 250, "all events")
    assert [len(post.json["events"]) for post in receiver.posts] == [100, 100, 50]


async def test_one_replica_delivers_and_another_goes_on_when_it_is_killed(
    settings, receiver, gateway, tmp_path
):
    async with ready(settings, tmp_path) as one, ready(settings, tmp_path):
        await gateway.send(connected("c1", "ann"))
        await eventually(lambda: receiver.accepted, "the first event")
        one.process.kill()
        await one.process.wait()
        for n in range(5):
            await gateway.send(connected(f"d{n}", f"u{n}"))
        await eventually(lambda: len({event["id"] for event in receiver.accepted}) >= 6, "the others")
    ids = [event["id"] for event in receiver.accepted]
    assert len(set(ids)) == 6
    # At least once: it may have been killed after the answer came and before it had noted that.
    assert {id for id in ids if ids.count(id) > 1} <= {ids[0]}


async def test_a_stopped_replica_gives_its_turn_to_the_next(settings, receiver, gateway, tmp_path):
    async with ready(settings, tmp_path) as one:
        await gateway.send(connected("c1", "ann"))
        await eventually(lambda: receiver.accepted, "the first event")
        assert await one.stop() == 0
    await gateway.send(connected("c2", "bob"))
    lease = await gateway.store.claim_events(target_key(receiver.url), "the next", LEASE_MS, 1)
    assert [event.subject for event in lease.events] == ["bob"]  # none while another owner has the lease


async def test_a_target_that_is_down_does_not_hold_up_the_other(make_settings, receiver, tmp_path):
    with WebhookReceiver() as gone:
        url = gone.url
    settings = make_settings(
        presence_webhook_urls=[url, receiver.url], presence_webhook_secrets=[KEY], **PATIENT
    )
    async with Redis.from_url(settings.redis_url) as redis:
        store = PresenceStore(redis, settings.prefix, LeaseTimings.of(settings), AnnouncePolicy.of(settings))
        async with ready(settings, tmp_path):
            await SimulatedGateway(store).send(connected("c1", "ann"))
            await eventually(lambda: receiver.accepted, "the event")
        await store.close()


async def test_two_replicas_with_different_targets_deliver_everything_to_both(
    settings, make_settings, receiver, gateway, tmp_path
):
    """As while a change of the targets is rolled out."""
    with WebhookReceiver() as second:
        changed = make_settings(presence_webhook_urls=[second.url], presence_webhook_secrets=[KEY], **PATIENT)
        async with ready(settings, tmp_path), ready(changed, tmp_path):
            for n in range(5):
                second.status = 503 if n in (1, 2) else 200
                await gateway.send(connected(f"c{n}", f"u{n}"))
                await eventually(lambda n=n: len(receiver.accepted) == n + 1, "the event at the first target")
            expected = [f"user_online u{n}" for n in range(5)]
            await eventually(lambda: len(second.accepted) >= 5, "all events at the second target")
    assert lines(receiver.accepted) == lines(second.accepted) == expected
    assert [post.json["dropped"] for post in second.posts] == [0] * len(second.posts)


async def test_an_event_that_is_refused_does_not_hold_up_the_others(settings, receiver, gateway, tmp_path):
    receiver.poison = "bad-user"
    await gateway.send(*(connected(f"c{n}", "bad-user" if n == 6 else f"u{n}") for n in range(10)))
    async with ready(settings, tmp_path) as service:
        await eventually(lambda: len(receiver.accepted) == 9, "the others")
        _, text = await service.health("/metrics")
    assert lines(receiver.accepted) == [f"user_online u{n}" for n in range(10) if n != 6]
    assert re.search(r'^tidings_presence_webhook_events_total\{outcome="refused"\} 1\.0', text, re.M)
    assert "webhook refused an event" in service.log.read_text()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, "PRESENCE_WEBHOOK_SECRETS"),
        (
            {"TIDINGS_PRESENCE_WEBHOOK_SECRETS": "x", "TIDINGS_PRESENCE_WEBHOOK_URLS": "ftp://a"},
            "is no http or",
        ),
    ],
)
async def test_webhooks_that_cannot_work_end_it_with_a_reason(make_settings, tmp_path, more, reason):
    urls = {"TIDINGS_PRESENCE_WEBHOOK_URLS": "http://127.0.0.1:9/x"}
    async with replica(make_settings(**QUICK), tmp_path, **(urls | more)) as service:
        assert await asyncio.wait_for(service.process.wait(), PATIENCE_S) == 2
        assert reason in service.log.read_text()
