"""The cost of 2,000 alerts that fire at once, in CPU time, which a busy machine does not change."""

import time
from collections.abc import AsyncIterator, Callable

import pytest

from metrics_svc.alert_endpoints import AlertEndpoints
from metrics_svc.alerts.instance import AlertInstance
from metrics_svc.alerts.rule_store import RuleStore
from metrics_svc.alerts.rules import DEFAULT_RULES
from metrics_svc.alerts.states import AlertState
from metrics_svc.leader_lease import FleetClock
from metrics_svc.notify.decision import NotifyTimings
from metrics_svc.notify.notifier import INTERVAL_S, Notifier
from metrics_svc.notify.receivers import ConfiguredReceiver
from metrics_svc.store import MAX_SILENCES, DocumentKind, MetricsStore, SecondCommit
from metrics_svc.store_redis import RedisMetricsStore
from services.redis_client import open_redis
from services.settings import Settings
from services.wire.alerting import Receiver
from services.wire.records import AlertLogEntry
from services.wire.rpc import Empty, Matcher, Silence
from tests.support.metrics import T0, ManualTime
from tests.support.metrics_store import LONG_MS, alert
from tests.support.notifying import FakeIntegration, entry
from tidings_cli.local.servers import RedisServer

ALERTS = 2000
CPU_S_PER_S = 0.05


@pytest.fixture
async def store(
    make_settings: Callable[..., Settings], redis_server: RedisServer
) -> AsyncIterator[MetricsStore]:
    settings = make_settings(redis_url=redis_server.url)
    store = RedisMetricsStore(open_redis(settings, "metrics", timeout_s=5), settings.prefix)
    yield store
    await store.close()


@pytest.fixture
async def term(store: MetricsStore) -> int:
    """A term in which four metrics of 500 sources fire, and which knows as many silences and some windows."""
    term = (await store.acquire("a", LONG_MS)).term
    lines: list[AlertLogEntry] = []
    instances: dict[str, AlertInstance | None] = {}
    for at in range(ALERTS):
        metric, source = f"m{at % 4}", f"s{at // 4}"
        severity = "critical" if at % 3 else "warning"
        line = entry(f"{metric}-{source}-alert", severity, source=source, team="x")
        lines.append(line)
        raised = alert(severity, f"{metric}-{source}")
        instances[line.id] = AlertInstance(
            metric, source, AlertState.FIRING, started_at=T0 * 1000, alert=raised
        )
    await store.write("a", term, SecondCommit(T0, [], instances, lines))
    for at in range(MAX_SILENCES):
        matcher = Matcher(name="source", value=f"web-{at}*", op="~")
        await store.put_silence(Silence(id=f"s{at}", matchers=[matcher], starts_at=1, ends_at=10**14), 1)
    for at in range(50):
        data = b'{"id":"w%d","matchers":[{"name":"source","value":"x"}],"start":"00:00","end":"00:00"}' % at
        await store.put_document(DocumentKind.WINDOWS, f"w{at}", data)
    return term


@pytest.mark.timing
async def test_the_replica_that_ticks_notifies_of_a_storm_for_little(store: MetricsStore, term: int) -> None:
    clock, integration = ManualTime(T0 + 60), FakeIntegration()
    receiver = ConfiguredReceiver(
        Receiver(name="webhook-1", kind="webhook", up=True), integration, NotifyTimings()
    )
    notifier = Notifier(
        [receiver], store, "a", lambda: term, lambda: DEFAULT_RULES, lambda: int(clock.now * 1000)
    )
    await notifier.run_once()
    await notifier.settle(10)
    await notifier.run_once()
    assert (
        sum(len(message.firing) for message in integration.got) > ALERTS / 2
    )  # for critical alerts no warning is notified
    seconds = 5.0
    began = time.process_time()
    for _ in range(int(seconds / INTERVAL_S)):
        clock.now += INTERVAL_S
        await notifier.run_once()
    assert (time.process_time() - began) / seconds < CPU_S_PER_S


@pytest.mark.timing
@pytest.mark.usefixtures("term")
async def test_an_answer_about_a_storm_costs_little(store: MetricsStore) -> None:
    endpoints = AlertEndpoints(store, FleetClock(), RuleStore(None))
    assert len((await endpoints.alerts(Empty())).alerts) == ALERTS
    spent = []
    for _ in range(5):
        began = time.process_time()
        await endpoints.alerts(Empty())
        spent.append(time.process_time() - began)
    assert min(spent) < CPU_S_PER_S, spent  # what collecting the garbage of other tests costs is not its own
