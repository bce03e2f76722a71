"""The agent: measures one machine and reports it, one per host. Started with `python -m metrics_svc.agent`.

- `machine`  what the machine does now: cpu, memory, disk, network, within a container's limits
- `reporter` samples and publishes on time, and counts what could not be sent
"""
