"""Medians, ratios, verdicts and tables of the benchmark."""

from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from bench import page, tables
from bench.cases import fanout, idle, open_loop, pairs, publish, stalled
from bench.cases.catalogue import CASES, Measured
from bench.figures import FIGURES
from bench.load.closed_loop import FanoutFigures
from bench.report import Results
from bench.roster import PEERS, labels
from bench.targets import TARGETS, Bound, Target, judge

_NAMES = {"tidings": "Tidings, ephemeral", "bun": "Bun"}


@dataclass(frozen=True)
class _Cost:
    cpu_us_per_delivery: float
    load_utilisation: float = 0.5


def _results(**rounds: list[float]) -> Results:
    results = Results({"machine": {"cores": 2}, "rounds": 3})
    for peer, values in rounds.items():
        for value in values:
            results.add(peer, Measured("fanout-1", "One room", _Cost(value)))
    return results


def _target(*must: Bound, aim: tuple[Bound, ...] = (), **more: object) -> Target:
    return Target("cost", "fanout-1", "cpu_us_per_delivery", must, aim, **more)  # type: ignore[arg-type]


def test_ratios_are_taken_round_by_round() -> None:
    # The machine was twice as slow in one round, for both: no ratio shows it.
    results = _results(tidings=[11.0, 20.0, 10.0], bun=[10.0, 20.0, 10.0])
    assert results.value("fanout-1", "cpu_us_per_delivery", "tidings") == 11.0
    assert results.ratio("fanout-1", "cpu_us_per_delivery", "tidings", "bun") == 1.0


def test_a_round_that_failed_leaves_the_ratio_of_medians() -> None:
    results = _results(tidings=[12.0, 12.0], bun=[10.0, 10.0, 40.0])
    assert results.ratio("fanout-1", "cpu_us_per_delivery", "tidings", "bun") == pytest.approx(1.2)
    assert results.ratio("fanout-1", "cpu_us_per_delivery", "tidings", "nobody") is None


def test_results_survive_being_kept(tmp_path: Path) -> None:
    results = _results(tidings=[1.0, 3.0, 2.0], bun=[1.0])
    kept = Results.load(results.save(tmp_path / "kept.json"))
    assert list(kept.cases()) == ["fanout-1"]
    assert kept.titles == {"fanout-1": "One room"}
    assert kept.rounds("fanout-1", "cpu_us_per_delivery", "tidings") == [1.0, 3.0, 2.0]
    assert kept.about["machine"] == {"cores": 2}
    assert kept.about["date"]


@pytest.mark.parametrize(
    ("target", "verdict", "measured"),
    [
        (_target(Bound("≤", 1.15, "bun"), aim=(Bound("≤", 1.0, "bun"),)), "must met", "11 (1.10x Bun)"),
        (_target(Bound("≤", 1.15, "bun"), aim=(Bound("≤", 1.1, "bun"),)), "aim met", "11 (1.10x Bun)"),
        (_target(Bound("≤", 1.05, "bun"), aim=(Bound("≤", 1.1, "bun"),)), "missed", "11 (1.10x Bun)"),
        (_target(Bound("≤", 1.15, "c-loop")), "not measured", "11"),
        (_target(Bound("≤", 1.15, "bun"), aim=(Bound("≤", 9.0, "c-loop"),)), "must met", "11 (1.10x Bun)"),
        (_target(Bound("≤", 12)), "must met", "11"),
        (_target(Bound("=", 11)), "must met", "11"),
        (_target(Bound("≥", 90_000), per_cpu_second=True), "must met", "90,909"),
        (_target(Bound("≥", 100_000), per_cpu_second=True), "missed", "90,909"),
        (_target(Bound("≤", 1), peer="nobody"), "not measured", "-"),
    ],
)
def test_verdicts(target: Target, verdict: str, measured: str) -> None:
    results = _results(tidings=[11.0], bun=[10.0])
    (row,) = judge(results, _NAMES, (target,))
    assert (row.verdict, row.measured) == (verdict, measured)


def test_a_target_may_be_set_beside_another_case() -> None:
    results = _results(tidings=[10.0])
    results.add("tidings", Measured("gateways-4", "Four", _Cost(10.5)))
    of_four = Target("grows", "gateways-4", "cpu_us_per_delivery", (Bound("≤", 1.1, case="fanout-1"),))
    (row,) = judge(results, _NAMES, (of_four,))
    assert (row.verdict, row.measured) == ("must met", "10.5 (1.05x fanout-1)")


_RETURNED = (
    FanoutFigures,
    fanout.GatewayFigures,
    fanout.StreamFigures,
    idle.IdleFigures,
    idle.ReconnectFigures,
    open_loop.LatencyFigures,
    pairs.PairFigures,
    publish.PublishFigures,
    stalled.StalledFigures,
)


def test_every_figure_is_declared_and_every_declared_one_is_returned() -> None:
    assert {field.name for figures in _RETURNED for field in fields(figures)} == set(FIGURES)


def test_targets_and_cases_name_what_there_is() -> None:
    assert {target.figure for target in TARGETS} <= set(FIGURES)
    assert {target.peer for target in TARGETS} <= set(PEERS)
    assert {bound.peer for target in TARGETS for bound in (*target.must, *target.aim)} <= {*PEERS, ""}
    assert {peer for case in CASES.values() for peer in case.peers} == set(PEERS)


def test_a_table_has_a_row_for_each_server_and_a_ratio_to_each_peer() -> None:
    text = tables.case(_results(tidings=[12.0], bun=[10.0]), "fanout-1", labels())
    assert text.splitlines() == [
        "|  | CPU µs per delivery | ephemeral's CPU µs per delivery ÷ its |",
        "|---|---:|---:|",
        "| Tidings, ephemeral | 12 |  |",
        "| Bun | 10 | 1.20 |",
    ]


def test_the_page_is_filled_between_its_marks_and_nowhere_else() -> None:
    results = _results(tidings=[12.0], bun=[10.0])
    text = "before\n<!-- bench: case fanout-1 -->\nold\n<!-- bench: end -->\nafter\n"
    once = page.render(text, results)
    assert "old" not in once
    assert "| Bun | 10 | 1.20 |" in once
    assert once.startswith("before\n")
    assert once.endswith("<!-- bench: end -->\nafter\n")
    assert page.render(once, results) == once


def test_a_page_with_an_unmeasured_table_is_refused() -> None:
    with pytest.raises(ValueError, match="case pairs"):
        page.render("<!-- bench: case pairs -->\n<!-- bench: end -->\n", _results(tidings=[1.0]))
