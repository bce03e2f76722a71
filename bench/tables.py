"""Figures as Markdown, for the command's output and the page."""

import dataclasses
from collections.abc import Iterable, Sequence

from bench.figures import FIGURES
from bench.report import Results
from bench.targets import Row

_OURS = ("tidings", "tidings-durable")

# Figures of the machine's use, not of a server's quality.
_CIRCUMSTANCES = ("server_utilisation", "load_utilisation")

# Figures with a ratio in a case's table, if there are peers.
_COMPARED = (
    "cpu_us_per_delivery",
    "cpu_us_per_message",
    "cpu_us_per_ack",
    "cpu_us_per_connect",
    "cpu_us_per_reconnect",
    "p99_ms",
)


def line(figures: object) -> str:
    """Return one run's figures in one line."""
    return ", ".join(
        f"{FIGURES[field.name].text(getattr(figures, field.name))} {FIGURES[field.name].label}"
        for field in dataclasses.fields(figures)  # type: ignore[arg-type]  # cases return dataclasses
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table whose first column is text and whose others are numbers."""
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def case(results: Results, key: str, labels: dict[str, str]) -> str:
    """Return one case: a row for each server, its medians, and its ratio to ours."""
    figures = [name for name in results.figures(key) if name not in _CIRCUMSTANCES]
    compared = next((name for name in _COMPARED if name in figures), "")
    peers = results.peers(key)
    ours = [name for name in _OURS if name in peers] if compared and set(peers) - set(_OURS) else []
    what = FIGURES[compared].label if compared else ""
    head = [
        "",
        *(FIGURES[name].label for name in figures),
        *(f"{labels[name].removeprefix('Tidings, ')}'s {what} ÷ its" for name in ours),
    ]
    rows = []
    for peer in peers:
        cells = [_cell(results, key, name, peer) for name in figures]
        for our in ours:
            ratio = None if peer in _OURS else results.ratio(key, compared, our, peer)
            cells.append("" if ratio is None else f"{ratio:.2f}")
        rows.append([labels.get(peer, peer), *cells])
    return table(head, rows)


def _cell(results: Results, key: str, figure: str, peer: str) -> str:
    value = results.value(key, figure, peer)
    return "-" if value is None else FIGURES[figure].text(value)


def results(results: Results, labels: dict[str, str]) -> str:
    """Return all cases, each under its title."""
    return "\n".join(f"**{results.titles[key]}**\n\n{case(results, key, labels)}" for key in results.cases())


def targets(rows: Iterable[Row]) -> str:
    """Return the table of targets and measured values."""
    head = ("", "must", "aim", "measured", "verdict")
    return table(head, [(row.what, row.must, row.aim, row.measured, row.verdict) for row in rows])


# Figures for planning a deployment: label, case and figure.
_CAPACITY = (
    ("memory of an idle WebSocket in a room, KiB", "idle", "kib_per_connection"),
    ("memory of an SSE stream, KiB", "sse", "kib_per_connection"),
    ("CPU to connect and join, µs", "idle", "cpu_us_per_connect"),
    ("CPU to reconnect, µs", "reconnect", "cpu_us_per_reconnect"),
    ("NATS, Redis, presence and metrics services for one connect, µs", "idle", "broker_us_per_connect"),
    ("CPU to publish and acknowledge, µs", "publish", "cpu_us_per_ack"),
    ("NATS for it, µs", "publish", "broker_us_per_ack"),
    ("CPU of a message to one other member, µs", "pairs", "cpu_us_per_message"),
    ("CPU of a delivery, messages one by one, µs", "fanout-1", "cpu_us_per_delivery"),
    ("CPU of a delivery, 8 outstanding, µs", "fanout-8", "cpu_us_per_delivery"),
    ("CPU of a delivery, 32 outstanding, µs", "fanout-32", "cpu_us_per_delivery"),
    ("CPU of a delivery of a compressed 4 KB, µs", "compressed", "cpu_us_per_delivery"),
    ("CPU of a delivery to an SSE stream, 8 outstanding, µs", "sse", "cpu_us_per_delivery"),
)


def capacity(results: Results) -> str:
    """Return the gateway's cost of a connection, a message and a delivery."""
    rows = [[what, *(_cell(results, key, figure, peer) for peer in _OURS)] for what, key, figure in _CAPACITY]
    return table(["", "ephemeral", "durable"], rows)


def circumstances(results: Results) -> str:
    """Return a description of the machine and of its other load."""
    about = results.about
    machine, options = about.get("machine", {}), about.get("options", {})
    disturbed = about.get("contention", {})
    busiest = max(
        (value for key in results.cases() for peer in results.peers(key)
         for value in results.rounds(key, "load_utilisation", peer)),
        default=0.0,
    )  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items())
    lines = [
        f"{machine.get('cores')} cores of {machine.get('cpu')}, {machine.get('memory_gib')} GiB, Linux "
        f"{machine.get('kernel')}, Python {machine.get('python')}; {about.get('date', 'today')[:10]}.",
        f"The server on core {_cores(machine.get('server_cores', []))}, load and brokers on core "
        f"{_cores(machine.get('load_cores', []))}; nice value {options.get('priority', 0)}.",
        f"{about.get('rounds')} of {options.get('rounds')} rounds, {options.get('seconds')} s for each figure, "
        f"{about.get('minutes')} minutes in all.",
        f"Other programs used {disturbed.get('others_share_of_cpu_median', 0):.0%} of the machine in the median step "
        f"and {disturbed.get('others_share_of_cpu_most', 0):.0%} in the worst; load average "
        f"{disturbed.get('load_average_median')} (at most {disturbed.get('load_average_most')}), of which the "
        f"measurement itself is about 2.",
        f"The load used at most {busiest:.0%} of its core.",
        f"Versions: {versions}.",
    ]
    for name, why in about.get("absent", {}).items():
        lines.append(f"Not measured: {name}: {why}.")
    for failure in about.get("failed", []):
        lines.append(f"Failed: {failure}.")
    return "".join(f"- {line}\n" for line in lines)


def _cores(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
