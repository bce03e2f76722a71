"""Notifications beside the documented behaviour of Alertmanager: one row a behaviour.

https://prometheus.io/docs/alerting/latest/configuration/ (route, inhibition, silences). Intervals here: group_wait 30 s,
group_interval 5 min, repeat_interval 1 h.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from metrics_svc.notify.decision import NotifyTimings
from tests.support.notifying import NotifyRig

Script = Callable[[NotifyRig], Awaitable[None]]


async def _first(at: NotifyRig) -> None:
    await at.fire()
    await at.run(29)
    assert at.said == []
    await at.run(2)


async def _ends_within_group_wait(at: NotifyRig) -> None:
    await at.fire()
    await at.run(20)
    await at.end()
    await at.run(1000, 10)


async def _together(at: NotifyRig) -> None:
    await at.fire("cpu-a-alert")
    await at.run(20)
    await at.fire("cpu-b-alert")
    await at.run(20)


async def _joins_later(at: NotifyRig) -> None:
    await _first(at)
    await at.fire("cpu-b-alert")
    await at.run(280)
    assert len(at.said) == 1
    await at.run(60)


async def _resolved_inside_the_interval(at: NotifyRig) -> None:
    await _first(at)
    await at.end()
    await at.run(200)
    assert len(at.said) == 1
    await at.run(200)


async def _one_of_two_ends(at: NotifyRig) -> None:
    await _together(at)
    await at.run(400, 10)
    await at.end("cpu-a-alert")
    await at.run(10)


async def _refires_inside_the_interval(at: NotifyRig) -> None:
    await _first(at)
    await at.run(10)
    await at.end()
    await at.run(60)
    await at.fire()
    await at.run(1000, 10)


async def _repeats(at: NotifyRig) -> None:
    await _first(at)
    await at.run(3590, 10)
    assert len(at.said) == 1
    await at.run(30)


async def _acknowledged_is_not_repeated(at: NotifyRig) -> None:
    await _first(at)
    await at.acknowledge()
    await at.run(9000, 30)
    await at.end()
    await at.run(1)


async def _silenced(at: NotifyRig) -> None:
    await at.silence(10_000, metric="cpu")
    await at.fire()
    await at.run(9000, 30)


async def _silence_ends(at: NotifyRig) -> None:
    await at.silence(600, metric="cpu")
    await at.fire()
    await at.run(700, 10)


async def _silenced_after_its_notification(at: NotifyRig) -> None:
    await _first(at)
    await at.silence(7200, metric="cpu")
    await at.run(7000, 30)
    assert len(at.said) == 1
    await at.end()
    await at.run(300, 10)


async def _critical_mutes_warning(at: NotifyRig) -> None:
    await at.fire("cpu-alert", "critical")
    await at.fire("cpu-web-alert", "warning", source="web")
    await at.run(1000, 10)


async def _host_down_mutes_its_others(at: NotifyRig) -> None:
    await at.fire("up-web-alert", "critical", source="web")
    await at.fire("disk-web-alert", "critical", source="web")
    await at.fire("disk-db-alert", "critical", source="db")
    await at.run(31)


async def _escalates(at: NotifyRig) -> None:
    await _first(at)
    await at.run(10)
    await at.fire("cpu-alert", "critical")
    await at.run(1)


async def _calms(at: NotifyRig) -> None:
    await at.fire("cpu-alert", "critical")
    await at.run(31)
    await at.fire("cpu-alert", "warning")
    await at.run(200)
    assert len(at.said) == 1
    await at.run(120)


async def _groups_are_apart(at: NotifyRig) -> None:
    await at.fire("cpu-alert")
    await at.fire("memory-alert")
    await at.run(31)


async def _after_an_end_a_new_group(at: NotifyRig) -> None:
    await _first(at)
    await at.run(400, 10)
    await at.end()
    await at.run(10)
    await at.run(20)
    await at.fire()
    await at.run(25)
    assert len(at.said) == 2
    await at.run(10)


async def _flaps(at: NotifyRig) -> None:
    """Fires 25 s of every 30 s, for ten minutes."""
    for _ in range(20):
        await at.fire("cpu-alert", "critical")
        await at.run(25)
        await at.end()
        await at.run(5)


async def _flaps_in_a_notified_group(at: NotifyRig) -> None:
    await at.fire("cpu-a-alert")
    await at.run(31)
    for _ in range(20):
        await at.fire("cpu-b-alert")
        await at.run(25)
        await at.end("cpu-b-alert")
        await at.run(5)


async def _comes_back_long_after(at: NotifyRig) -> None:
    await at.fire()
    await at.run(20)
    await at.end()
    await at.run(400, 10)
    await at.fire()
    await at.run(29)
    assert at.said == []
    await at.run(2)


@dataclass(frozen=True)
class Row:
    """One behaviour: events, and the expected messages in order; in any order for separate groups."""

    behaviour: str
    script: Script
    said: list[str]
    in_order: bool = True


TABLE = [
    Row("the first message waits for group_wait", _first, ["firing cpu-alert|warning"]),
    Row("what ends within group_wait is never told", _ends_within_group_wait, []),
    Row("alerts that come within group_wait share a message", _together, ["firing cpu-a-alert|warning cpu-b-alert|warning"]),
    Row(
        "an alert that joins a told group waits for group_interval",
        _joins_later,
        ["firing cpu-alert|warning", "firing cpu-alert|warning cpu-b-alert|warning"],
    ),
    Row(
        "an end inside group_interval is not lost: it is told with its end",
        _resolved_inside_the_interval,
        ["firing cpu-alert|warning", "resolved -cpu-alert"],
    ),
    Row(
        "when some end, the message names those that still fire",
        _one_of_two_ends,
        ["firing cpu-a-alert|warning cpu-b-alert|warning", "firing cpu-b-alert|warning -cpu-a-alert"],
    ),
    Row("an alert that fires again inside group_interval is no news", _refires_inside_the_interval, ["firing cpu-alert|warning"]),
    Row(
        "what still fires is repeated after repeat_interval",
        _repeats,
        ["firing cpu-alert|warning", "firing cpu-alert|warning"],
    ),
    Row(
        "an acknowledged alert is not repeated, its end is sent",
        _acknowledged_is_not_repeated,
        ["firing cpu-alert|warning", "resolved -cpu-alert"],
    ),
    Row("a silenced alert is not sent", _silenced, []),
    Row("an alert that outlives its silence is sent", _silence_ends, ["firing cpu-alert|warning"]),
    Row(
        "an end under a silence is sent when the silence has ended",
        _silenced_after_its_notification,
        ["firing cpu-alert|warning", "resolved -cpu-alert"],
    ),
    Row("critical mutes warnings about the same", _critical_mutes_warning, ["firing cpu-alert|critical"]),
    Row(
        "a host that is down mutes what else is wrong with it",
        _host_down_mutes_its_others,
        ["firing up-web-alert|critical", "firing disk-db-alert|critical"],
        in_order=False,
    ),
    Row(
        "an alert that turns critical does not wait",
        _escalates,
        ["firing cpu-alert|warning", "firing cpu-alert|critical"],
    ),
    Row(
        "one that calms down does",
        _calms,
        ["firing cpu-alert|critical", "firing cpu-alert|warning"],
    ),
    Row("groups are separate", _groups_are_apart, ["firing cpu-alert|warning", "firing memory-alert|warning"], in_order=False),
    Row(
        "a flapping alert is sent after group_wait, then as often as group_interval allows",
        _flaps,
        ["firing cpu-alert|critical", "resolved -cpu-alert", "firing cpu-alert|critical"],
    ),
    Row(
        "so is one that joins a group the receiver knows",
        _flaps_in_a_notified_group,
        ["firing cpu-a-alert|warning", "firing cpu-a-alert|warning cpu-b-alert|warning"],
    ),
    Row("one that comes back after group_interval waits again", _comes_back_long_after, ["firing cpu-alert|warning"]),
    Row(
        "after its end the same alert begins a new group",
        _after_an_end_a_new_group,
        ["firing cpu-alert|warning", "resolved -cpu-alert", "firing cpu-alert|warning"],
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.behaviour)
async def test_behaviour(row: Row) -> None:
    rig = NotifyRig()
    await rig.lead()
    await row.script(rig)
    if row.in_order:
        assert rig.said == row.said
    else:
        assert sorted(rig.said) == sorted(row.said)


@pytest.mark.parametrize(
    ("group_by", "messages"),
    [((), 1), (("metric",), 2), (("alertname",), 2), (("source",), 2), (("...",), 4), (("team",), 2)],
)
async def test_grouping(group_by: tuple[str, ...], messages: int) -> None:
    rig = NotifyRig(NotifyTimings(group_by, 0, 300, 3600))
    await rig.lead()
    for id, source, team in (
        ("cpu-web-alert", "web", "red"), ("cpu-db-alert", "db", "blue"),
        ("disk-web-alert", "web", "red"), ("disk-db-alert", "db", "blue"),
    ):  # fmt: skip
        await rig.fire(id, source=source, team=team)
    await rig.run(2)
    assert len(rig.said) == messages
