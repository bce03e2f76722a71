"""Reproducible measurements of Tidings beside named peers: `make bench`, or `python -m bench --help`.

- `cases`     what is measured, one file a case; `catalogue` has all, and who takes part
- `roster`    who is measured; `launch` starts them; the peers' programs are in `peers/`
- `load`      the load: raw sockets and epoll, one dialect per protocol, so that it is not the bottleneck
- `machine`   what this machine is, and which processor each process gets; `contention` who else used it
- `figures`   what a case may return; `report` keeps it: rounds, medians, ratios, JSON
- `targets`   what has to be reached, and the verdicts; `tables` and `plots` show it, `page` in docs/performance.md
- `results`   dated figures, one file a measurement
- `compare`   the run of it all: options, rounds, summary
- `delivery`, `presence`, `metrics`  measurements of one service, without peers: `python -m bench SUBJECT[.NAME]`;
              `single` is what they share

Servers run on one core and load and brokers on another; peers run in turn, round after round, so that a drifting machine
drifts for all; figures are medians over rounds, and CPU time per message before wall time.
"""
