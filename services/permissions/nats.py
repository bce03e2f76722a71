"""Subjects that each role publishes and subscribes to.

NATS checks the subject of a message, not its reply subject. So no role may answer on any subject that a request names
(`allow_responses`): services answer to inboxes named after them only. And no role may send requests that the server
itself answers on any reply subject, such as `$SYS.REQ.USER.INFO`; only gateways may send requests to JetStream.

```
_INBOX.CALLER.ANSWERER.RANDOM.TOKEN  replies from a role to a role; ANSWERER is `server` for JetStream
_INBOX.RANDOM[.TOKEN]                replies to a user without a role (the operator's tools)
```
"""

import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from services.bus.errors import Misconfigured
from services.bus.specs import all_specs, disk_specs
from services.permissions import Role
from services.settings import Settings
from services.wire.subjects import LOGS_OF_APPLICATIONS, SERVICES

# Monitoring of micro services (NATS ADR-32): `$SRV.PING`, `$SRV.INFO.NAME`, `$SRV.STATS.NAME.ID`.
_MONITORING = "$SRV.>"
# Replies to clients in general, and to our own without a role.
_INBOXES_WITHOUT_ROLE = ("_INBOX.*", "_INBOX.*.*")
_ANSWERING = (Role.GATEWAY, Role.PRESENCE, Role.METRICS, Role.APP)
SERVER = "server"


def inbox_prefix(caller: Role | None, answerer: str = SERVER) -> str:
    """Return the prefix of reply subjects; without a role, NATS's own default."""
    return "_INBOX" if caller is None else f"_INBOX.{caller}.{answerer}"


def answerer_of(subject: str, prefix: str) -> str:
    """Return the role that answers requests on a subject, or `server`."""
    if subject.startswith(f"{prefix}.service."):
        return subject.removeprefix(f"{prefix}.service.").partition(".")[0]
    if subject.startswith(f"{prefix}.rpc."):
        service = subject.removeprefix(f"{prefix}.rpc.").partition(".")[0]
        return service if service in SERVICES else Role.APP
    return Role.GATEWAY if subject in (f"{prefix}.roster", f"{prefix}.control") else SERVER


