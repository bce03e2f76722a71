"""`python -m bench`: Tidings and its peers in turn, round after round."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial

from bench.cases import fanout, idle, open_loop, pairs, publish
from bench.launch import PEERS, Peer, Running, running
from bench.load.clients import LoadError
from bench.machine import LOAD_CORES, describe
from bench.report import Report

# Figures of one run of a case, by the name under which they are reported.
Figures = Iterable[tuple[str, object]]
Case = Callable[[Peer, Running, argparse.Namespace], Figures]


def _fanout(peer: Peer, server: Running, options: argparse.Namespace) -> Figures:
    by_depth = fanout.measure(
        peer, server, members=options.members, outstanding=[1, 8, 32], seconds=options.seconds
    )
    return [(f"room of {options.members}, {depth} outstanding", f) for depth, f in by_depth.items()]


def _open_loop(peer: Peer, server: Running, options: argparse.Namespace, *, stalled: int) -> Figures:
    figures = open_loop.measure(
        peer, server, members=options.members, rate=50, seconds=options.seconds, stalled=stalled
    )
    suffix = ", one more that never reads" if stalled else ""
    return [(f"room of {options.members}, 50 messages/s{suffix}", figures)]


def _pairs(peer: Peer, server: Running, options: argparse.Namespace) -> Figures:
    return [("500 rooms of 2", pairs.measure(peer, server, rooms=500, seconds=options.seconds))]


def _idle(peer: Peer, server: Running, options: argparse.Namespace) -> Figures:
    figures = idle.measure(peer, server, connections=options.connections)
    return [(f"{options.connections} idle connections in rooms of 10", figures)]


def _publish(peer: Peer, server: Running, options: argparse.Namespace) -> Figures:
    figures = publish.measure(peer, server, publishers=20, outstanding=16, seconds=options.seconds)
    return [("acknowledged publishes", figures)]


CASES: dict[str, Case] = {
    "fanout": _fanout,
    "open": partial(_open_loop, stalled=0),
    "stalled": partial(_open_loop, stalled=1),
    "pairs": _pairs,
    "publish": _publish,
    "idle": _idle,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--cases", default=",".join(CASES), help="comma-separated (default: %(default)s)")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, peers in turn (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a run (default: %(default)s)")
    parser.add_argument("--members", type=int, default=1000, help="members of the large room")
    parser.add_argument("--connections", type=int, default=10_000, help="connections of the idle case")
    parser.add_argument("--reference", default="bun", help="whom ratios are to (default: %(default)s)")
    options = parser.parse_args()
    for what, known in (("cases", CASES), ("peers", PEERS)):
        chosen = getattr(options, what).split(",")
        if unknown := [name for name in chosen if name not in known]:
            parser.error(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")
        setattr(options, what, chosen)
    return options


def main() -> int:
    """Run, print, save; 1 where a peer could not be measured."""
    options = _options()
    os.sched_setaffinity(0, LOAD_CORES)
    report = Report(describe())
    failed = 0
    for number in range(1, options.rounds + 1):
        for case in options.cases:
            for name in options.peers:
                peer = PEERS[name]
                if not peer.available():
                    print(f"round {number}: {case}: {name} is not installed here", flush=True)
                    continue
                try:
                    with running(peer) as server:
                        for title, figures in CASES[case](peer, server, options):
                            report.add(title, name, figures)
                            print(f"round {number}: {title}: {name}: {figures}", flush=True)
                except (LoadError, OSError) as fault:
                    failed = 1
                    print(f"round {number}: {case}: {name}: failed: {fault}", flush=True)
    print(f"\n{report.table(options.reference)}")
    print(f"kept in {report.save('peers')}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
