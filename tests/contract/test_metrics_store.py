"""What every store of metrics_svc does alike: run on the one in memory and on Redis."""

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from metrics_svc import store as limits
from metrics_svc.aggregation.rollups import SeriesRow
from metrics_svc.aggregation.rows import Row, merge
from metrics_svc.aggregation.tiers import SECONDS, TENS
from metrics_svc.alerts.judge import Timing, Watch
from metrics_svc.alerts.states import State
from metrics_svc.notify.records import Acknowledged, NotifyChange, Sent
from metrics_svc.store import (
    Collection,
    MetricsStore,
    StoreUnavailable,
    Tick,
    TooManyDocuments,
    TooManySilences,
    Written,
)
from metrics_svc.store_memory import MemoryStore
from metrics_svc.store_redis import RedisStore
from services.redis_link import open_redis
from services.settings import Settings
from services.sketch import LatencySketch
from services.wire.alerting import Receiver, Window
from services.wire.records import UNSET, Alert, AlertLogEntry, AlertTransition, LogEntry
from services.wire.rpc import AlertAck, Matcher, Silence
from services.wire.server import AlertRaised, AlertResolved
from tests.support.deadline import eventually
from tests.support.metrics import T0

LONG_MS = 60_000


@pytest.fixture(params=["memory", "redis", "valkey", "cluster"])
async def store(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings]
) -> AsyncIterator[MetricsStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    settings = make_settings(redis_url=request.getfixturevalue(f"{request.param}_server").url)
    redis_store = RedisStore(open_redis(settings, "metrics"), settings.prefix)
    yield redis_store
    await redis_store.close()


async def lead(store: MetricsStore, holder: str = "a") -> int:
    grant = await store.acquire(holder, LONG_MS)
    assert grant.term
    return grant.term


def second(at: int, latencies: list[float] | None = None, series: str = "", **values: float) -> SeriesRow:
    sketch = LatencySketch(latencies) if latencies else None
    return SeriesRow(series, SECONDS, Row.of_second(at, values, sketch))


def alert(severity: str = "critical", metric: str = "cpu", at: int = T0) -> Alert:
    return Alert(
        id=f"{metric}-alert",
        type=severity,  # type: ignore[arg-type]
        metric=metric,
        value=95.0,
        threshold=90.0,
        message="cpu is 95 %",
        timestamp=at * 1000,
    )


def firing(metric: str = "cpu", at: int = T0) -> Watch:
    return Watch(
        metric,
        state=State.FIRING,
        critical=Timing(over_since=at * 1000),
        started_at=at * 1000,
        alert=alert(metric=metric, at=at),
    )


def entry(at: int, ended: int | None = None, metric: str = "cpu") -> AlertLogEntry:
    raised = alert(metric=metric, at=at)
    return AlertLogEntry(
        id=raised.id,
        type=raised.type,
        metric=metric,
        value=raised.value,
        threshold=raised.threshold,
        message=raised.message,
        timestamp=raised.timestamp,
        state="firing" if ended is None else "resolved",
        started_at=at * 1000,
        ended_at=UNSET if ended is None else ended * 1000,
    )


class TestLease:
    async def test_one_holds_it_and_renews_it(self, store: MetricsStore) -> None:
        first = await store.acquire("a", LONG_MS)
        again = await store.acquire("a", LONG_MS)
        other = await store.acquire("b", LONG_MS)
        assert first.term == again.term > 0
        assert other.term == 0
        assert 0 < other.left_ms <= LONG_MS
        assert first.clock_s > T0

    async def test_terms_rise(self, store: MetricsStore) -> None:
        terms = []
        for holder in ("a", "b", "a"):
            terms.append(await lead(store, holder))
            await store.release(holder, terms[-1])
        assert terms == sorted(set(terms))

    async def test_it_runs_out(self, store: MetricsStore) -> None:
        first = await store.acquire("a", 30)

        async def taken() -> int:
            return (await store.acquire("b", LONG_MS)).term

        assert await eventually(taken, "the lease") > first.term

    async def test_only_its_holder_gives_it_up(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.release("b", term)
        await store.release("a", term - 1)
        assert (await store.acquire("b", LONG_MS)).term == 0


class TestWriting:
    async def test_a_second_is_written_once(self, store: MetricsStore) -> None:
        term = await lead(store)
        tick = Tick(T0, [second(T0, cpu=1.0)])
        assert await store.write("a", term, tick) is Written.DONE
        assert await store.write("a", term, tick) is Written.AGAIN
        assert await store.write("a", term, Tick(T0 - 1, [])) is Written.STALE
        assert await store.last_second() == T0
        assert len(await store.newest("", 10)) == 1

    async def test_a_successor_does_not_write_it_again(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.write("a", term, Tick(T0, [second(T0, cpu=1.0)]))
        await store.release("a", term)
        successor = await lead(store, "b")
        assert await store.write("b", successor, Tick(T0, [second(T0, cpu=2.0)])) is Written.STALE
        assert await store.write("b", successor, Tick(T0 + 1, [])) is Written.DONE

    async def test_a_fenced_writer_changes_nothing(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.release("a", term)
        tick = Tick(T0, [second(T0, cpu=1.0)], {"cpu-alert": firing()}, [entry(T0)], [])
        assert await store.write("a", term, tick) is Written.FENCED
        await lead(store, "b")
        assert await store.write("a", term, tick) is Written.FENCED
        assert await store.write("b", term, tick) is Written.FENCED
        assert await store.last_second() == 0
        assert await store.newest("", 10) == []
        assert await store.watches() == {}
        assert await store.episodes(10) == []

    async def test_nothing_is_there_before(self, store: MetricsStore) -> None:
        assert await store.last_second() == 0
        assert await store.newest("", 100) == []
        assert await store.rows("", TENS, T0, T0 + 100, sketches=True) == []
        assert await store.series(0) == {}
        assert await store.active() == []
        assert await store.episodes(10) == []
        assert await store.unannounced() == []
        assert await store.silences(0) == []
        assert await store.recent_logs(10) == []


class TestRows:
    async def test_rows_come_back_as_they_were(self, store: MetricsStore) -> None:
        term = await lead(store)
        written = [second(T0 + at, [1.0, 50.0 * at + 1], cpu=float(at)) for at in range(3)]
        for placed in written:
            await store.write("a", term, Tick(placed.row.start, [placed]))
        rows = await store.rows("", SECONDS, T0, T0 + 3, sketches=True)
        assert [row.start for row in rows] == [T0, T0 + 1, T0 + 2]
        for row, placed in zip(rows, written, strict=True):
            assert row.stats == placed.row.stats
            assert row.latency is not None
            assert placed.row.latency is not None
            assert row.latency.to_wire() == placed.row.latency.to_wire()
        plain = await store.rows("", SECONDS, T0 + 1, T0 + 2, sketches=False)
        assert [(row.start, row.latency, row.percentiles) for row in plain] == [
            (T0 + 1, None, written[1].row.percentiles)
        ]

    async def test_series_and_tiers_are_apart(self, store: MetricsStore) -> None:
        term = await lead(store)
        tens = merge(T0, [second(T0 + at, cpu=1.0).row for at in range(10)])
        name = "web:1 {x} é"
        rows = [
            second(T0, cpu=1.0),
            second(T0, series=name, cpu=2.0),
            SeriesRow("", TENS, tens),
        ]
        await store.write("a", term, Tick(T0, rows))
        assert await store.series(T0) == {"": T0, name: T0}
        assert await store.series(T0 + 1) == {}
        assert [row.value("cpu") for row in await store.newest(name, 5)] == [2.0]
        assert [row.seconds for row in await store.rows("", TENS, T0, T0 + 1, sketches=False)] == [10]
        assert await store.rows(name, TENS, T0, T0 + 1, sketches=False) == []

    async def test_the_newest_across_chunks(self, store: MetricsStore) -> None:
        term = await lead(store)
        border = SECONDS.chunk(T0) + SECONDS.chunk_s
        for at in range(border - 3, border + 3):
            await store.write("a", term, Tick(at, [second(at, cpu=1.0)]))
        assert [row.start for row in await store.newest("", 4)] == list(range(border - 1, border + 3))
        assert len(await store.newest("", 1000)) == 6
        assert await store.newest("", 0) == []
        across = await store.rows("", SECONDS, border - 2, border + 2, sketches=False)
        assert [row.start for row in across] == list(range(border - 2, border + 2))


class TestAlerts:
    async def test_states_come_back(self, store: MetricsStore) -> None:
        term = await lead(store)
        pending = Watch("disk", state=State.PENDING, warning=Timing(over_since=5), missing_since=7)
        await store.write("a", term, Tick(T0, [], {"cpu-alert": firing(), "disk-alert": pending}))
        assert await store.watches() == {"cpu-alert": firing(), "disk-alert": pending}
        await store.write("a", term, Tick(T0 + 1, [], {"disk-alert": None}))
        assert await store.watches() == {"cpu-alert": firing()}

    async def test_active_are_those_that_fire(self, store: MetricsStore) -> None:
        term = await lead(store)
        watches: dict[str, Watch | None] = {
            "cpu-alert": firing(at=T0 + 5),
            "disk-alert": firing("disk", at=T0),
            "errors-alert": Watch("errors", state=State.PENDING),
        }
        await store.write("a", term, Tick(T0, [], watches))
        active = await store.active()
        assert [(one.id, one.acknowledged) for one in active] == [
            ("disk-alert", False),
            ("cpu-alert", False),
        ]

    async def test_acknowledged_until_it_ends(self, store: MetricsStore) -> None:
        term = await lead(store)
        ack = AlertAck(id="cpu-alert", by="ann", comment='on "it"')
        assert not await store.acknowledge(ack, T0)
        await store.write("a", term, Tick(T0, [], {"cpu-alert": firing()}, [entry(T0)]))
        assert await store.acknowledge(ack, T0)
        assert await store.acknowledge(ack, T0)
        assert [one.acknowledged for one in await store.active()] == [True]
        await store.write("a", term, Tick(T0 + 1, [], {"cpu-alert": None}, [entry(T0, T0 + 1)]))
        assert await store.active() == []
        await store.write("a", term, Tick(T0 + 9, [], {"cpu-alert": firing(at=T0 + 9)}, [entry(T0 + 9)]))
        assert [one.acknowledged for one in await store.active()] == [False]

    async def test_a_pending_alert_cannot_be_acknowledged(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.write("a", term, Tick(T0, [], {"cpu-alert": Watch("cpu", state=State.PENDING)}))
        assert not await store.acknowledge(AlertAck(id="cpu-alert"), T0)

    async def test_the_log_has_one_line_per_episode_newest_first(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.write("a", term, Tick(T0, [], {}, [entry(T0), entry(T0, metric="disk")]))
        await store.write("a", term, Tick(T0 + 4, [], {}, [entry(T0, T0 + 4), entry(T0 + 4)]))
        assert await store.episodes(10) == [
            entry(T0 + 4),
            entry(T0, metric="disk"),
            entry(T0, T0 + 4),
        ]
        assert await store.episodes(1) == [entry(T0 + 4)]
        assert await store.episodes(0) == []

    async def test_the_log_is_bounded(self, store: MetricsStore, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("metrics_svc.store_memory", "metrics_svc.store_redis"):
            monkeypatch.setattr(f"{module}.MAX_EPISODES", 3)
        term = await lead(store)
        for at in range(T0, T0 + 6):
            await store.write("a", term, Tick(at, [], {}, [entry(at)]))
        assert [line.started_at for line in await store.episodes(10)] == [
            at * 1000 for at in (T0 + 5, T0 + 4, T0 + 3)
        ]

    async def test_events_wait_until_they_are_announced(self, store: MetricsStore) -> None:
        term = await lead(store)
        raised, resolved = AlertRaised(data=alert()), AlertResolved(data=alert(at=T0 + 3))
        await store.write("a", term, Tick(T0, [], events=[raised]))
        await store.write("a", term, Tick(T0 + 3, [], events=[resolved]))
        assert await store.unannounced() == [raised, resolved]
        await store.announced("b", term, T0 + 3)  # not the one who leads
        assert await store.unannounced() == [raised, resolved]
        for _ in range(2):  # asked twice, as after a lost answer
            await store.announced("a", term, T0)
            assert await store.unannounced() == [resolved]
        await store.announced("a", term, T0 + 3)
        assert await store.unannounced() == []


class TestSilences:
    def silence(self, id: str, starts_at: int, ends_at: int) -> Silence:
        return Silence(
            id=id,
            matchers=[Matcher(name="metric", value="cpu")],
            starts_at=starts_at,
            ends_at=ends_at,
            comment="maintenance",
        )

    async def test_kept_until_they_end(self, store: MetricsStore) -> None:
        late, early = self.silence("late", 50, 200), self.silence("early", 10, 100)
        await store.put_silence(late, 0)
        await store.put_silence(early, 0)
        assert await store.silences(20) == [early, late]
        assert await store.silences(100) == [late]
        longer = self.silence("late", 50, 300)
        await store.put_silence(longer, 20)
        assert await store.silences(250) == [longer]

    async def test_ended_early(self, store: MetricsStore) -> None:
        await store.put_silence(self.silence("one", 0, 100), 0)
        assert await store.end_silence("one")
        assert not await store.end_silence("one")
        assert await store.silences(0) == []

    async def test_bounded(self, store: MetricsStore, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("metrics_svc.store_memory", "metrics_svc.store_redis"):
            monkeypatch.setattr(f"{module}.MAX_SILENCES", 2)
        await store.put_silence(self.silence("a", 0, 100), 0)
        await store.put_silence(self.silence("b", 0, 500), 0)
        with pytest.raises(TooManySilences):
            await store.put_silence(self.silence("c", 0, 500), 50)
        await store.put_silence(self.silence("b", 0, 600), 50)
        await store.put_silence(self.silence("c", 0, 500), 150)  # `a` has ended
        assert [silence.id for silence in await store.silences(150)] == ["b", "c"]


class TestDocuments:
    async def test_kept_by_collection(self, store: MetricsStore) -> None:
        await store.put_document(Collection.RULES, "cpu", b'{"a":1}')
        await store.put_document(Collection.RULES, "cpu", b'{"a":2}')
        await store.put_document(Collection.RULES, "é*", b"{}")
        assert await store.documents(Collection.RULES) == {"cpu": b'{"a":2}', "é*": b"{}"}
        assert await store.documents(Collection.WINDOWS) == {}
        assert await store.end_document(Collection.RULES, "cpu")
        assert not await store.end_document(Collection.RULES, "cpu")

    async def test_bounded(self, store: MetricsStore, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("metrics_svc.store_memory", "metrics_svc.store_redis"):
            monkeypatch.setattr(f"{module}.MAX_DOCUMENTS", 1)
        await store.put_document(Collection.RULES, "a", b"{}")
        with pytest.raises(TooManyDocuments):
            await store.put_document(Collection.RULES, "b", b"{}")
        await store.put_document(Collection.RULES, "a", b"{}")


class TestNotifying:
    def sent(self, key: str = "k") -> Sent:
        return Sent("webhook-1", "{}", {"alertname": "cpu"}, T0 * 1000, key, [entry(T0)])

    async def test_what_is_to_be_told_comes_with_the_second_that_decided_it(
        self, store: MetricsStore
    ) -> None:
        term = await lead(store)
        await store.write("a", term, Tick(T0, [], entries=[entry(T0), entry(T0, metric="disk")]))
        await store.write("a", term, Tick(T0 + 1, [], entries=[entry(T0, T0 + 1)]))
        state = await store.notify_state(T0 * 1000)
        assert state.notices == {"cpu-alert": entry(T0, T0 + 1), "disk-alert": entry(T0, metric="disk")}
        assert (state.log, state.intents, state.receivers, state.windows) == ({}, {}, {}, [])

    async def test_messages_receivers_and_what_is_done(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.write("a", term, Tick(T0, [], entries=[entry(T0, T0 + 1)]))
        receiver = Receiver(name="webhook-1", kind="webhook", up=False, error="refused", failures=3)
        change = NotifyChange(
            {"a": self.sent()}, {"b": self.sent("é")}, {"webhook-1": receiver}, [entry(T0, T0 + 1)]
        )
        assert await store.notify_write("a", term, change)
        state = await store.notify_state(T0 * 1000)
        assert (state.notices, state.log, state.intents) == ({}, {"a": self.sent()}, {"b": self.sent("é")})
        assert state.receivers == {"webhook-1": receiver}
        assert await store.notify_write(
            "a", term, NotifyChange({"a": None}, {"b": None}, {"webhook-1": None})
        )
        state = await store.notify_state(T0 * 1000)
        assert (state.log, state.intents, state.receivers) == ({}, {}, {})

    async def test_a_notice_that_changed_meanwhile_stays(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.write("a", term, Tick(T0, [], entries=[entry(T0, T0 + 1)]))
        await store.write("a", term, Tick(T0 + 5, [], entries=[entry(T0 + 5)]))
        await store.notify_write("a", term, NotifyChange(done=[entry(T0, T0 + 1)]))
        assert (await store.notify_state(0)).notices == {"cpu-alert": entry(T0 + 5)}

    async def test_another_term_is_fenced(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.release("a", term)
        await lead(store, "b")
        assert not await store.notify_write("a", term, NotifyChange({"a": self.sent()}))
        assert (await store.notify_state(0)).log == {}

    async def test_who_acknowledged_silences_and_windows_are_read_together(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.write("a", term, Tick(T0, [], {"cpu-alert": firing()}, [entry(T0)]))
        await store.acknowledge(AlertAck(id="cpu-alert", by="ann", comment="on it"), T0)
        matchers = [Matcher(name="source", value="web-*", op="~")]
        window = Window(id="w", matchers=matchers, days=["mon"], start="01:00", end="02:00")
        await store.put_document(Collection.WINDOWS, "w", msgspec.json.encode(window))
        silence = Silence(id="s", matchers=matchers, starts_at=0, ends_at=100)
        await store.put_silence(silence, 0)
        state = await store.notify_state(50)
        assert state.acks == {"cpu-alert": Acknowledged(str(T0 * 1000), "ann", "on it")}
        assert (state.windows, state.silences) == ([window], [silence])
        assert (await store.notify_state(200)).silences == []

    async def test_transitions_newest_first_and_bounded(
        self, store: MetricsStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        term = await lead(store)
        for at in range(3):
            step = AlertTransition(
                id="cpu-alert", timestamp=at, before="inactive", after="pending", reason="over"
            )
            await store.write("a", term, Tick(T0 + at, [], transitions=[step]))
        assert [step.timestamp for step in await store.transitions(2)] == [2, 1]
        assert len(await store.transitions(100)) == 3
        assert await store.transitions(0) == []


class TestLogs:
    def line(self, event: str) -> LogEntry:
        return LogEntry(
            timestamp=1, level="info", source="gw", event=event, fields={"n": 1, "deep": [1, None]}
        )

    async def test_the_newest_oldest_first(self, store: MetricsStore) -> None:
        await store.append_logs([])
        await store.append_logs([self.line("one"), self.line("two")])
        await store.append_logs([self.line("three")])
        assert await store.recent_logs(2) == [self.line("two"), self.line("three")]
        assert await store.recent_logs(0) == []

    async def test_bounded(self, store: MetricsStore) -> None:
        await store.append_logs([self.line(str(number)) for number in range(limits.MAX_LOG_LINES + 5)])
        await store.append_logs([self.line("last")])
        kept = await store.recent_logs(10 * limits.MAX_LOG_LINES)
        assert len(kept) == limits.MAX_LOG_LINES
        assert (kept[0].event, kept[-1].event) == ("6", "last")


async def test_a_redis_that_is_not_there_is_unavailable() -> None:
    store = RedisStore(open_redis(Settings(redis_url="redis://127.0.0.1:1/0"), "metrics"), "nowhere")
    with pytest.raises(StoreUnavailable):
        await store.acquire("a", 1000)
    with pytest.raises(StoreUnavailable):
        await store.newest("", 1)
    with pytest.raises(StoreUnavailable):
        await store.active()
    await store.close()