@dataclass(frozen=True, slots=True)
class SubjectRights:
    """Rights of a role, as subjects with wildcards. `unsubscribable` are exceptions from `subscribe`."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    unsubscribable: tuple[str, ...] = ()


def subjects_of(role: Role, settings: Settings, *, rolling: bool = False) -> SubjectRights:
    """Return the rights that a role needs under these settings (`prefix` and `namespaces` count).

    With `rolling` also those that the version before needs, for as long as processes of both run.
    """
    prefix = settings.prefix
    publish, subscribe = {
        Role.GATEWAY: _gateway,
        Role.PRESENCE: _presence,
        Role.METRICS: _metrics,
        Role.AGENT: _agent,
        Role.APP: _app,
    }[role](settings)
    answers = (inbox_prefix(Role.GATEWAY, role) + ".*.*", *_INBOXES_WITHOUT_ROLE)
    needed = SubjectRights(
        publish=(
            *publish,
            *(() if role is Role.APP else (settings.subjects.logs_report(role),)),
            f"{prefix}.probe.{role}.*",
            *(answers if role in _ANSWERING else ()),
        ),
        subscribe=(*subscribe, f"{prefix}.probe.{role}.*", f"_INBOX.{role}.>"),
    )
    if not rolling:
        return needed
    before = _version_before(role, prefix)
    return SubjectRights(
        (*needed.publish, *before.publish), (*needed.subscribe, *before.subscribe), before.unsubscribable
    )


def _version_before(role: Role, prefix: str) -> SubjectRights:
    """Return the rights that 0.1 needs and this version does not; an application has none there, and takes none away."""
    if role is Role.APP:
        return SubjectRights((), (), tuple(f"{prefix}.rpc.{service}.>" for service in SERVICES))
    publish = (f"{prefix}.logs.report", f"{prefix}.probe.*", "$SYS.REQ.USER.INFO")
    members = (f"{prefix}.out.room.>",) if role is Role.PRESENCE else ()
    answers = ("_INBOX.gateway.*.*",) if role in _ANSWERING else ()
    reports = (f"{prefix}.logs.report",) if role is Role.METRICS else ()
    requests = (f"{prefix}.rpc.{role}.*",) if role in SERVICES else ()
    return SubjectRights((*publish, *members, *answers), (f"{prefix}.probe.*", *reports, *requests))


_Pair = tuple[tuple[str, ...], tuple[str, ...]]


def _gateway(settings: Settings) -> _Pair:
    prefix, subjects = settings.prefix, settings.subjects
    ephemeral = [name for name, namespace in settings.namespaces.items() if not namespace.durable]
    publish = (
        f"{prefix}.in.>",
        *(f"{prefix}.out.room.{name}.*" for name in ephemeral),
        subjects.broadcast,
        subjects.control,
        subjects.roster,
        subjects.metrics_report,
        subjects.logs_report(LOGS_OF_APPLICATIONS),
        f"{subjects.tickets}.*",
        *(f"{prefix}.service.{service}.*" for service in SERVICES),
        subjects.rpc(">"),
        *(
            f"$JS.API.{verb}.{spec.name}"
            for spec in all_specs(settings)
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
        subjects.service("gateway", "*"),
        *(subjects.leader_elected(spec.name) for spec in disk_specs(settings)),
        _MONITORING,
    )
    return publish, subscribe


def _presence(settings: Settings) -> _Pair:
    prefix, subjects = settings.prefix, settings.subjects
    publish = (subjects.presence_diff, f"{prefix}.presence.room.>", f"{prefix}.out.members.>")
    return publish, (subjects.service("presence", "*"), _MONITORING)


def _metrics(settings: Settings) -> _Pair:
    subjects = settings.subjects
    publish = (subjects.metrics_feed, subjects.alerts_feed, subjects.logs_feed)
    subscribe = (
        subjects.metrics_report,
        subjects.logs_report("*"),
        subjects.logs_feed,
        subjects.service("metrics", "*"),
        _MONITORING,
    )
    return publish, subscribe


def _agent(settings: Settings) -> _Pair:
    return (settings.subjects.metrics_report,), ()


def _app(settings: Settings) -> _Pair:
    return (), (settings.subjects.rpc(">"), _MONITORING)


async def prove_nats(
    try_subjects: Callable[[Collection[str], Collection[str]], Awaitable[set[tuple[str, str]]]],
    role: Role,
    settings: Settings,
) -> None:
    """Check at startup that this user of NATS has all rights of a role; refusals of later messages could go unnoticed.

    Each subject is tried without effect, see `Bus.refused`.

    Raises:
        Misconfigured: it may not; the message lists what is missing.
        Unavailable: the server did not answer.
    """
    needed = subjects_of(role, settings)
    publish = {_one_of(subject): subject for subject in needed.publish}
    subscribe = {_one_of(subject): subject for subject in needed.subscribe}
    refused = await try_subjects(publish, subscribe)
    lacking = [
        f"{verb} {pattern}"
        for verb, operation, patterns in (
            ("publish", "publish", publish),
            ("subscribe", "subscription", subscribe),
        )
        for tried, pattern in patterns.items()
        if (operation, tried.lower()) in refused
    ]
    if lacking:
        raise Misconfigured(
            f"the user of TIDINGS_NATS_URL lacks permissions that {role} needs: {', '.join(lacking)} "
            "(`tidings permissions nats` prints all)"
        )


def _one_of(pattern: str) -> str:
    """Return a subject that a pattern matches, an unused one where it has wildcards."""
    return ".".join(secrets.token_hex(8) if word in ("*", ">") else word for word in pattern.split("."))
