"""The chassis: what two or more Tidings processes share.

Settings, logging, the bus, wire types, health and process lifecycle. Nothing in here knows what a socket, a
presence lease or an alert is, and nothing in here imports
`gateway`, `presence_svc`, `metrics_svc` or `tidings_cli`.
"""

from importlib.metadata import version

__version__ = version("tidings")
