"""Reproducible measurements of Tidings beside named peers: `make bench`, or `python -m bench --help`.

- `machine`   what this machine is, and which processor each process gets
- `peers`     how each server under test is started; their programs are in `peers/`
- `load`      the load: raw sockets and epoll, one dialect per protocol, so that it is not the bottleneck
- `cases`     what is measured, one file a case
- `report`    medians, ratios, a table, JSON
- `results`   dated figures, one file a measurement
- `delivery_*`, `presence_*`, `metrics_*`  measurements of one service, without peers: `python -m bench.NAME`

Servers run on one core and load and brokers on another; peers run in turn, round after round, so that a drifting machine
drifts for all; figures are medians over rounds, and CPU time per message before wall time.
"""
