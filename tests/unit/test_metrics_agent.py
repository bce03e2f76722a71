"""The agent: its measurements and reports."""

import asyncio
from pathlib import Path

import msgspec
import psutil
import pytest

from metrics_svc.agent.__main__ import machine_of
from metrics_svc.agent.machine import (
    Machine,
    NetworkTraffic,
    cgroup_cpu,
    cgroup_memory,
    existing,
    rates,
)
from metrics_svc.agent.reporter import PHASE, MachineReporter
from metrics_svc.aggregation.validation import ReportValidator
from services.lifecycle import CannotStart
from services.settings import Settings
from services.wire.events import MetricsReport
from tests.support.deadline import eventually
from tests.support.metrics import T0, ManualTime, RecordingBus

SUBJECT = "t.metrics.report"
GAUGES = {"cpu": 1.0, "memory": 2.0, "disk": 3.0, "network_in": 4.0, "network_out": 5.0}


def test_this_machine_in_numbers_that_are_taken(tmp_path: Path) -> None:
    gauges = Machine(tmp_path).sample()
    assert set(gauges) == set(GAUGES)
    for name in ("cpu", "memory", "disk"):
        assert 0 <= gauges[name] <= 100
    report = MetricsReport(source="m", kind="agent", boot="b", seq=1, timestamp=T0 * 1000, gauges=gauges)
    assert not ReportValidator().validate(report, T0).rejections


def test_rates() -> None:
    assert rates(NetworkTraffic(100, 10, 1.0), NetworkTraffic(300, 20, 3.0)) == (100.0, 5.0)
    assert rates(NetworkTraffic(100, 10, 1.0), NetworkTraffic(50, 20, 2.0)) == (0.0, 10.0)
    assert rates(NetworkTraffic(100, 10, 1.0), NetworkTraffic(300, 20, 1.0)) == (0.0, 0.0)


