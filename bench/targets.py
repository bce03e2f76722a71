"""Required and desired targets, and their verdicts. Pure: results in, verdicts out."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bench.figures import FIGURES
from bench.report import Results

Verdict = Literal["aim met", "must met", "missed", "not measured"]

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "≤": operator.le,
    "≥": operator.ge,
    "=": operator.eq,
}


@dataclass(frozen=True)
class Bound:
    """A limit: absolute, or times a figure of another peer or of another case."""

    sign: str
    limit: float
    peer: str = ""
    case: str = ""


@dataclass(frozen=True)
class Target:
    """One row of the table. With `per_cpu_second` the value is per second of the server's CPU."""

    what: str
    case: str
    figure: str
    must: tuple[Bound, ...]
    aim: tuple[Bound, ...] = ()
    peer: str = "tidings"
    per_cpu_second: bool = False


@dataclass(frozen=True)
class Row:
    """A target and its measured value."""

    what: str
    must: str
    aim: str
    measured: str
    verdict: Verdict


def judge(results: Results, labels: dict[str, str], targets: "tuple[Target, ...] | None" = None) -> list[Row]:
    """Return a row for every target."""
    return [_row(target, results, labels) for target in (TARGETS if targets is None else targets)]


def _row(target: Target, results: Results, labels: dict[str, str]) -> Row:
    musts = [_holds(bound, target, results) for bound in target.must]
    aims = [_holds(bound, target, results) for bound in target.aim]
    verdict: Verdict = "must met"
    if False in musts:
        verdict = "missed"
    elif None in musts:
        verdict = "not measured"
    elif aims and all(aims):
        verdict = "aim met"
    return Row(
        what=target.what,
        must=_spell(target.must, labels),
        aim=_spell(target.aim, labels),
        measured=_measured(target, results, labels),
        verdict=verdict,
    )


def _holds(bound: Bound, target: Target, results: Results) -> bool | None:
    """Return whether a bound is kept; None where a figure is missing."""
    if bound.peer or bound.case:
        ratio = _ratio(bound, target, results)
        return None if ratio is None else _COMPARE[bound.sign](ratio, bound.limit)
    value = _value(target, results)
    return None if value is None else _COMPARE[bound.sign](value, bound.limit)


def _ratio(bound: Bound, target: Target, results: Results) -> float | None:
    return results.ratio(target.case, target.figure, target.peer, bound.peer or target.peer, bound.case)


def _value(target: Target, results: Results) -> float | None:
    value = results.value(target.case, target.figure, target.peer)
    return 1e6 / value if value and target.per_cpu_second else value


def _measured(target: Target, results: Results, labels: dict[str, str]) -> str:
    value = _value(target, results)
    if value is None:
        return "-"
    ratios = []
    for bound in dict.fromkeys(
        (bound.peer, bound.case) for bound in (*target.must, *target.aim) if bound.peer or bound.case
    ):
        ratio = _ratio(Bound("≤", 0, *bound), target, results)
        if ratio is not None:
            ratios.append(f"{ratio:.2f}x {_name(*bound, labels)}")
    text = f"{value:,.0f}" if target.per_cpu_second else FIGURES[target.figure].text(value)
    return f"{text} ({', '.join(ratios)})" if ratios else text


def _spell(bounds: tuple[Bound, ...], labels: dict[str, str]) -> str:
    texts = []
    for bound in bounds:
        number = f"{bound.limit:,.0f}" if bound.limit >= 1000 and bound.sign != "=" else f"{bound.limit:g}"
        name = f"x {_name(bound.peer, bound.case, labels)}" if bound.peer or bound.case else ""
        texts.append(f"{bound.sign} {number}{name}")
    return ", ".join(texts)


def _name(peer: str, case: str, labels: dict[str, str]) -> str:
    if not peer:
        return "1 gateway" if case == "gateways-1" else case
    return labels.get(peer, peer)


def _at_most(limit: float, peer: str = "", case: str = "") -> Bound:
    return Bound("≤", limit, peer, case)


def _at_least(limit: float, peer: str = "") -> Bound:
    return Bound("≥", limit, peer)


_AS_BUN = (_at_most(1.0, "bun"), _at_most(1.25, "c-loop"))
_KINDS = (("tidings", "ephemeral"), ("tidings-durable", "durable"))

