"""The commands of `tidings` and their options."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from services import __version__

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

Url = Annotated[str, typer.Option(envvar="TIDINGS_URL", help="The gateway.")]
Token = Annotated[str, typer.Option(envvar="TIDINGS_TOKEN", help="A JWT, where the gateway asks for one.")]
Redis = Annotated[
    bool, typer.Option("--redis", help="What metrics keeps in Redis, instead of the streams in NATS.")
]
Rolling = Annotated[
    bool, typer.Option("--rolling", help="Users of NATS may also do what the version before needs.")
]
Username = Annotated[str, typer.Option(help="The name others see.")]
_DEFAULT_URL = "http://127.0.0.1:8080"


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(EXIT_FAILED)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        typer.echo(f"tidings {__version__}")
        raise typer.Exit


@app.command(rich_help_panel=_RUNNING)
def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one.  [default: 8080]")] = None,
    gateways: Annotated[int | None, typer.Option(help="Gateways that share the port.  [default: 2]")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the servers' data and secrets are kept.  [default: .tidings]")
    ] = None,
) -> None:
    """Run everything on this machine: NATS, Redis, gateways, services, agent.

    NATS and Redis come from PATH or from the extra `tidings[local]`; TIDINGS_NATS_URL and TIDINGS_REDIS_URL use
    servers that run already. Ctrl-C stops all in order; once more kills.
    """
    from tidings_cli.local.up import up as run_up

    given = {"host": host, "port": port, "gateways": gateways, "data_dir": data_dir}
    from services.lifecycle import load_sound_settings

    settings = load_sound_settings(
        None, **{name: value for name, value in given.items() if value is not None}
    )
    raise typer.Exit(run_up(settings))


def _become(module: str) -> NoReturn:
    """Replace this process, so that signals and exit codes are the service's own."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", module])  # noqa: S606  # our own command line


@app.command(rich_help_panel=_RUNNING)
def gateway() -> None:
    """Run one gateway. Settings come from TIDINGS_* and tidings.toml."""
    _become("gateway")


@app.command(rich_help_panel=_RUNNING)
def presence() -> None:
    """Run one replica of the presence service."""
    _become("presence_svc")


@app.command(rich_help_panel=_RUNNING)
def metrics() -> None:
    """Run one replica of the metrics service."""
    _become("metrics_svc")


@app.command(rich_help_panel=_RUNNING)
def agent() -> None:
    """Report this machine's cpu, memory, disk and network."""
    _become("metrics_svc.agent")


@app.command(rich_help_panel=_TALKING)
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

    try:
        content = pubsub.content_of(sys.stdin.read() if text == "-" else text, as_json=json)
        _run(pubsub.publish(pubsub.Gateway(url, token, username), room, content))
    except pubsub.TalkFailed as fault:
        _fail(str(fault))


@app.command(rich_help_panel=_TALKING)
def sub(
    rooms: Annotated[list[str] | None, typer.Argument(help="Rooms to join.", show_default=False)] = None,
    channels: Annotated[
        str, typer.Option(help="Channels to follow: presence,presence:ROOM,metrics,alerts,logs,inbox.")
    ] = "",
    count: Annotated[int, typer.Option(help="End after so many messages; 0 goes on.", min=0)] = 0,
    url: Url = _DEFAULT_URL,
    token: Token = "",
    username: Username = "shell",
) -> None:
    """Join rooms and follow channels; print each message as one line of JSON."""
    from tidings_cli import pubsub

    try:
        _run(pubsub.follow(pubsub.Gateway(url, token, username), rooms or [], channels, count))
    except pubsub.TalkFailed as fault:
        _fail(str(fault))


