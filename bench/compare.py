"""The comparison: Tidings and its peers in turn, round after round (`python -m bench`, `make bench`)."""

import argparse
import os
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bench import page, tables
from bench.cases.catalogue import CASES, Case, Sizes
from bench.contention import Contention
from bench.launch import Peer, Setup, running
from bench.load.clients import LoadError
from bench.machine import LOAD_CORES, allow_connections, describe, prioritise
from bench.report import RESULTS, Results
from bench.roster import PEERS, labels, peer_versions
from bench.targets import judge

_BUSY_LOAD = 0.9

_ABOUT = """\
Measures this machine: Tidings with all its services, and its peers, each on one core; the load, NATS and Redis on the
others. Peers take turns, round after round. A whole run takes about 25 minutes, one with --quick about four.
"""

_CASES = "\n".join(f"  {case.name:<12} {case.about}" for case in CASES.values())
_PEERS = "\n".join(f"  {peer.name:<16} {peer.label}" for peer in PEERS.values())

_QUICK = Sizes(seconds=0.5, members=200, connections=1000, streams=200)


@dataclass(frozen=True)
class Step:
    """One server started for one case."""

    number: int
    case: Case
    setup: Setup
    peer: Peer


def _options(arguments: list[str], more_help: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=_ABOUT,
        epilog=f"cases:\n{_CASES}\n\npeers:\n{_PEERS}\n\n{more_help}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", default=",".join(CASES), metavar="A,B", help="only these cases")
    parser.add_argument("--peers", default=",".join(PEERS), metavar="A,B", help="only these servers")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one short round with few clients: does it run?")
    for field in fields(Sizes):
        help_text = f"default: {field.default}; with --quick {getattr(_QUICK, field.name)}"
        kind = float if field.name == "seconds" else int
        parser.add_argument(f"--{field.name}", type=kind, metavar="N", help=help_text)
    parser.add_argument(
        "--gateways",
        default="1,2,4",
        metavar="A,B",
        help="how many the case of that name starts (%(default)s)",
    )
    parser.add_argument(
        "--priority", type=int, default=0, metavar="N", help="nice value of everything measured, -20 to 19"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the figures go, as JSON")
    parser.add_argument("--page", action="store_true", help="also rewrite docs/performance.md and its plots")
    options = parser.parse_args(arguments)
    for what, known in (("cases", CASES), ("peers", PEERS)):
        chosen = getattr(options, what).split(",")
        if unknown := [name for name in chosen if name not in known]:
            parser.error(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")
        setattr(options, what, chosen)
    counts = [str(setup.gateways) for setup in CASES["gateways"].setups]
    options.gateways = options.gateways.split(",")
    if unknown := [count for count in options.gateways if count not in counts]:
        parser.error(f"--gateways knows {', '.join(counts)}, and not {', '.join(unknown)}")
    if options.quick:
        options.rounds = 1
    base = _QUICK if options.quick else Sizes()
    given = {field.name: getattr(options, field.name) for field in fields(Sizes)}
    options.sizes = Sizes(**{**asdict(base), **{name: n for name, n in given.items() if n is not None}})
    if min(*asdict(options.sizes).values(), options.rounds) <= 0:
        parser.error("sizes and rounds have to be positive")
    whole = set(options.cases) == set(CASES) and set(options.peers) == set(PEERS)
    sizes = Sizes(seconds=options.sizes.seconds)
    options.whole = whole and options.gateways == counts and options.sizes == sizes and not options.quick
    if options.page and not options.whole:
        parser.error(
            "--page takes a whole run: all cases, all peers, as many clients as there are by default"
        )
    return options


def _steps(options: argparse.Namespace, absent: dict[str, str]) -> list[Step]:
    """Return the steps of one round: case by case, peers in turn."""
    cases = [CASES[name] for name in options.cases]
    chosen = [
        (case, setup, PEERS[name])
        for case in cases
        for setup in case.setups
        if len(case.setups) == 1 or str(setup.gateways) in options.gateways
        for name in case.peers
        if name in options.peers and name not in absent
    ]
    return [Step(number, *step) for number, step in enumerate(chosen, 1)]


def _measure(step: Step, sizes: Sizes, results: Results, prefix: str) -> None:
    with running(step.peer, step.setup) as server:
        for measured in step.case.run(step.peer, server, step.setup, sizes):
            results.add(step.peer.name, measured)
            print(
                f"{prefix} {measured.title}: {step.peer.label}: {tables.line(measured.figures)}", flush=True
            )
            load = getattr(measured.figures, "load_utilisation", 0.0)
            if load > _BUSY_LOAD:
                print(f"  ! the load used {load:.0%} of its core: it may be what was measured", flush=True)


def run(options: argparse.Namespace, results: Results, save_to: Path | None) -> int:
    """Run all rounds, saving after each; return the number of failed steps."""
    absent = {name: why for name in options.peers if (why := PEERS[name].missing())}
    for name, why in absent.items():
        print(f"skipped: {PEERS[name].label}: {why}")
    results.about["absent"] = absent
    failed: list[str] = []
    results.about["failed"] = failed
    contention = Contention()
    began = time.monotonic()
    steps = _steps(options, absent)
    total = len(steps) * options.rounds
    for number in range(1, options.rounds + 1):
        for step in steps:
            done = (number - 1) * len(steps) + step.number - 1
            left = f", {(time.monotonic() - began) / done * (total - done) / 60:.0f} min left" if done else ""
            prefix = f"[{done + 1}/{total}{left}]"
            contention.begin()
            try:
                _measure(step, options.sizes, results, prefix)
            except (LoadError, OSError, RuntimeError) as fault:
                failed.append(f"round {number}, {step.case.name}, {step.peer.name}: {fault}")
                print(f"{prefix} {step.case.name}: {step.peer.label}: failed: {fault}", flush=True)
            contention.end()
        results.about["contention"] = contention.summary()
        results.about["rounds"] = number
        results.about["minutes"] = round((time.monotonic() - began) / 60, 1)
        results.save(save_to)
    return len(failed)


def main(arguments: list[str], more_help: str = "") -> int:
    """Run, print, save; return 1 if a step failed."""
    options = _options(arguments, more_help)
    try:
        allow_connections(max(options.sizes.connections, 4 * options.sizes.members, options.sizes.streams))
        if options.priority:
            prioritise(os.getpid(), options.priority)
    except PermissionError as fault:
        print(f"this user may not set --priority {options.priority}: {fault}", file=sys.stderr)
        return 1
    except OSError as fault:
        print(f"{fault}: allow more, or measure fewer with --connections", file=sys.stderr)
        return 1
    os.sched_setaffinity(0, LOAD_CORES)
    about: dict[str, Any] = {
        "machine": describe(),
        "versions": peer_versions(),
        "options": {**asdict(options.sizes), "rounds": options.rounds, "priority": options.priority},
    }
    results = Results(about)
    save_to = options.output or (None if options.whole else RESULTS / "last-partial.json")
    failures = run(options, results, save_to)
    print()
    print(tables.results(results, labels()))
    print(tables.targets(judge(results, labels())))
    print(tables.circumstances(results))
    kept = results.save(save_to)
    print(f"kept in {kept}")
    if options.page:
        try:
            page.write(Results.load(kept))  # as kept, so that the page can be made again from the file
        except ValueError as fault:  # a case failed in every round
            print(fault, file=sys.stderr)
            return 1
    return 1 if failures else 0
