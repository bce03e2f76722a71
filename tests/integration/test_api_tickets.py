"""One-time tickets between two gateways' connections to a real nats-server."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from gateway.auth.bucket import Bucket
from gateway.auth.identity import Identity
from gateway.auth.tickets import TicketStore
from services.bus.client import Bus
from services.bus.errors import RequestRefused, StoreFull, Unavailable
from services.bus.specs import StreamSpec
from services.settings import Settings
from services.wire.grants import DEFAULT, Grants, Patterns
from tests.support.deadline import PATIENCE_S, eventually
from tidings_cli.local.servers import NatsServer

ADA = Identity("ada", "Ada L.", DEFAULT, session="", expires_at=time.time() + 3600)


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
async def two_buses(settings: Settings) -> AsyncIterator[tuple[Bus, Bus]]:
    one, two = await Bus.connect(settings, "one"), await Bus.connect(settings, "two")
    yield one, two
    await one.close()
    await two.close()


@pytest.fixture
def stores(two_buses: tuple[Bus, Bus], settings: Settings) -> tuple[TicketStore, TicketStore]:
    return TicketStore(two_buses[0], settings), TicketStore(two_buses[1], settings)


async def test_a_ticket_of_one_gateway_is_good_on_another(
    stores: tuple[TicketStore, TicketStore],
) -> None:
    grants = Grants(join=Patterns(["team:*"]), channels=Patterns(["metrics"]), broadcast=True)
    identity = Identity("ada", "Ada L.", grants, expires_at=time.time() + 3600)

    ticket, expires_at = await stores[0].issue(identity, "https://app.example")

    assert len(ticket) == 43  # 256 bits
    assert 25 < expires_at - time.time() <= 30
    assert await stores[1].redeem(ticket, "https://app.example") == identity


async def test_ticket_reuse(stores: tuple[TicketStore, TicketStore]) -> None:
    ticket, _ = await stores[0].issue(ADA, "")

    assert await stores[0].redeem(ticket, None) == ADA
    assert await stores[0].redeem(ticket, None) is None
    assert await stores[1].redeem(ticket, None) is None


async def test_one_of_many_concurrent_uses_of_a_ticket_succeeds(
    stores: tuple[TicketStore, TicketStore],
) -> None:
    for _ in range(20):
        ticket, _ = await stores[0].issue(ADA, "")
        outcomes = await asyncio.gather(*(stores[turn % 2].redeem(ticket, None) for turn in range(8)))
        assert [outcome for outcome in outcomes if outcome is not None] == [ADA]


async def test_a_ticket_is_bound_to_its_origin_and_spent_by_the_wrong_one(
    stores: tuple[TicketStore, TicketStore],
) -> None:
    ticket, _ = await stores[0].issue(ADA, "https://app.example")

    assert await stores[0].redeem(ticket, "https://evil.example") is None
    assert await stores[0].redeem(ticket, "https://app.example") is None


async def test_a_request_without_origin_may_use_a_bound_ticket(
    stores: tuple[TicketStore, TicketStore],
) -> None:
    ticket, _ = await stores[0].issue(ADA, "https://app.example")
    assert await stores[1].redeem(ticket, None) == ADA  # an EventSource to its own host


async def test_a_ticket_expires(two_buses: tuple[Bus, Bus], make_settings: Callable[..., Settings]) -> None:
    store = TicketStore(two_buses[0], make_settings(ticket_ttl_s=0.05))
    ticket, expires_at = await store.issue(ADA, "")
    await eventually(lambda: time.time() > expires_at, "the ticket's end")
    assert await store.redeem(ticket, None) is None


async def test_a_ticket_ends_with_its_token(stores: tuple[TicketStore, TicketStore]) -> None:
    ends = time.time() + 2
    _, expires_at = await stores[0].issue(Identity("ada", "ada", DEFAULT, expires_at=ends), "")
    assert expires_at == ends


@pytest.mark.parametrize(
    "ticket", ["", "x", "*", ">", "a.b", "A" * 43, "A" * 10_000, "é" * 43, "A" * 42 + "\n"]
)
async def test_what_is_no_ticket(stores: tuple[TicketStore, TicketStore], ticket: str) -> None:
    await stores[0].issue(ADA, "")
    assert await stores[0].redeem(ticket, None) is None


async def test_no_ticket_before_the_first_was_ever_issued(
    stores: tuple[TicketStore, TicketStore],
) -> None:
    assert await stores[0].redeem("A" * 43, None) is None


async def test_the_store_holds_no_tickets(two_buses: tuple[Bus, Bus], settings: Settings) -> None:
    store = TicketStore(two_buses[0], settings)
    ticket, _ = await store.issue(ADA, "")
    reply = await two_buses[0].request(
        f"$JS.API.STREAM.MSG.GET.{settings.subjects.tickets_stream}",
        f'{{"last_by_subj": "{settings.subjects.tickets}.*"}}'.encode(),
        timeout_s=PATIENCE_S,
    )
    assert hashlib.sha256(ticket.encode()).hexdigest().encode() in reply.data
    assert ticket.encode() not in reply.data


async def test_a_server_that_lost_its_memory_takes_new_tickets(
    tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    with NatsServer(tmp_path / "nats") as nats:
        settings = make_settings(nats_url=nats.url)
        bus = await Bus.connect(settings, "one")
        store = TicketStore(bus, settings)
        lost, _ = await store.issue(ADA, "")
        nats.kill()
        await eventually(lambda: not bus.connected, "the loss")
        with pytest.raises(Unavailable):
            await store.issue(ADA, "")
        nats.start()
        await eventually(lambda: bus.connected, "the return")

        assert await store.redeem(lost, None) is None
        ticket, _ = await store.issue(ADA, "")
        assert await store.redeem(ticket, None) == ADA
        await bus.close()


def bucket_spec(settings: Settings, max_bytes: int) -> StreamSpec:
    return StreamSpec(
        f"{settings.prefix}-b", f"{settings.prefix}.b.*", 1, 60, 0, 1, max_bytes, "new", "memory"
    )


async def test_a_bucket_made_with_other_settings_is_updated(
    two_buses: tuple[Bus, Bus], settings: Settings
) -> None:
    old, new = (
        Bucket(bus, bucket_spec(settings, size))
        for bus, size in zip(two_buses, (100_000, 200_000), strict=True)
    )
    await old.create("a", b"1")
    await new.open()

    entry = await new.get("a")
    assert entry is not None
    assert entry.data == b"1"
    await old.open()  # asks for less: what the other one asked for stays
    answer = await two_buses[0].request(f"$JS.API.STREAM.INFO.{settings.prefix}-b", b"", timeout_s=PATIENCE_S)
    assert msgspec.json.decode(answer.data)["config"]["max_bytes"] == 200_000


async def test_a_full_bucket_refuses_the_new_and_keeps_the_old(
    two_buses: tuple[Bus, Bus], settings: Settings
) -> None:
    bucket = Bucket(two_buses[0], bucket_spec(settings, 2000))
    await bucket.create("first", b"x" * 1000)
    with pytest.raises(StoreFull):
        await bucket.create("second", b"x" * 1000)
    assert await bucket.get("first") is not None


async def test_a_key_is_created_once(two_buses: tuple[Bus, Bus], settings: Settings) -> None:
    bucket = Bucket(two_buses[0], bucket_spec(settings, 10_000))
    await bucket.create("key", b"x")
    entry = await bucket.get("key")
    assert entry is not None
    with pytest.raises(RequestRefused):
        await bucket.create("key", b"y")
    assert await bucket.consume("key", entry.seq)
    assert not await bucket.consume("key", entry.seq)
    assert await bucket.get("key") is None
