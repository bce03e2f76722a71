"""Subjects that each role publishes to and hears.

Answers are not among them: whoever is asked may answer once (`allow_responses`), and nobody may write into another's
inbox otherwise. Each role hears its own inboxes only, so that no role reads what another was told.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from services.permissions.roles import Role
from services.settings import Settings

# Monitoring of micro services (NATS ADR-32): `$SRV.PING`, `$SRV.INFO.NAME`, `$SRV.STATS.NAME.ID`.
_MONITORING = "$SRV.>"
# A client asks about itself; see `proof`.
USER_INFO = "$SYS.REQ.USER.INFO"


def inbox_prefix(role: Role | None) -> str:
    """Return what the reply subjects of a role begin with; without a role, NATS's own default."""
    return "_INBOX" if role is None else f"_INBOX.{role}"


@dataclass(frozen=True, slots=True)
class Subjects:
    """What a role publishes to and hears, as subjects with wildcards."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def subjects_of(role: Role, settings: Settings) -> Subjects:
    """Return all that a role needs under these settings (`prefix` and `namespaces` count)."""
    prefix = settings.prefix
    publish, subscribe = {
        Role.GATEWAY: _gateway,
        Role.PRESENCE: _presence,
        Role.METRICS: _metrics,
        Role.AGENT: _agent,
    }[role](prefix, settings)
    return Subjects(
        publish=(*publish, f"{prefix}.logs.report", f"{prefix}.probe.*", USER_INFO),
        subscribe=(*subscribe, f"{prefix}.probe.*", f"{inbox_prefix(role)}.>"),
    )


_Pair = tuple[tuple[str, ...], tuple[str, ...]]


def _gateway(prefix: str, settings: Settings) -> _Pair:
    subjects = settings.subjects
    durable = [name for name, namespace in settings.namespaces.items() if namespace.durable]
    ephemeral = [name for name, namespace in settings.namespaces.items() if not namespace.durable]
    streams = [
        *(subjects.rooms_stream(name) for name in durable),
        subjects.inbox_stream,
        subjects.tickets_stream,
        subjects.revocations_stream,
    ]
    publish = (
        f"{prefix}.in.>",
        *(f"{prefix}.out.room.{name}.*" for name in ephemeral),
        subjects.broadcast,
        subjects.control,
        subjects.roster,
        subjects.metrics_report,
        f"{subjects.tickets}.*",
        *(f"{prefix}.rpc.{service}.*" for service in ("gateway", "presence", "metrics")),
        *(
            f"$JS.API.{verb}.{stream}"
            for stream in streams
            for verb in ("STREAM.INFO", "STREAM.CREATE", "STREAM.UPDATE", "STREAM.MSG.GET", "DIRECT.GET")
        ),
    )
    subscribe = (
        f"{prefix}.out.>",
        subjects.control,
        subjects.roster,
        f"{prefix}.presence.>",
        subjects.metrics_feed,
        subjects.alerts_feed,
        subjects.logs_feed,
        f"{prefix}.rpc.gateway.*",
        *(subjects.leader_elected(stream) for stream in streams if stream != subjects.tickets_stream),
        _MONITORING,
    )
    return publish, subscribe


def _presence(prefix: str, settings: Settings) -> _Pair:
    publish = (settings.subjects.presence_diff, f"{prefix}.presence.room.>", f"{prefix}.out.members.>")
    return publish, (f"{prefix}.rpc.presence.*", _MONITORING)


def _metrics(prefix: str, settings: Settings) -> _Pair:
    subjects = settings.subjects
    publish = (subjects.metrics_feed, subjects.alerts_feed, subjects.logs_feed)
    subscribe = (
        subjects.metrics_report,
        subjects.logs_report,
        subjects.logs_feed,
        f"{prefix}.rpc.metrics.*",
        _MONITORING,
    )
    return publish, subscribe


def _agent(prefix: str, settings: Settings) -> _Pair:  # noqa: ARG001  # the four have one shape
    return (settings.subjects.metrics_report,), ()


# --- comparing ----------------------------------------------------------------------------------------------------


def covers(allowed: str, needed: str) -> bool:
    """Whether every subject that `needed` matches is matched by `allowed`, both with wildcards."""
    ours, theirs = allowed.split("."), needed.split(".")
    for index, word in enumerate(ours):
        if word == ">":
            return index < len(theirs)
        if index >= len(theirs) or theirs[index] == ">":
            return False
        if word != "*" and word != theirs[index]:
            return False
    return len(ours) == len(theirs)


def overlaps(one: str, other: str) -> bool:
    """Whether some subject is matched by both."""
    ours, theirs = one.split("."), other.split(".")
    for a, b in zip(ours, theirs, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(ours) == len(theirs)


def missing(needed: Iterable[str], allow: Iterable[str], deny: Iterable[str]) -> list[str]:
    """Return what is needed and not wholly allowed. An empty `allow` allows everything, as at NATS."""
    allow, deny = list(allow), list(deny)
    return [
        subject
        for subject in needed
        if (allow and not any(covers(pattern, subject) for pattern in allow))
        or any(overlaps(pattern, subject) for pattern in deny)
    ]
