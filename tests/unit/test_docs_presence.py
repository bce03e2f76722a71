"""The figures on the page about presence are those that were measured last."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs" / "presence.md").read_text(encoding="utf-8").split())


def measured(case: str) -> dict[str, Any]:
    newest = max((ROOT / "bench" / "results").glob(f"*-{case}.json"))
    figures: dict[str, Any] = json.loads(newest.read_text(encoding="utf-8"))["figures"]
    return figures


def percent(share: float, digits: int = 0) -> str:
    return f"{share * 100:.{digits}f} %"


def test_what_heartbeats_cost() -> None:
    figures = measured("presence_heartbeat")
    for row in figures["rows"]:
        label = f"{row['users']:,}" + (
            ", of whom 5 % do something every 3 s" if "active_share" in row else ""
        )
        cpu = [percent(row[f"{name}_cpu_of_one_core"], 1) for name in ("presence_svc", "redis")]
        cells = [
            label,
            f"{row['bus_messages_in_per_s']:.1f}",
            f"{row['bus_bytes_in_per_s']:,.0f}",
            f"{row['redis_commands_per_s']:.0f}",
            *cpu,
        ]
        assert f"| {' | '.join(cells)} |" in PAGE
    assert f"{figures['redis_bytes_per_user']} bytes for a user" in PAGE


def test_what_joins_cost() -> None:
    figures = measured("presence_joins")
    for row in figures["paced"]:
        took, cpu = row["batch_answered_in_ms"], row["cpu_of_one_core"]
        cells = [
            f"{row['joins_per_s_asked']:,}",
            f"{took['p50']:.1f} ms, {took['p99']:.1f} ms",
            percent(cpu["presence_svc"]),
            percent(cpu["redis"]),
        ]
        assert f"| {' | '.join(cells)} |" in PAGE
        assert row["joins_per_s"] >= 0.98 * row["joins_per_s_asked"]
    burst = figures["burst"]
    cells = [percent(burst["cpu_of_one_core"][name]) for name in ("presence_svc", "redis")]
    assert f"as fast as they are taken: {burst['joins_per_s']:,} | | {' | '.join(cells)} |" in PAGE


def test_how_long_pages_take() -> None:
    figures = measured("presence_pages")
    everyone, room, lookup = (
        figures[name]["ms_median_of_rounds"]
        for name in ("page_of_everyone", "page_of_a_room_of_1000", "lookup_of_1000")
    )
    assert f"{everyone['p99']:.1f} ms in 99 of 100 cases from everyone's list" in PAGE
    assert f"(median {everyone['p50']:.1f} ms)" in PAGE
    assert f"{room['p99']:.1f} ms from a room of 1,000, {lookup['p99']:.1f} ms for 1,000 users" in PAGE
    assert max(everyone["p99"], room["p99"], lookup["p99"]) < 20


def test_how_soon_it_is_right_again() -> None:
    figures = measured("presence_convergence")
    killed, lost, ended = (
        figures[name] for name in ("one_gateway_killed", "redis_lost_its_data", "all_gateways_killed")
    )
    for label, seconds in (
        ("until they are taken", killed["reconnections_taken_after_s"]),
        ("until its connections are gone", killed["connections_gone_after_s"]),
        ("who did not come back are offline", killed["others_offline_after_s"]),
        ("until all connections are gone", ended["connections_gone_after_s"]),
        ("until all users are offline", ended["all_offline_after_s"]),
        ("from its return", lost["all_online_again_after_s"]),
    ):
        assert f"{label} | {seconds:.1f} |" in PAGE
    assert killed["connections_gone_after_s"] <= 10
    assert killed["others_offline_after_s"] <= 10 + figures["grace_s"]
    assert lost["all_online_again_after_s"] <= 5
