"""Pending notifications and their receivers; on every store of metrics."""

import msgspec
import pytest

from metrics_svc.notify.nflog import AckRecord, NotifyChange, SentNotification
from metrics_svc.store import DocumentKind, MetricsStore, SecondCommit
from services.wire.alerting import Receiver, Window
from services.wire.records import AlertTransition
from services.wire.rpc import AlertAck, Matcher, Silence
from tests.support.metrics import T0
from tests.support.metrics_store import entry, firing, lead


class TestNotifying:
    def sent(self, key: str = "k") -> SentNotification:
        return SentNotification("webhook-1", "{}", {"alertname": "cpu"}, T0 * 1000, key, [entry(T0)])

    async def test_pending_notifications_are_stored_with_their_second(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.write("a", term, SecondCommit(T0, [], entries=[entry(T0), entry(T0, metric="disk")]))
        await store.write("a", term, SecondCommit(T0 + 1, [], entries=[entry(T0, T0 + 1)]))
        state = await store.notify_state(T0 * 1000)
        assert state.pending_alerts == {
            "cpu-alert": entry(T0, T0 + 1),
            "disk-alert": entry(T0, metric="disk"),
        }
        assert (state.nflog, state.pending_sends, state.receivers, state.windows) == ({}, {}, {}, [])

    async def test_messages_receivers_and_what_is_done(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.write("a", term, SecondCommit(T0, [], entries=[entry(T0, T0 + 1)]))
        receiver = Receiver(name="webhook-1", kind="webhook", up=False, error="refused", failures=3)
        change = NotifyChange(
            {"a": self.sent()}, {"b": self.sent("é")}, {"webhook-1": receiver}, [entry(T0, T0 + 1)]
        )
        assert await store.notify_write("a", term, change)
        state = await store.notify_state(T0 * 1000)
        assert (state.pending_alerts, state.nflog, state.pending_sends) == (
            {},
            {"a": self.sent()},
            {"b": self.sent("é")},
        )
        assert state.receivers == {"webhook-1": receiver}
        assert await store.notify_write(
            "a", term, NotifyChange({"a": None}, {"b": None}, {"webhook-1": None})
        )
        state = await store.notify_state(T0 * 1000)
        assert (state.nflog, state.pending_sends, state.receivers) == ({}, {}, {})

    async def test_what_goes_on_firing_has_its_value_of_now(self, store: MetricsStore) -> None:
        term = await lead(store)
        now = {"value": 99.9, "message": "cpu is 99.9 %"}
        watch, line = msgspec.structs.replace(firing(), **now), msgspec.structs.replace(entry(T0), **now)
        await store.write("a", term, SecondCommit(T0, [], {"cpu-alert": firing()}, [entry(T0)]))
        elsewhere = msgspec.structs.replace(line, id="gone-alert")
        await store.write(
            "a", term, SecondCommit(T0 + 9, [], {"cpu-alert": watch}, current=[line, elsewhere])
        )
        assert (await store.notify_state(0)).pending_alerts == {"cpu-alert": line}
        assert [(alert.value, alert.message) for alert in await store.active()] == [(99.9, "cpu is 99.9 %")]
        assert await store.episodes(10) == [entry(T0)]  # the log says what was announced

    async def test_a_pending_alert_that_changed_meanwhile_is_kept(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.write("a", term, SecondCommit(T0, [], entries=[entry(T0, T0 + 1)]))
        await store.write("a", term, SecondCommit(T0 + 5, [], entries=[entry(T0 + 5)]))
        await store.notify_write("a", term, NotifyChange(done=[entry(T0, T0 + 1)]))
        assert (await store.notify_state(0)).pending_alerts == {"cpu-alert": entry(T0 + 5)}

    async def test_another_term_is_fenced(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.release("a", term)
        await lead(store, "b")
        assert not await store.notify_write("a", term, NotifyChange({"a": self.sent()}))
        assert (await store.notify_state(0)).nflog == {}

    async def test_acknowledgements_silences_and_windows_are_read_together(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.write("a", term, SecondCommit(T0, [], {"cpu-alert": firing()}, [entry(T0)]))
        await store.acknowledge(AlertAck(id="cpu-alert", by="ann", comment="on it"), T0)
        matchers = [Matcher(name="source", value="web-*", op="~")]
        window = Window(id="w", matchers=matchers, days=["mon"], start="01:00", end="02:00")
        await store.put_document(DocumentKind.WINDOWS, "w", msgspec.json.encode(window))
        silence = Silence(id="s", matchers=matchers, starts_at=0, ends_at=100)
        await store.put_silence(silence, 0)
        state = await store.notify_state(50)
        assert state.acks == {"cpu-alert": AckRecord(str(T0 * 1000), "ann", "on it")}
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
            await store.write("a", term, SecondCommit(T0 + at, [], transitions=[step]))
        assert [step.timestamp for step in await store.transitions(2)] == [2, 1]
        assert len(await store.transitions(100)) == 3
        assert await store.transitions(0) == []
