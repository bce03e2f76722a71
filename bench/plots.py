"""The pictures of docs/performance.md, as SVG, the same bytes for the same figures."""

from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import Results
from bench.roster import labels

_OURS, _PEERS = "#1a6fb5", "#a9b4bf"
_DEPTHS = (1, 8, 32)
_STYLE = {
    "svg.hashsalt": "tidings",  # ids in the file follow from the picture alone
    "svg.fonttype": "none",  # text stays text
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def write(results: Results, folder: Path) -> list[Path]:
    """Write every plot that has figures; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with mpl.rc_context(_STYLE):
        for name, draw in (
            ("fanout", _fanout),
            ("latency", _latency),
            ("connections", _connections),
            ("gateways", _gateways),
        ):
            figure = draw(results)
            if figure is None:
                continue
            path = folder / f"{name}.svg"
            figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
            plt.close(figure)
            drawn.append(path)
    return drawn


def _bars(axes: Axes, results: Results, case: str, figure: str, title: str, *, names: bool) -> None:
    """Draw one figure of one case: a bar for each server, its rounds as dots, its median as a number."""
    peers = results.peers(case)[::-1]
    values = [results.value(case, figure, peer) or 0.0 for peer in peers]
    colours = [_OURS if peer.startswith("tidings") else _PEERS for peer in peers]
    axes.barh(range(len(peers)), values, color=colours, height=0.7)
    for at, (peer, value) in enumerate(zip(peers, values, strict=True)):
        rounds = results.rounds(case, figure, peer)
        axes.plot(rounds, [at] * len(rounds), "k.", markersize=2.5, alpha=0.6)
        text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        axes.annotate(
            text, (max([value, *rounds]), at), (4, 0), textcoords="offset points", va="center", size=8
        )
    axes.set_yticks(
        range(len(peers)), [labels().get(peer, peer) for peer in peers] if names else [""] * len(peers)
    )
    axes.set_title(title, size=9, loc="left")
    axes.margins(x=0.2)
    if axes.get_xscale() == "linear":
        axes.set_xlim(left=0)


def _side_by_side(results: Results, of: list[tuple[str, str, str]], *, log: bool = False) -> Figure | None:
    """Draw figures of cases beside each other: (case, figure, title) each."""
    of = [each for each in of if results.peers(each[0])]
    if not of:
        return None
    same = (
        len({case for case, _, _ in of}) == 1 or len({tuple(results.peers(case)) for case, _, _ in of}) == 1
    )
    rows = max(len(results.peers(case)) for case, _, _ in of)
    figure, all_axes = plt.subplots(1, len(of), figsize=(10, 0.32 * rows + 0.7), squeeze=False)
    for at, (axes, (case, name, title)) in enumerate(zip(all_axes[0], of, strict=True)):
        if log:
            axes.set_xscale("log")
        _bars(axes, results, case, name, title, names=at == 0 or not same)
        if log:
            least = min(results.value(case, name, peer) or 1.0 for peer in results.peers(case))
            axes.set_xlim(left=least / 2)
    figure.tight_layout()
    return figure


def _fanout(results: Results) -> Figure | None:
    return _side_by_side(
        results,
        [
            (f"fanout-{n}", "cpu_us_per_delivery", f"{n} outstanding: CPU µs per delivery, log")
            for n in _DEPTHS
        ],
        log=True,
    )


def _latency(results: Results) -> Figure | None:
    return _side_by_side(
        results,
        [
            ("open", f"{p}_ms", f"{text}, ms, log")
            for p, text in (("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"))
        ],
        log=True,
    )


def _connections(results: Results) -> Figure | None:
    return _side_by_side(
        results,
        [
            ("idle", "kib_per_connection", "KiB per idle connection"),
            ("idle", "cpu_us_per_connect", "CPU µs to connect and join"),
            ("reconnect", "cpu_us_per_reconnect", "CPU µs to reconnect"),
        ],
    )


def _gateways(results: Results) -> Figure | None:
    counts = [n for n in (1, 2, 4) if results.peers(f"gateways-{n}")]
    if not counts:
        return None
    figure, (cost, bus) = plt.subplots(1, 2, figsize=(10, 2.4))
    for peer, style in (("tidings", "o-"), ("tidings-durable", "s--")):
        for axes, name in ((cost, "cpu_us_per_delivery"), (bus, "bus_messages")):
            values = [results.value(f"gateways-{n}", name, peer) or 0.0 for n in counts]
            axes.plot(counts, values, style, label=labels()[peer], markersize=4)
    for axes, title in ((cost, "CPU µs per delivery"), (bus, "bus messages to gateways, per message")):
        axes.set_title(title, size=9, loc="left")
        axes.set_xticks(counts, [f"{n} gateway{'s' if n > 1 else ''}" for n in counts])
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    cost.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure
