"""The chassis: what two or more Tidings processes share.

Here lives what would otherwise be written twice: settings, logging, the bus, wire types, health, process
lifecycle, the supervisor of `tidings up` and the console script. Nothing in here knows what a socket,
a presence lease or an alert is, and nothing in here imports `gateway`, `presence_svc` or `metrics_svc`.
"""

__version__ = "0.1.0"
