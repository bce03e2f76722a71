"""Where on the bus each thing goes. No other module builds a subject from parts.

```
PREFIX.in.room.NS.ROOM      publish to a durable room (captured by the namespace's stream)
PREFIX.out.room.NS.ROOM     messages to members of a room: republished by the stream, or published directly where
                            the room is ephemeral
PREFIX.out.members.NS.ROOM  who joined and left a room, to its members: from presence_svc alone, never stored
PREFIX.in.user.USER         publish to a user's inbox (captured)
PREFIX.out.user.USER        for every connection of a user
PREFIX.out.broadcast        for every connection
PREFIX.presence.diff        changes of who is online                PREFIX.presence.room.NS.ROOM  the same of one room
PREFIX.metrics.report       samples of one source                   PREFIX.metrics.feed           the record each second
PREFIX.alerts.feed          alerts raised and resolved
PREFIX.logs.report.KIND     log lines of one process, KIND its role (`app`: of applications, through a gateway)
PREFIX.logs.feed            the fleet's log stream
PREFIX.control              orders to all gateways (disconnect a user; status and data set over HTTP)
PREFIX.roster               who has connections of this user? (each gateway answers for itself)
PREFIX.in.revoked.HASH      a revocation (captured)          PREFIX.out.revoked.HASH       for every gateway
PREFIX.ticket.HASH          a one-time ticket (captured by the tickets' stream)
PREFIX.service.SERVICE.ENDPOINT  requests to our services, each a NATS micro service
PREFIX.rpc.METHOD           calls of clients, answered by NATS micro services of the application
PREFIX.probe.ROLE.INSTANCE  a process asking itself whether the bus carries messages
```

Rooms, users and instances are tokens (`names.to_token`); PREFIX and namespaces are plain by validation.
"""

from dataclasses import dataclass

from services.wire.names import to_token

DEFAULT_NAMESPACE = "default"
LOGS_OF_APPLICATIONS = "app"
# Services that version 0.1 asks at `PREFIX.rpc.SERVICE.ENDPOINT`: no method has such a first word, as long as they answer there.
SERVICES = ("gateway", "presence", "metrics")


def stored_subject(republished: str) -> str:
    """Return the captured subject of a republished one."""
    return republished.replace(".out.", ".in.", 1)  # no prefix has a dot


def republished_subject(captured: str) -> str:
    """Return the republished subject of a captured one, its wildcard in NATS's mapping syntax."""
    return captured.replace(".in.", ".out.", 1).replace("*", "{{wildcard(1)}}")


@dataclass(frozen=True, slots=True)
class Subjects:
    """All subjects under one prefix, so that deployments (and tests) can share a server."""

    prefix: str

    def room_in(self, namespace: str, room: str) -> str:
        return f"{self.prefix}.in.room.{namespace}.{to_token(room)}"

    def room_out(self, namespace: str, room: str) -> str:
        return f"{self.prefix}.out.room.{namespace}.{to_token(room)}"

    def room_members(self, namespace: str, room: str) -> str:
        return f"{self.prefix}.out.members.{namespace}.{to_token(room)}"

    def user_in(self, user_id: str) -> str:
        return f"{self.prefix}.in.user.{to_token(user_id)}"

    def user_out(self, user_id: str) -> str:
        return f"{self.prefix}.out.user.{to_token(user_id)}"

    @property
    def broadcast(self) -> str:
        return f"{self.prefix}.out.broadcast"

    @property
    def presence_diff(self) -> str:
        return f"{self.prefix}.presence.diff"

    def presence_room(self, namespace: str, room: str) -> str:
        return f"{self.prefix}.presence.room.{namespace}.{to_token(room)}"

    @property
    def metrics_report(self) -> str:
        return f"{self.prefix}.metrics.report"

    @property
    def metrics_feed(self) -> str:
        return f"{self.prefix}.metrics.feed"

    @property
    def alerts_feed(self) -> str:
        return f"{self.prefix}.alerts.feed"

    def logs_report(self, kind: str) -> str:
        """`kind` is a role, `LOGS_OF_APPLICATIONS`, or `*` for all."""
        return f"{self.prefix}.logs.report.{kind}"

    @property
    def logs_feed(self) -> str:
        return f"{self.prefix}.logs.feed"

    @property
    def control(self) -> str:
        return f"{self.prefix}.control"

    @property
    def roster(self) -> str:
        return f"{self.prefix}.roster"

    def revoked_in(self, key: str) -> str:
        """`key` is one token, or `*` for all."""
        return f"{self.prefix}.in.revoked.{key}"

    @property
    def revoked_out(self) -> str:
        return f"{self.prefix}.out.revoked.*"

    @property
    def tickets(self) -> str:
        """Without the last token, which is the key."""
        return f"{self.prefix}.ticket"

    def service(self, service: str, endpoint: str) -> str:
        return f"{self.prefix}.service.{service}.{endpoint}"

    def service_before(self, service: str, endpoint: str) -> str:
        """Where version 0.1 asks."""
        return f"{self.prefix}.rpc.{service}.{endpoint}"

    def rpc(self, method: str) -> str:
        """`method` is a checked name (`names.is_method`)."""
        return f"{self.prefix}.rpc.{method}"

    def probe(self, role: str, instance: str) -> str:
        return f"{self.prefix}.probe.{role}.{to_token(instance)}"

    def rooms_captured(self, namespace: str) -> str:
        return f"{self.prefix}.in.room.{namespace}.*"

    @property
    def inboxes_captured(self) -> str:
        return f"{self.prefix}.in.user.*"

    def rooms_stream(self, namespace: str) -> str:
        """Stream names allow no dots; prefixes and namespaces are plain words."""
        return f"{self.prefix}-rooms-{namespace}"

    @property
    def revocations_stream(self) -> str:
        return f"{self.prefix}-revocations"

    @staticmethod
    def leader_elected(stream: str) -> str:
        """Subject of NATS's advisory that a replicated stream has a new leader."""
        return f"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{stream}"

    @property
    def inbox_stream(self) -> str:
        return f"{self.prefix}-inbox"

    @property
    def tickets_stream(self) -> str:
        return f"{self.prefix}-tickets"
