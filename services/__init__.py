"""The chassis: what two or more Tidings processes share.

Settings, logging, the bus, wire types, health and process lifecycle. Nothing here knows sockets, presence leases or
alerts, or imports `gateway`, `presence_svc`, `metrics_svc` or `tidings_cli`.
"""

from importlib.metadata import version

__version__ = version("tidings")
