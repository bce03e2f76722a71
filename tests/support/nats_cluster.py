"""A NATS cluster on free ports: three servers of the same program as the single one, each a JetStream peer."""

import json
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

from services.permissions import OPERATOR
from tests.support.startable import Startable
from tidings_cli.local.processes import free_port
from tidings_cli.local.servers import NatsServer

_FORM_S = 30.0


class Peer(NatsServer):
    """One server of the cluster. `sync_interval: always`, as in production."""

    def __init__(self, directory: Path, name: str, *, port: int, password: str) -> None:
        super().__init__(directory, port=port, password=password)
        self.peer_name = name
        self.route_port = free_port()
        self.monitor_port = free_port()
        self.routes: list[str] = []
        self.no_advertise = (
            False  # as in production: the server does not announce the other servers to clients
        )

    def _configuration(self) -> str:
        routes = ", ".join(f'"{route}"' for route in self.routes)
        return (
            super()
            ._configuration()
            .replace("server_name: tidings-local", f"server_name: {self.peer_name}")
            .replace("jetstream {", "jetstream { sync_interval: always,")
            + f'http: "127.0.0.1:{self.monitor_port}"\n'
            + f'cluster {{ name: tidings, listen: "127.0.0.1:{self.route_port}", routes: [{routes}], '
            + f"no_advertise: {str(self.no_advertise).lower()} }}\n"
        )

    def monitor(self, path: str) -> dict[str, Any]:
        """Return the answer of the monitoring port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor_port}{path}", timeout=1) as answer:
            told: dict[str, Any] = json.load(answer)
        return told


class NatsCluster(Startable):
    """Three peers. A context manager."""

    def __init__(self, directory: Path, *, password: str, no_advertise: bool = False) -> None:
        ports = _distinct_ports(3)
        self.peers = [
            Peer(directory / f"nats-{n}", f"nats-{n}", port=port, password=password)
            for n, port in enumerate(ports, 1)
        ]
        self._password = password
        for peer in self.peers:
            peer.no_advertise = no_advertise
            peer.routes = [
                f"nats://127.0.0.1:{other.route_port}" for other in self.peers if other is not peer
            ]

    @property
    def url(self) -> str:
        """Every peer, as one TIDINGS_NATS_URL."""
        return ",".join(peer.url for peer in self.peers)

    def url_of(self, *peers: Peer) -> str:
        """Some peers, as one TIDINGS_NATS_URL."""
        return ",".join(f"nats://{OPERATOR}:{self._password}@127.0.0.1:{peer.port}" for peer in peers)

    def leader_of(self, stream: str) -> Peer | None:
        """Return the leader of a stream, asked from one of the other running servers."""
        for peer in self.peers:
            if not peer.running:
                continue
            try:
                told = peer.monitor("/jsz?accounts=true&streams=true")
            except OSError:
                continue
            for account in told.get("account_details", ()):
                for one in account.get("stream_detail", ()):
                    if one["name"] == stream:
                        name = one.get("cluster", {}).get("leader", "")
                        return next((peer for peer in self.peers if peer.peer_name == name), None)
        return None

    def peer_of(self, client: str) -> Peer | None:
        """Return the server to which a process is connected, of those that answer."""
        for peer in self.peers:
            try:
                connections = peer.monitor("/connz")["connections"] if peer.running else []
            except OSError:
                continue
            if any(one.get("name") == client for one in connections):
                return peer
        return None

    def is_complete(self) -> bool:
        """Whether all servers run and agree on one leader, with all replicas current."""
        try:
            told = [peer.monitor("/jsz") for peer in self.peers]
            healthy = [peer.monitor("/healthz")["status"] for peer in self.peers]
        except OSError:
            return False
        leaders = {one.get("meta_cluster", {}).get("leader", "") for one in told}
        return len(leaders) == 1 and "" not in leaders and set(healthy) == {"ok"}

    def start(self) -> Self:
        """Start all of them, and wait until they are one cluster."""
        for peer in self.peers:
            if not peer.running:
                peer.spawn()
        for peer in self.peers:
            peer.resume()
            peer.wait_ready()
        deadline = time.monotonic() + _FORM_S
        while not self.is_complete():
            assert time.monotonic() < deadline, f"no cluster:\n{self.peers[0].log_tail()}"
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Stop all of them."""
        for peer in self.peers:
            peer.terminate()
        for peer in self.peers:
            peer.stop()


def _distinct_ports(count: int) -> list[int]:
    ports: list[int] = []
    while len(ports) < count:
        port = free_port()
        if port not in ports:
            ports.append(port)
    return ports
