"""A Redis Cluster of masters on free ports, from the same program as the single server."""

import socket
import time
from pathlib import Path
from typing import Self

import redis

from tests.support.startable import Startable
from tidings_cli.local.servers import RedisServer

_SLOTS = 16_384
_JOIN_S = 20.0


class ClusterNode(RedisServer):
    """One master; its bus port is free as well as its own."""

    def _configuration(self) -> str:
        return super()._configuration() + (
            "cluster-enabled yes\n"
            f"cluster-config-file {self.directory}/nodes.conf\n"
            "cluster-node-timeout 2000\n"
            f"masterauth {self.password}\n"
        )


class RedisCluster(Startable):
    """Three masters that share the slots, with one password. A context manager."""

    def __init__(self, directory: Path, *, password: str) -> None:
        ports = _free_port_pairs(3)
        self.password = password
        self._directory = directory
        self.nodes = [ClusterNode(directory / f"node-{port}", port=port, password=password) for port in ports]

    @property
    def url(self) -> str:
        """Where clients begin: every node, as one URL."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://default:{self.password}@{hosts}"

    def client(self, node: int) -> redis.Redis:
        """Return a client of one node alone."""
        return redis.Redis(port=self.nodes[node].port, password=self.password)

    def start(self) -> Self:
        """Start the nodes and make them one cluster."""
        for node in self.nodes:
            node.start()
        share = _SLOTS // len(self.nodes) + 1
        for index in range(len(self.nodes)):
            with self.client(index) as client:
                last = min((index + 1) * share, _SLOTS) - 1
                client.execute_command("CLUSTER", "ADDSLOTS", *range(index * share, last + 1))
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        self._wait_joined()
        return self

    def add_replica(self, of: int) -> None:
        """Start one more node, and make it the replica of a master."""
        node = ClusterNode(self._directory / "replica", port=_free_port_pairs(1)[0], password=self.password)
        self.nodes.append(node)
        node.start()
        deadline = time.monotonic() + _JOIN_S
        with self.client(of) as master, self.client(len(self.nodes) - 1) as replica:
            name = master.execute_command("CLUSTER", "MYID").decode()
            replica.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[of].port)
            while name not in str(replica.execute_command("CLUSTER", "NODES")):
                assert time.monotonic() < deadline, "the replica does not meet its master"
                time.sleep(0.05)
            replica.execute_command("CLUSTER", "REPLICATE", name)
            while replica.info("replication")["master_link_status"] != "up":
                assert time.monotonic() < deadline, "the replica does not follow its master"
                time.sleep(0.05)
            own_name = replica.execute_command("CLUSTER", "MYID").decode()
        for index in range(
            len(self.nodes) - 1
        ):  # a master that does not know it as a replica would not vote for it
            with self.client(index) as client:
                while not _is_replica(own_name, client.execute_command("CLUSTER", "NODES")):
                    assert time.monotonic() < deadline, "the others do not learn of the replica"
                    time.sleep(0.05)

    def stop(self) -> None:
        """Stop all nodes."""
        for node in self.nodes:
            node.resume()
            node.stop()

    def owner_of(self, key: str) -> int:
        """Return which node has a key's slot."""
        with self.client(0) as client:
            slot = int(client.execute_command("CLUSTER", "KEYSLOT", key))
        return slot // (_SLOTS // len(self.nodes) + 1)

    def move_slot(self, key: str, to: int) -> None:
        """Move a key's slot, with all its keys, to another node (CLUSTER SETSLOT, MIGRATE)."""
        source = self.owner_of(key)
        with self.client(source) as old, self.client(to) as new:
            slot = old.execute_command("CLUSTER", "KEYSLOT", key)
            old_id, new_id = (client.execute_command("CLUSTER", "MYID").decode() for client in (old, new))
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
            while found := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                old.execute_command(
                    "MIGRATE", "127.0.0.1", self.nodes[to].port, "", 0, 5000, "AUTH", self.password, "KEYS", *found
                )  # fmt: skip
            for client in (new, old):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", new_id)

    def _wait_joined(self) -> None:
        deadline = time.monotonic() + _JOIN_S
        for index in range(len(self.nodes)):
            with self.client(index) as client:
                while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO") or (
                    client.execute_command("CLUSTER", "INFO").count(b"cluster_known_nodes:3") != 1
                ):
                    assert time.monotonic() < deadline, "the cluster does not form"
                    time.sleep(0.05)


def _is_replica(name: str, nodes: bytes) -> bool:
    """Whether the answer to CLUSTER NODES has a node of that name as a replica."""
    return any(line.startswith(name) and "slave" in line for line in nodes.decode().splitlines())


def _free_port_pairs(count: int) -> list[int]:
    """Return ports that are free together with that 10,000 above, where a node's cluster bus listens."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as own, socket.socket() as bus:
            own.bind(("127.0.0.1", 0))
            port = own.getsockname()[1]
            if port + 10_000 > 65_535 or port in found:
                continue
            try:
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            found.append(port)
    return found