@app.command(rich_help_panel=_OPERATING)
def token(
    sub: Annotated[str, typer.Option(help="The user's id.")],
    name: Annotated[str, typer.Option(help="The name others see.")] = "",
    ttl: Annotated[int, typer.Option(help="Seconds until it expires.", min=1)] = 3600,
    admin: Annotated[bool, typer.Option("--admin", help="May do everything.")] = False,
    join: Annotated[list[str] | None, typer.Option(help="Rooms to join: a pattern. Repeatable.")] = None,
    publish: Annotated[list[str] | None, typer.Option(help="Rooms to publish to. Repeatable.")] = None,
    channels: Annotated[list[str] | None, typer.Option(help="Channels to follow. Repeatable.")] = None,
    broadcast: Annotated[bool, typer.Option("--broadcast", help="May address everyone.")] = False,
    direct: Annotated[bool, typer.Option("--direct", help="May send direct messages.")] = False,
) -> None:
    """Mint a JWT for development, signed with the first of TIDINGS_JWT_SECRETS.

    With any permission, exactly those given hold; with none, the gateway's default grants.
    """
    import time

    from tidings_cli import token as minting

    permissions = {
        "join": join,
        "publish": publish,
        "channels": channels,
        "broadcast": broadcast,
        "direct": direct,
        "admin": admin,
    }
    claim = {permission: value for permission, value in permissions.items() if value}
    try:
        typer.echo(minting.mint(_settings(), sub, name, claim, ttl_s=ttl, now=int(time.time())))
    except minting.CannotMint as fault:
        _fail(str(fault))


@app.command(rich_help_panel=_OPERATING)
def key(
    scopes: Annotated[str, typer.Option(help="publish+metrics+logs+alerts+users+read; all when empty.")] = "",
) -> None:
    """Make a key for the server API: itself, for the caller, and its hash, for TIDINGS_API_KEYS."""
    import hashlib
    import secrets

    from services.settings_values import parse_scopes

    try:
        parse_scopes(scopes) if scopes else None
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="--scopes") from None
    made = secrets.token_urlsafe(32)
    suffix = f";scopes={scopes}" if scopes else ""
    typer.echo(f"key:              {made}")
    typer.echo(f"TIDINGS_API_KEYS: sha256:{hashlib.sha256(made.encode()).hexdigest()}{suffix}")


@app.command(rich_help_panel=_OPERATING)
def permissions(
    server: Annotated[Literal["nats", "redis"], typer.Argument(help="Whose configuration.")],
    rolling: Rolling = False,
) -> None:
    """Print the users of NATS or Redis and what each may do, as the server's configuration.

    `prefix` and `namespaces` of the settings count.
    """
    from services.permissions.render import nats_template, redis_template

    text = nats_template(_settings(), rolling=rolling) if server == "nats" else redis_template(_settings())
    typer.echo(text, nl=False)


@app.command(rich_help_panel=_OPERATING)
def secrets(
    folder: Annotated[Path, typer.Argument(help="Where they are kept; made if it is not there.")],
    site: Annotated[
        str, typer.Option(help="The host name that people connect to.  [default: localhost, or what it was]")
    ] = "",
    rolling: Rolling = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Change nothing: say what would change, and when certificates end."),
    ] = False,
) -> None:
    """Make the passwords, keys and certificates of a deployment (deploy/compose.prod.yaml).

    What is there is kept: run it again after an upgrade, or when `prefix` or `namespaces` changed. Certificates of
    servers are renewed 30 days before they end.
    """
    from tidings_cli.secret_files import CannotKeep, SecretFiles, compare

    try:
        if check:
            pending = compare(folder, _settings(), site, rolling=rolling)
            for line in pending.lines:
                typer.echo(line)
            if pending.changes:
                raise typer.Exit(EXIT_FAILED)
            return
        for name, fate in SecretFiles(folder, _settings(), site, rolling=rolling).write():
            typer.echo(f"{fate:8}{name}")
    except CannotKeep as fault:
        _fail(str(fault))