TARGETS: tuple[Target, ...] = (
    *(
        Target(
            f"Room of 1,000, {kind}, {depth} outstanding: CPU µs per delivery",
            f"fanout-{depth}",
            "cpu_us_per_delivery",
            must=(_at_most(limit, "bun"),),
            aim=_AS_BUN,
            peer=peer,
        )
        for (peer, kind), limit in zip(_KINDS, (1.15, 1.3), strict=True)
        for depth in (1, 8, 32)
    ),
    *(
        Target(
            f"500 rooms of 2, {kind}: messages/s",
            "pairs",
            "messages_per_s",
            must=(_at_least(2.0, "socketio"),),
            aim=(_at_least(1.0, "bun-redis"),),
            peer=peer,
        )
        for peer, kind in _KINDS
    ),
    *(
        Target(
            f"500 rooms of 2, {kind}: CPU µs per message",
            "pairs",
            "cpu_us_per_message",
            must=(_at_most(0.5, "socketio"),),
            aim=(_at_most(1.0, "bun-redis"),),
            peer=peer,
        )
        for peer, kind in _KINDS
    ),
    *(
        Target(
            f"50,000 deliveries/s, {kind}: p99 ms",
            "open",
            "p99_ms",
            must=(_at_most(1.5, "bun"),),
            aim=(_at_most(1.0, "bun"),),
            peer=peer,
        )
        for peer, kind in _KINDS
    ),
    Target(
        "Acknowledged durable publishes/s, by the clock",
        "publish",
        "acks_per_s",
        must=(_at_least(8000),),
        aim=(_at_least(15_000),),
        peer="tidings-durable",
    ),
    Target(
        "Acknowledged durable publishes in a second of the gateway's CPU",
        "publish",
        "cpu_us_per_ack",
        must=(_at_least(8000),),
        aim=(_at_least(15_000),),
        peer="tidings-durable",
        per_cpu_second=True,
    ),
    Target(
        "Memory per idle connection, KiB",
        "idle",
        "kib_per_connection",
        must=(_at_most(8),),
        aim=(_at_most(4.5),),
    ),
    Target(
        "Connect, welcome, join: connections/s, by the clock",
        "idle",
        "connects_per_s",
        must=(_at_least(3000),),
        aim=(_at_least(12_000),),
    ),
    Target(
        "Connect, welcome, join in a second of the gateway's CPU",
        "idle",
        "cpu_us_per_connect",
        must=(_at_least(3000),),
        aim=(_at_least(12_000),),
        per_cpu_second=True,
    ),
    Target(
        "Stalled reader: the others' p99, times that before", "stalled", "p99_ratio", must=(_at_most(1.2),)
    ),
    Target("Stalled reader: gateway's memory grown, MB", "stalled", "memory_growth_mb", must=(_at_most(2),)),
    Target("Stalled reader: closed with code", "stalled", "close_code", must=(Bound("=", 4000),)),
    *(
        Target(
            f"{gateways} gateways, {kind}: CPU µs per delivery",
            f"gateways-{gateways}",
            "cpu_us_per_delivery",
            must=(_at_most(1.1, case="gateways-1"),),
            aim=(_at_most(1.0, case="gateways-1"),),
            peer=peer,
        )
        for peer, kind in _KINDS
        for gateways in (2, 4)
    ),
    # One message to each gateway.
    *(
        Target(
            f"{gateways} gateway{'s' if gateways > 1 else ''}, {kind}: bus messages to gateways, per message",
            f"gateways-{gateways}",
            "bus_messages",
            must=(_at_most(gateways),),
            peer=peer,
        )
        for peer, kind in _KINDS
        for gateways in (1, 2, 4)
    ),
    *(
        Target(f"{what}, {kind}: lost", case, "lost", must=(Bound("=", 0),), peer=peer)
        for case, what in (("open", "50,000 deliveries/s"), ("fanout-32", "Room of 1,000, 32 outstanding"))
        for peer, kind in _KINDS
    ),
    Target(
        "All 10,000 come back, durable: not recovered",
        "reconnect",
        "not_recovered",
        must=(Bound("=", 0),),
        peer="tidings-durable",
    ),
)