def cgroup(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


V1 = {
    "memory/memory.limit_in_bytes": "4000",
    "memory/memory.usage_in_bytes": "2000",
    "memory/memory.stat": "cache 1\ntotal_inactive_file 1000",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (
            {"memory.max": "1000", "memory.current": "500", "memory.stat": "anon 1\ninactive_file 100"},
            40.0,
        ),
        ({"memory.max": "max", "memory.current": "500", "memory.stat": "anon 1"}, None),
        (V1, 25.0),
        ({"memory.max": "100", "memory.current": "500", "memory.stat": "anon 1"}, 100.0),
        (V1 | {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ({"memory.max": "1000"}, None),
    ],
)
def test_container_limits(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    assert cgroup_memory(cgroup(tmp_path, files)) == expected


NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 900 1 0 0 0 0 0 0 900 1 0 0 0 0 0 0
  eth0:{received} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0
  eth1: 10 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0
veth12: 500 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0
  cni0: 500 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0
"""


def test_a_host_is_measured_through_its_own_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proc, limits = tmp_path / "proc", tmp_path / "cgroup"
    counters = proc / "1" / "net" / "dev"
    counters.parent.mkdir(parents=True)
    counters.write_text(NET_DEV.format(received=1000, sent=100))
    (proc / "stat").write_text("cpu  100 0 0 100 0 0 0 0 0 0\n")
    rest = "".join(f"{name}: 0 kB\n" for name in ("Buffers", "Cached", "Shmem", "Active", "Inactive"))
    (proc / "meminfo").write_text(f"MemTotal: 1000 kB\nMemFree: 250 kB\nMemAvailable: 250 kB\n{rest}")
    cgroup(limits, V1)  # the limits of the container are not those of the host
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(proc))
    time = ManualTime()
    host = Machine(tmp_path, time, limits, proc)
    counters.write_text(NET_DEV.format(received=3000, sent=300))
    (proc / "stat").write_text("cpu  175 0 0 125 0 0 0 0 0 0\n")
    time.now += 2.0
    gauges = host.sample()
    assert (gauges["network_in"], gauges["network_out"]) == (1000.0, 100.0)
    assert gauges["memory"] == 75.0
    assert gauges["cpu"] == 75.0


@pytest.mark.parametrize("content", [None, "no\ntable\neth0: 1\n"])
def test_what_is_no_hosts_proc_is_refused_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    monkeypatch.setattr(psutil, "PROCFS_PATH", "/proc")
    if content is not None:
        (tmp_path / "1" / "net").mkdir(parents=True)
        (tmp_path / "1" / "net" / "dev").write_text(content)
    with pytest.raises(CannotStart, match=f"TIDINGS_AGENT_PROC: {tmp_path} is not"):
        machine_of(Settings(agent_proc=tmp_path))


def test_a_folder_that_does_not_exist_yet_is_on_its_parents_disk(tmp_path: Path) -> None:
    assert existing(tmp_path / "a" / "b") == tmp_path


def reporter(bus: RecordingBus, wall: ManualTime | None = None, interval_s: float = 1.0) -> MachineReporter:
    return MachineReporter(
        bus,
        SUBJECT,
        "host",
        "boot",
        lambda: GAUGES,
        interval_s,
        wall or ManualTime(),  # type: ignore[arg-type]
    )


def sent(bus: RecordingBus) -> list[MetricsReport]:
    return [msgspec.json.decode(data, type=MetricsReport) for data in bus.on(SUBJECT)]


def test_reports_name_reporter_and_values() -> None:
    bus = RecordingBus()
    agent = reporter(bus)
    agent.report(GAUGES)
    agent.report(GAUGES)
    first, second = sent(bus)
    assert (first.source, first.kind, first.gauges) == ("host", "agent", GAUGES)
    assert (first.seq, second.seq) == (1, 2)


def test_what_could_not_be_sent_is_counted_once() -> None:
    bus = RecordingBus()
    agent = reporter(bus)
    bus.down = True
    for _ in range(3):
        agent.report(GAUGES)
    bus.down = False
    agent.report(GAUGES)
    agent.report(GAUGES)
    assert [report.counters for report in sent(bus)] == [{"reports_unsent": 3.0}, {}]


@pytest.mark.parametrize(
    ("at", "interval_s", "wait_s"),
    [(0.0, 1, 0.7), (0.69, 1, 0.01), (0.7, 1, 1.0), (0.9, 1, 0.8), (0, 5, 3.5)],
)
def test_reports_late_in_each_interval(at: float, interval_s: float, wait_s: float) -> None:
    assert PHASE == 0.7
    agent = reporter(RecordingBus(), interval_s=interval_s)
    assert agent._until_next(T0 + at) == pytest.approx(wait_s, abs=1e-6)


async def test_reports_by_itself() -> None:
    bus = RecordingBus()
    agent = reporter(bus, interval_s=0.01)
    running = asyncio.ensure_future(agent.run())
    await eventually(lambda: len(bus.published) >= 3, "three reports")
    running.cancel()
    assert agent.sampling


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n", "cpu.stat": "usage_usec 2000000\nuser_usec 1\n"}, 1.5),
        ({"cpu.max": "max 100000\n", "cpu.stat": "usage_usec 2000000\n"}, None),
        (
            {
                "cpu/cpu.cfs_quota_us": "50000\n",
                "cpu/cpu.cfs_period_us": "100000\n",
                "cpuacct/cpuacct.usage": "2000000000\n",
            },
            0.5,
        ),
        (
            {
                "cpu/cpu.cfs_quota_us": "-1\n",
                "cpu/cpu.cfs_period_us": "100000\n",
                "cpuacct/cpuacct.usage": "2000000000\n",
            },
            None,
        ),
        ({}, None),
        ({"cpu.max": "junk", "cpu.stat": "junk"}, None),
    ],
)
def test_the_containers_share_of_cpu(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = cgroup_cpu(tmp_path)
    assert (found and (found.used_s, found.cores)) == (None if cores is None else (2.0, cores))


def test_cpu_is_a_share_of_what_the_container_may_use(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000")
    (tmp_path / "cpu.stat").write_text("usage_usec 1000000\n")
    time = ManualTime()
    sampled = Machine(tmp_path, time, tmp_path)
    (tmp_path / "cpu.stat").write_text("usage_usec 1250000\n")
    time.now += 1
    assert sampled.sample()["cpu"] == pytest.approx(50)
    (tmp_path / "cpu.stat").write_text("usage_usec 9250000\n")
    time.now += 1
    assert sampled.sample()["cpu"] == 100
