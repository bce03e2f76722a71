"""The agent measures one machine, one agent per host. Started with `python -m metrics_svc.agent`.

- `machine`  measurements: cpu, memory, disk, network, within a container's limits
- `reporter` publishes samples on time, and counts reports that could not be sent
"""
