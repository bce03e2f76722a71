"""States of alerts, their episodes, silences and documents; on every store of metrics."""

import pytest

from metrics_svc.alerts.instance import AlertInstance, ThresholdTimes
from metrics_svc.alerts.states import AlertState
from metrics_svc.store import DocumentKind, MetricsStore, SecondCommit, StoreLimitReached
from services.wire.rpc import AlertAck, Matcher, Silence
from services.wire.server import AlertRaised, AlertResolved
from tests.support.metrics import T0
from tests.support.metrics_store import alert, entry, firing, lead


class TestAlerts:
    async def test_states_come_back(self, store: MetricsStore) -> None:
        term = await lead(store)
        pending = AlertInstance(
            "disk", state=AlertState.PENDING, warning=ThresholdTimes(over_since=5), missing_since=7
        )
        await store.write("a", term, SecondCommit(T0, [], {"cpu-alert": firing(), "disk-alert": pending}))
        assert await store.instances() == {"cpu-alert": firing(), "disk-alert": pending}
        await store.write("a", term, SecondCommit(T0 + 1, [], {"disk-alert": None}))
        assert await store.instances() == {"cpu-alert": firing()}

    async def test_active_are_those_that_fire(self, store: MetricsStore) -> None:
        term = await lead(store)
        instances: dict[str, AlertInstance | None] = {
            "cpu-alert": firing(at=T0 + 5),
            "disk-alert": firing("disk", at=T0),
            "errors-alert": AlertInstance("errors", state=AlertState.PENDING),
        }
        await store.write("a", term, SecondCommit(T0, [], instances))
        active = await store.active()
        assert [(one.id, one.acknowledged) for one in active] == [
            ("disk-alert", False),
            ("cpu-alert", False),
        ]

    async def test_acknowledged_until_it_ends(self, store: MetricsStore) -> None:
        term = await lead(store)
        ack = AlertAck(id="cpu-alert", by="ann", comment='on "it"')
        assert not await store.acknowledge(ack, T0)
        await store.write("a", term, SecondCommit(T0, [], {"cpu-alert": firing()}, [entry(T0)]))
        assert await store.acknowledge(ack, T0)
        assert await store.acknowledge(ack, T0)
        assert [one.acknowledged for one in await store.active()] == [True]
        await store.write("a", term, SecondCommit(T0 + 1, [], {"cpu-alert": None}, [entry(T0, T0 + 1)]))
        assert await store.active() == []
        await store.write(
            "a", term, SecondCommit(T0 + 9, [], {"cpu-alert": firing(at=T0 + 9)}, [entry(T0 + 9)])
        )
        assert [one.acknowledged for one in await store.active()] == [False]

    async def test_a_pending_alert_cannot_be_acknowledged(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.write(
            "a", term, SecondCommit(T0, [], {"cpu-alert": AlertInstance("cpu", state=AlertState.PENDING)})
        )
        assert not await store.acknowledge(AlertAck(id="cpu-alert"), T0)

    async def test_the_log_has_one_line_per_episode_newest_first(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.write("a", term, SecondCommit(T0, [], {}, [entry(T0), entry(T0, metric="disk")]))
        await store.write("a", term, SecondCommit(T0 + 4, [], {}, [entry(T0, T0 + 4), entry(T0 + 4)]))
        assert await store.episodes(10) == [
            entry(T0 + 4),
            entry(T0, metric="disk"),
            entry(T0, T0 + 4),
        ]
        assert await store.episodes(1) == [entry(T0 + 4)]
        assert await store.episodes(0) == []

    async def test_the_log_is_bounded(self, store: MetricsStore, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("tests.support.metrics_store_memory", "metrics_svc.store_redis"):
            monkeypatch.setattr(f"{module}.MAX_EPISODES", 3)
        term = await lead(store)
        for at in range(T0, T0 + 6):
            await store.write("a", term, SecondCommit(at, [], {}, [entry(at)]))
        assert [line.started_at for line in await store.episodes(10)] == [
            at * 1000 for at in (T0 + 5, T0 + 4, T0 + 3)
        ]

    async def test_events_wait_until_they_are_announced(self, store: MetricsStore) -> None:
        term = await lead(store)
        raised, resolved = AlertRaised(data=alert()), AlertResolved(data=alert(at=T0 + 3))
        await store.write("a", term, SecondCommit(T0, [], events=[raised]))
        await store.write("a", term, SecondCommit(T0 + 3, [], events=[resolved]))
        assert await store.unannounced() == [raised, resolved]
        await store.remove_announced("b", term, T0 + 3)  # not the leader
        assert await store.unannounced() == [raised, resolved]
        for _ in range(2):  # asked twice, as after a lost answer
            await store.remove_announced("a", term, T0)
            assert await store.unannounced() == [resolved]
        await store.remove_announced("a", term, T0 + 3)
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
        assert await store.delete_document(DocumentKind.SILENCES, "one")
        assert not await store.delete_document(DocumentKind.SILENCES, "one")
        assert await store.silences(0) == []

    async def test_bounded(self, store: MetricsStore, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("tests.support.metrics_store_memory", "metrics_svc.store_redis"):
            monkeypatch.setattr(f"{module}.MAX_SILENCES", 2)
        await store.put_silence(self.silence("a", 0, 100), 0)
        await store.put_silence(self.silence("b", 0, 500), 0)
        with pytest.raises(StoreLimitReached):
            await store.put_silence(self.silence("c", 0, 500), 50)
        await store.put_silence(self.silence("b", 0, 600), 50)
        await store.put_silence(self.silence("c", 0, 500), 150)  # `a` has ended
        assert [silence.id for silence in await store.silences(150)] == ["b", "c"]


class TestDocuments:
    async def test_kept_by_collection(self, store: MetricsStore) -> None:
        await store.put_document(DocumentKind.RULES, "cpu", b'{"a":1}')
        await store.put_document(DocumentKind.RULES, "cpu", b'{"a":2}')
        await store.put_document(DocumentKind.RULES, "é*", b"{}")
        assert await store.documents(DocumentKind.RULES) == {"cpu": b'{"a":2}', "é*": b"{}"}
        assert await store.documents(DocumentKind.WINDOWS) == {}
        assert await store.delete_document(DocumentKind.RULES, "cpu")
        assert not await store.delete_document(DocumentKind.RULES, "cpu")

    async def test_bounded(self, store: MetricsStore, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("tests.support.metrics_store_memory", "metrics_svc.store_redis"):
            monkeypatch.setattr(f"{module}.MAX_DOCUMENTS", 1)
        await store.put_document(DocumentKind.RULES, "a", b"{}")
        with pytest.raises(StoreLimitReached):
            await store.put_document(DocumentKind.RULES, "b", b"{}")
        await store.put_document(DocumentKind.RULES, "a", b"{}")
