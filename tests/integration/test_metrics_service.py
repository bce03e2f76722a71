"""metrics_svc and the agent as processes, over a real NATS and a real Redis."""

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from services.bus.errors import RequestRefused
from services.settings import Settings
from services.wire import rpc
from services.wire.events import LogReport
from services.wire.records import LogEntry
from tests.support.deadline import eventually
from tests.support.metrics_fleet import Fleet
from tests.support.requires import need
from tidings_cli.local.servers import RedisServer

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def fleet(make_settings: Callable[..., Settings], tmp_path: Path) -> AsyncIterator[Fleet]:
    async with Fleet(make_settings(), tmp_path) as running:
        yield running


async def test_the_real_machine_is_on_the_feed_each_second(fleet: Fleet) -> None:
    service = fleet.start()
    fleet.start("metrics_svc.agent")
    await fleet.leader(service)
    await eventually(lambda: any(tick.record.memory for tick in fleet.ticks), "a record of this machine")
    first = len(fleet.ticks)
    await eventually(lambda: len(fleet.ticks) >= first + 3, "three more seconds")
    assert fleet.seconds == list(range(fleet.seconds[0], fleet.seconds[0] + len(fleet.seconds)))
    record = fleet.ticks[-1].record
    assert 0 < record.memory <= 100
    assert 0 < record.disk <= 100
    state = await fleet.ask(rpc.METRICS_STATE, rpc.Empty())
    assert state.history[-1].timestamp >= record.timestamp
    assert len(state.history) <= 100


@pytest.mark.timing
async def test_an_alert_is_raised_in_time_and_resolved(fleet: Fleet) -> None:
    await fleet.leader(fleet.start())
    await fleet.report_until(
        lambda: fleet.ticks and fleet.ticks[-1].record.cpu == 20, "quiet", gauges={"cpu": 20}
    )
    crossed = time.monotonic()
    await fleet.report_until(lambda: fleet.alerts, "the alert", gauges={"cpu": 95.5})
    assert fleet.alerted_at[0] - crossed < 1.5
    alert = fleet.alerts[0].data
    assert (alert.id, alert.type, alert.value, alert.threshold) == ("cpu-alert", "critical", 95.5, 90)
    assert alert.message == "cpu is 95.5 %, critical at 90"

    (active,) = (await fleet.ask(rpc.ALERTS_ACTIVE, rpc.Empty())).alerts
    assert (active.id, active.acknowledged) == ("cpu-alert", False)
    acknowledged = await fleet.ask(rpc.ALERTS_ACK, rpc.AlertAck(id="cpu-alert", by="ann"))
    assert acknowledged.acknowledged is True
    (logged,) = (await fleet.ask(rpc.ALERTS_LOG, rpc.AlertLogQuery())).entries
    assert (logged.state, logged.started_at) == ("firing", alert.timestamp)

    await fleet.report_until(lambda: len(fleet.alerts) > 1, "the end", gauges={"cpu": 30})
    assert fleet.said == ["cpu-alert critical", "cpu-alert resolved"]
    assert (await fleet.ask(rpc.ALERTS_ACTIVE, rpc.Empty())).alerts == []
    (logged,) = (await fleet.ask(rpc.ALERTS_LOG, rpc.AlertLogQuery())).entries
    assert logged.state == "resolved"
    assert logged.ended_at > logged.started_at
    with pytest.raises(RequestRefused, match="not_found"):
        await fleet.ask(rpc.ALERTS_ACK, rpc.AlertAck(id="cpu-alert"))


