"""The newest log lines, on every store of metrics; and an unreachable store."""

import pytest

from metrics_svc import store as limits
from metrics_svc.store import MetricsStore, MetricsStoreUnavailable
from metrics_svc.store_redis import RedisMetricsStore
from services.redis_client import open_redis
from services.settings import Settings
from services.wire.records import LogEntry


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
    store = RedisMetricsStore(open_redis(Settings(redis_url="redis://127.0.0.1:1/0"), "metrics"), "nowhere")
    with pytest.raises(MetricsStoreUnavailable):
        await store.acquire("a", 1000)
    with pytest.raises(MetricsStoreUnavailable):
        await store.newest("", 1)
    with pytest.raises(MetricsStoreUnavailable):
        await store.active()
    await store.close()