@app.command(rich_help_panel=_OPERATING)
def check(
    process: Annotated[
        Literal["gateway", "presence", "metrics", "agent"] | None,
        typer.Argument(help="Only what this process needs, as its user.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Validate the configuration, reach all that it names, and say what to do about what is wrong.

    Nothing is changed and nothing delivered; the operator's user stores one message, in a stream of a moment. Exit code 0 if processes can work, 1 if not, 2 for bad settings.
    """
    from services.permissions.roles import Role
    from services.settings_problems import problems_of
    from tidings_cli.check import as_json, run_checks, show

    role = Role(process) if process else None
    settings = _settings()
    outcomes = _run(run_checks(settings, role))
    if json:
        typer.echo(as_json(outcomes))
    else:
        show(outcomes)
    if not all(outcome.ok for outcome in outcomes):
        raise typer.Exit(EXIT_BAD_SETTINGS if problems_of(settings, role) else EXIT_FAILED)


@app.command(rich_help_panel=_OPERATING)
def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder.", show_default=False)],
    redis: Redis = False,
) -> None:
    """Write the streams in NATS (rooms, inboxes, revocations) into a folder. Gateways may go on meanwhile."""
    from tidings_cli import backup as backing
    from tidings_cli.backup_store import back_up_store
    from tidings_cli.log_level import quietly

    try:
        with quietly():
            if redis:
                typer.echo(f"redis: {_run(back_up_store(_with_servers(), folder))} keys")
                return
            backing.report(_run(backing.back_up(_with_servers(), folder)), typer.echo)
    except backing.CannotBackUp as fault:
        _fail(str(fault))


@app.command(rich_help_panel=_OPERATING)
def restore(
    folder: Annotated[Path, typer.Argument(help="What `tidings backup` wrote.", show_default=False)],
    replace: Annotated[bool, typer.Option("--replace", help="Delete streams that are there.")] = False,
    redis: Redis = False,
) -> None:
    """Make the streams of a backup again, in a new epoch. Stop all gateways first."""
    from tidings_cli import backup as backing
    from tidings_cli.backup_store import restore_store
    from tidings_cli.log_level import quietly

    try:
        with quietly():
            if redis:
                typer.echo(f"redis: {_run(restore_store(_with_servers(), folder, replace=replace))} keys")
                return
            backing.report(_run(backing.restore(_with_servers(), folder, replace=replace)), typer.echo)
    except backing.CannotBackUp as fault:
        _fail(str(fault))


@app.command(rich_help_panel=_OPERATING)
def streams(
    process: Annotated[Literal["show", "apply"], typer.Argument(metavar="show|apply")] = "show",
    allow_shrink: Annotated[
        bool,
        typer.Option("--allow-shrink", help="Also lower limits and copies: what is over them is deleted."),
    ] = False,
) -> None:
    """Compare the streams in NATS with the settings, or make them so. Exit code 1 where they differ in the end."""
    from tidings_cli.log_level import quietly
    from tidings_cli.streams import CannotChange, compare

    try:
        with quietly():
            fit = _run(
                compare(_with_servers(), typer.echo, apply=process == "apply", allow_shrink=allow_shrink)
            )
    except CannotChange as fault:
        _fail(str(fault))
    if not fit:
        raise typer.Exit(EXIT_FAILED)


@app.command(rich_help_panel=_OPERATING)
def health(
    ready: Annotated[
        bool, typer.Option("--ready", help="Whether it can serve, not just whether it lives.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(help="Instead of TIDINGS_HEALTH_PORT or TIDINGS_PORT.", show_default=False)
    ] = None,
) -> None:
    """Ask the process on this machine, or in this container, whether it lives. Exit code 1 if not."""
    from tidings_cli import health as asking

    arguments = (["--ready"] if ready else []) + ([f"--port={port}"] if port else [])
    raise typer.Exit(asking.main(arguments))


@app.command(rich_help_panel=_OPERATING)
def verify(
    url: Annotated[
        list[str] | None,
        typer.Option(envvar="TIDINGS_URL", help="A gateway. Repeatable.", show_default=False),
    ] = None,
    duration: Annotated[str, typer.Option(help="How long to publish: 30s, 5m, 1h.")] = "30s",
    publishers: Annotated[int, typer.Option(help="Clients that publish.", min=1)] = 4,
    members: Annotated[int, typer.Option(help="Clients that receive.", min=1)] = 20,
    streams: Annotated[int, typer.Option(help="Clients that receive over Server-Sent Events.", min=0)] = 4,
    rooms: Annotated[int, typer.Option(help="Rooms, all of this run alone.", min=1)] = 5,
    rate: Annotated[float, typer.Option(help="Messages per second of one publisher.", min=0.1)] = 10.0,
    namespace: Annotated[str, typer.Option(help="Namespace of the rooms; must be durable.")] = "",
    token: Token = "",
    keep: Annotated[Path | None, typer.Option(help="Write the history there.", show_default=False)] = None,
    check: Annotated[
        Path | None, typer.Option("--check", help="Only check a history that was kept.", show_default=False)
    ] = None,
) -> None:
    """Prove delivery: publish, receive, and check that nothing was lost, repeated or reordered.

    Meanwhile break what you like: clients reconnect and resume. Exit code 1 if a guarantee was broken.
    """
    from tidings_cli.verify import command as verifying
    from tidings_cli.verify.campaign import Plan
    from tidings_cli.verify.gateways import Gateways

    try:
        if check is not None:
            report = verifying.check_file(check)
        else:
            plan = Plan(publishers, members, rooms, rate, namespace, streams)
            gateways = Gateways(url or [_DEFAULT_URL], token)
            report = _run(verifying.run(plan, gateways, verifying.seconds_of(duration), keep))
    except verifying.CannotVerify as fault:
        _fail(str(fault))
    typer.echo(report.text())
    if not report.holds:
        raise typer.Exit(EXIT_FAILED)


@app.command(rich_help_panel=_OPERATING)
def config(
    format: Annotated[Literal["toml", "json"], typer.Option(help="How to print it.")] = "toml",
    docs: Annotated[
        Literal["configuration", "metrics"] | None,
        typer.Option(help="Print a reference page in Markdown instead.", show_default=False),
    ] = None,
) -> None:
    """Print the effective configuration, secrets redacted, and what no process could work with.

    Exit code 2 if there is any of that. `tidings check` tries the rest.
    """
    from services.logs.redaction import clean_text
    from tidings_cli import configuration
    from tidings_cli.generate import metrics_page

    if docs == "configuration":
        typer.echo(configuration.as_markdown(), nl=False)
    elif docs == "metrics":
        typer.echo(metrics_page.metrics_as_markdown(), nl=False)
    else:
        from services.settings_problems import describe_unknown, problems_of, unknown_variables

        settings = _settings()
        typer.echo(configuration.as_text(settings, format), nl=False)
        problems = problems_of(settings)
        for line in [*describe_unknown(unknown_variables()), *map(str, problems)]:
            typer.echo(clean_text(line), err=True)
        if problems:
            raise typer.Exit(EXIT_BAD_SETTINGS)


def _settings(**given: Any) -> Any:
    from services.lifecycle import load_settings

    return load_settings(**given)


def _with_servers() -> Any:
    """Return the settings; without configured servers, with those of a `tidings up` in this data directory."""
    from tidings_cli.local.servers import kept_url

    settings = _settings()
    nats_url = settings.nats_url or kept_url(settings.data_dir, "nats")
    redis_url = settings.redis_url or kept_url(settings.data_dir, "redis")
    if not (nats_url or redis_url):
        _fail("TIDINGS_NATS_URL is not set, and no `tidings up` has run in this data directory")
    return settings.model_copy(update={"nats_url": nats_url, "redis_url": redis_url})


def _run(work: Any) -> Any:
    import asyncio

    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