async def test_rules_change_while_running(fleet: Fleet, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nmetric = "depth"\nsource = "*"\nwarning = 5\nclear_for_s = 0\n')
    service = fleet.start(TIDINGS_RULES_FILE=str(rules))
    await fleet.leader(service)
    shop = {"source": "shop", "kind": "app", "gauges": {"depth": 7.0, "cpu": 99.0}}
    await fleet.report_until(lambda: fleet.alerts, "the alert", **shop)
    assert fleet.said == ["depth@shop-alert warning"]
    rules.write_text("[[rule")
    await fleet.report_until(
        lambda: service.logged("invalid rules file; the previous rules stay in effect"), "the refusal", **shop
    )
    assert fleet.said == ["depth@shop-alert warning"]
    rules.write_text('[[rule]]\nmetric = "depth"\nsource = "*"\nwarning = 8\nclear_for_s = 0\n')
    await fleet.report_until(lambda: len(fleet.alerts) > 1, "the end", **shop)
    assert fleet.said == ["depth@shop-alert warning", "depth@shop-alert resolved"]


async def test_silences(fleet: Fleet) -> None:
    await fleet.leader(fleet.start())
    wanted = rpc.Silence(
        matchers=[rpc.Matcher(name="metric", value="cpu")],
        starts_at=0,
        ends_at=fleet.now_ms() + 60_000,
        comment="deploy",
    )
    stored = await fleet.ask(rpc.SILENCES_SET, wanted)
    assert stored.id
    assert stored.starts_at > 0
    assert (await fleet.ask(rpc.SILENCES_LIST, rpc.Empty())).silences == [stored]
    await fleet.ask(rpc.SILENCES_END, rpc.ById(id=stored.id))
    assert (await fleet.ask(rpc.SILENCES_LIST, rpc.Empty())).silences == []
    for endpoint, request, code in (
        (rpc.SILENCES_END, rpc.ById(id=stored.id), "not_found"),
        (rpc.SILENCES_SET, msgspec.structs.replace(wanted, matchers=[]), "invalid_field"),
        (rpc.SILENCES_SET, msgspec.structs.replace(wanted, ends_at=1), "invalid_field"),
        (rpc.SILENCES_SET, msgspec.structs.replace(wanted, comment="x" * 5000), "too_large"),
        (rpc.METRICS_HISTORY, rpc.HistoryQuery(step=-1), "invalid_field"),
    ):
        with pytest.raises(RequestRefused) as refused:
            await fleet.ask(endpoint, request)
        assert refused.value.code == code


async def test_log_lines_are_stored_published_and_counted_as_errors(fleet: Fleet) -> None:
    await fleet.leader(fleet.start(), fleet.start())
    await eventually(lambda: fleet.ticks, "the first second")

    def line(level: str, event: str) -> LogEntry:
        return LogEntry(timestamp=fleet.now_ms(), level=level, source="shop", event=event)

    sent = LogReport(source="shop", entries=[line("info", "fine"), line("error", "broken")])
    fleet.bus.publish(fleet.settings.subjects.logs_report("app"), msgspec.json.encode(sent))
    await eventually(lambda: sent in fleet.logs, "the lines on the feed")
    await eventually(lambda: any(tick.record.errors == 1 for tick in fleet.ticks), "an error counted")

    async def kept() -> list[LogEntry]:
        page = await fleet.ask(rpc.LOGS_RECENT, rpc.LogQuery(limit=100))
        return [entry for entry in page.entries if entry.source == "shop"]

    assert await kept() == sent.entries
    assert sum(report == sent for report in fleet.logs) == 1  # two replicas, and each line once


async def test_history_and_states_survive_a_restart(fleet: Fleet) -> None:
    first = fleet.start()
    await fleet.leader(first)
    await fleet.report_until(lambda: fleet.alerts, "the alert", gauges={"cpu": 95})
    assert first.stop() == 0
    before = fleet.seconds[-1]
    second = fleet.start()
    await fleet.leader(second)
    await fleet.report_until(lambda: fleet.seconds[-1] >= before + 2, "more seconds", gauges={"cpu": 95})
    assert fleet.said == ["cpu-alert critical"]  # not announced again
    rows = (await fleet.ask(rpc.METRICS_HISTORY, rpc.HistoryQuery(limit=3600))).rows
    assert {row.timestamp // 1000 for row in rows} >= set(fleet.seconds[:-1])
    await fleet.report_until(lambda: len(fleet.alerts) > 1, "the end", gauges={"cpu": 5})
    assert fleet.said == ["cpu-alert critical", "cpu-alert resolved"]


async def test_while_redis_is_away_questions_are_refused_and_then_it_heals(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    need("redis-server")
    with RedisServer(tmp_path / "redis") as redis:
        async with Fleet(make_settings(redis_url=redis.url), tmp_path) as fleet:
            await fleet.leader(fleet.start())
            await eventually(lambda: len(fleet.ticks) >= 2, "two seconds")
            redis.kill()
            with pytest.raises(RequestRefused) as refused:
                await fleet.ask(rpc.METRICS_STATE, rpc.Empty())
            assert refused.value.code == "unavailable"
            heard = len(fleet.ticks)
            redis.start()
            await eventually(lambda: len(fleet.ticks) >= heard + 3, "seconds after the outage")
            assert len(fleet.seconds) == len(set(fleet.seconds))
            await fleet.ask(rpc.METRICS_STATE, rpc.Empty())
