"""Reproducible measurements of Tidings beside named peers: `make bench`, or `python -m bench --help`.

- `cases`     the cases, one file each; `catalogue` lists them with their peers
- `roster`    the servers under test; `launch` starts them; the peers' programs are in `peers/`
- `load`      the load: raw sockets and epoll, one dialect per protocol, so that it is not the bottleneck
- `machine`   this machine, and the processor of each process; `contention` its other users
- `figures`   the figures of cases; `report` keeps them: rounds, medians, ratios, JSON
- `targets`   targets and verdicts; `tables` and `plots` show them, `page` in docs/performance.md
- `results`   dated figures, one file a measurement
- `compare`   the comparison: options, rounds, summary
- `delivery`, `presence`, `metrics`  measurements of one service, without peers: `python -m bench SUBJECT[.NAME]`;
              `single` has their common parts

Servers run on one core, load and brokers on another. Peers run in turn, round after round, so that changes of the machine's
speed affect all of them. Figures are medians over rounds; CPU time per message counts more than wall time.
"""
