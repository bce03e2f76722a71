"""Permissions as the real servers enforce them: enough for each role, and no more."""

import asyncio
import hashlib
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import redis
import redis.asyncio

from services import redis_client
from services.bus.client import Bus
from services.bus.errors import BusError, Misconfigured, NoAnswer
from services.bus.rpc import Service, call
from services.permissions import OPERATOR, Role
from services.permissions.nats import subjects_of
from services.permissions.redis import ROLES, access_of
from services.permissions.render import nats_template, nats_users, redis_template
from services.redis_client import prove_redis
from services.settings import Settings
from services.wire.rpc import PRESENCE_LIST, PresencePage, PresenceQuery
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.docs import ROOT
from tests.support.nats_subjects import matches
from tests.support.raw_nats import raw_nats
from tests.support.requires import need
from tidings_cli.local.processes import free_port
from tidings_cli.local.servers import NatsServer, RedisServer

SETTINGS = Settings(prefix="lp")


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    need("nats-server")
    with NatsServer(tmp_path_factory.mktemp("nats-users"), settings=SETTINGS) as server:
        yield server


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need("redis-server")
    with RedisServer(tmp_path_factory.mktemp("redis-users"), settings=SETTINGS) as server:
        yield server


@asynccontextmanager
async def connected(url: str, role: Role | None) -> AsyncIterator[Bus]:
    bus = await Bus.connect(Settings(prefix="lp", nats_url=url), "test", role=role)
    try:
        yield bus
    finally:
        await bus.close()


@pytest.mark.parametrize("role", Role)
async def test_each_role_proves_that_it_may_do_what_it_needs(nats: NatsServer, role: Role) -> None:
    async with connected(nats.url_of(role), role) as bus:
        await bus.flush()
        assert bus.stats.permission_violations == 0


async def test_the_operator_may_do_everything(nats: NatsServer) -> None:
    async with connected(nats.url, Role.GATEWAY) as bus:
        assert bus.stats.permission_violations == 0


FORBIDDEN = [
    (Role.AGENT, "lp.control"),
    (Role.AGENT, "lp.in.room.default.den"),
    (Role.AGENT, "lp.service.presence.apply"),
    (Role.AGENT, "lp.rpc.orders"),
    (Role.PRESENCE, "lp.rpc.orders"),
    (Role.APP, "lp.rpc.orders"),
    (Role.APP, "lp.service.presence.apply"),
    (Role.APP, "lp.in.room.default.den"),
    (Role.APP, "lp.logs.report.app"),
    (Role.APP, "_INBOX.gateway.presence.x.1"),
    (Role.APP, "$JS.API.INFO"),
    (Role.PRESENCE, "lp.control"),
    (Role.PRESENCE, "lp.in.revoked.x"),
    (Role.PRESENCE, "lp.metrics.feed"),
    (Role.PRESENCE, "lp.out.room.default.den"),
    (Role.PRESENCE, "lp.out.room.live.live=3Acursor"),
    (Role.METRICS, "lp.out.room.default.den"),
    (Role.METRICS, "lp.presence.diff"),
    (Role.GATEWAY, "lp.out.room.default.den"),  # durable: only the stream
    (Role.GATEWAY, "lp.metrics.feed"),
    (Role.GATEWAY, "$JS.API.STREAM.DELETE.lp-inbox"),
    (Role.GATEWAY, "$JS.API.STREAM.CREATE.mine"),
    (Role.GATEWAY, "$JS.API.STREAM.PURGE.lp-rooms-default"),
    (Role.GATEWAY, "_INBOX.presence.x.1"),
    (Role.GATEWAY, "other.in.room.default.den"),
]


@pytest.mark.parametrize(("role", "subject"), FORBIDDEN)
async def test_what_a_role_may_not_say(nats: NatsServer, role: Role, subject: str) -> None:
    async with connected(nats.url_of(role), role) as bus:
        bus.publish(subject, b"x")
        with pytest.raises(Misconfigured, match="permissions violation"):
            await bus.flush()


@pytest.mark.parametrize(
    ("role", "subject"),
    [
        (Role.PRESENCE, "_INBOX.gateway.>"),
        (Role.PRESENCE, "_INBOX.>"),
        (Role.PRESENCE, "lp.out.>"),
        (Role.METRICS, "lp.out.user.*"),
        (Role.AGENT, ">"),
        (Role.AGENT, "lp.logs.feed"),
        (Role.GATEWAY, "lp.in.>"),
        (Role.GATEWAY, "lp.ticket.*"),
        (Role.GATEWAY, "lp.rpc.>"),
        (Role.PRESENCE, "lp.rpc.presence.list"),
        (Role.APP, "lp.service.presence.list"),
        (Role.APP, "lp.service.>"),
        (Role.APP, "lp.>"),
        (Role.APP, "lp.out.>"),
        (Role.APP, "_INBOX.gateway.>"),
    ],
)
async def test_what_a_role_may_not_hear(nats: NatsServer, role: Role, subject: str) -> None:
    async with connected(nats.url_of(role), role) as bus:
        bus.subscribe(subject, lambda _message: None)
        with pytest.raises(Misconfigured, match="permissions violation"):
            await bus.flush()


# What the server itself answers to any reply subject, checking nothing. JetStream answers gateways alone, which have to
# ask it: they are trusted with what that allows (docs/security.md).
ASKING_JETSTREAM = ("$JS.API.", "lp.in.", "lp.ticket.")


def concrete(pattern: str) -> str:
    return ".".join("x" if word in ("*", ">") else word for word in pattern.split("."))


TARGETS = sorted(
    {
        concrete(subject)
        for role in Role
        for subjects in [subjects_of(role, SETTINGS)]
        for subject in (*subjects.publish, *subjects.subscribe)
    }
    | {
        "lp.in.room.default.den",
        "lp.in.user.ada",
        "lp.in.revoked.x",
        "lp.out.room.default.den",
        "lp.out.room.live.den",
        "lp.out.user.ada",
        "lp.presence.room.default.den",
        "lp.logs.report",
        "lp.probe.x",
        "lp.rpc.orders",
        "lp.rpc.orders.create",
        "lp.rpc.presence.list",
        "other.control",
        "$SYS.REQ.USER.INFO",
        "$SRV.PING",
        *(f"$JS.API.{what}" for what in ("INFO", "STREAM.NAMES", "STREAM.LIST")),
        *(
            f"$JS.API.{verb}.lp-rooms-default"
            for verb in (
                "STREAM.DELETE",
                "STREAM.PURGE",
                "STREAM.MSG.DELETE",
                "STREAM.SNAPSHOT",
                "CONSUMER.CREATE",
            )
        ),
        *(f"_INBOX.{role}.{answerer}.r.1" for role in Role for answerer in (*Role, "server")),
        *(f"_INBOX.{role}.r.1" for role in Role),
    }
)


@pytest.mark.parametrize("role", Role)
async def test_a_role_publishes_to_its_subjects_alone_plainly_and_by_reply(
    nats: NatsServer, role: Role
) -> None:
    own = subjects_of(role, SETTINGS)
    allowed = {target for target in TARGETS if any(matches(subject, target) for subject in own.publish)}
    asked = [subject for subject in map(concrete, own.publish) if not subject.startswith(ASKING_JETSTREAM)]
    async with raw_nats(nats.url) as spy, raw_nats(nats.url_of(role), answer=b"by reply") as thief:
        spy.subscribe(">")
        await spy.flush()
        for subject in own.subscribe:
            thief.subscribe(subject)
        for target in TARGETS:
            thief.publish(target, b"plainly")
        await thief.flush()
        await spy.flush()
        assert {subject for subject, _, payload in spy.seen if payload == b"plainly"} == allowed
        spy.seen.clear()
        for target in TARGETS:
            for subject in (*asked, *sorted(set(TARGETS) - allowed)):
                thief.publish(subject, b"a question", reply=target)
        for _ in range(3):  # what it hears it answers, and what it answers it may hear
            await thief.flush()
            await spy.flush()
        # JetStream says for itself that it was asked.
        heard = {subject for subject, _, _ in spy.seen if not subject.startswith("$JS.EVENT.")}
        assert heard <= allowed, f"{role} reached {sorted(heard - allowed)}"


@pytest.mark.parametrize("role", Role)
async def test_a_role_hears_its_subjects_alone(nats: NatsServer, role: Role) -> None:
    own = subjects_of(role, SETTINGS)
    async with raw_nats(nats.url) as operator, raw_nats(nats.url_of(role)) as listener:
        for target in TARGETS:
            listener.subscribe(target)
        listener.subscribe(">")
        listener.subscribe("_INBOX.>")
        await listener.flush()
        for target in TARGETS:
            operator.publish(target, b"a secret")
        await operator.flush()
        await listener.flush()
        heard = {subject for subject, _, _ in listener.seen}
        assert heard == {
            target for target in TARGETS if any(matches(subject, target) for subject in own.subscribe)
        }


async def test_traces_of_messages_go_where_the_role_may_publish(nats: NatsServer) -> None:
    async with raw_nats(nats.url) as spy, raw_nats(nats.url_of(Role.AGENT)) as thief:
        spy.subscribe(">")
        await spy.flush()
        head = b"NATS/1.0\r\nNats-Trace-Dest: lp.control\r\n\r\n"
        thief.writer.write(b"HPUB lp.metrics.report %d %d\r\n%b\r\n" % (len(head), len(head), head))
        await thief.flush()
        await spy.flush()
        assert not [subject for subject, _, _ in spy.seen if subject == "lp.control"]


async def test_the_proof_delivers_nothing(nats: NatsServer) -> None:
    async with raw_nats(nats.url) as spy:
        spy.subscribe("lp.>")
        spy.subscribe("$JS.>")
        await spy.flush()
        for role in Role:
            async with connected(nats.url_of(role), role) as bus:
                assert bus.stats.permission_violations == 0
        await spy.flush()
        assert {subject.split(".")[1] for subject, _, _ in spy.seen} <= {"probe"}


async def test_services_answer_roles_and_tools(nats: NatsServer) -> None:
    """Monitoring too, and tools that know nothing of our inboxes: their reply subjects have two or three tokens."""
    settings = Settings(prefix="lp", nats_url=nats.url_of(Role.PRESENCE))
    async with (
        connected(nats.url_of(Role.PRESENCE), Role.PRESENCE) as presence,
        connected(nats.url_of(Role.GATEWAY), Role.GATEWAY) as gateway,
        connected(nats.url, None) as operator,
        raw_nats(nats.url) as tool,
    ):
        service = Service(presence, settings, "presence")
        service.endpoint(PRESENCE_LIST, _listed)
        await service.start()
        assert (await call(gateway, settings.subjects, PRESENCE_LIST, PresenceQuery())).users == []
        assert (await call(operator, settings.subjects, PRESENCE_LIST, PresenceQuery())).users == []
        for verb in ("PING", "INFO", "STATS"):
            for inbox in (f"_INBOX.{verb}", f"_INBOX.{verb}.1"):
                tool.subscribe(inbox)
                tool.publish(f"$SRV.{verb}.tidings-presence", reply=inbox)
        await eventually(lambda: len(tool.seen) == 6, "answers to a tool")
        await service.stop()


@pytest.mark.parametrize("subject", ["lp.roster", "lp.control"])
async def test_gateways_answer_gateways(nats: NatsServer, subject: str) -> None:
    url = nats.url_of(Role.GATEWAY)
    async with connected(url, Role.GATEWAY) as one, connected(url, Role.GATEWAY) as other:
        other.subscribe(subject, lambda message: other.publish(message.reply, b"here"))
        await other.flush()
        assert (await one.request(subject, b"", timeout_s=PATIENCE_S)).data == b"here"
        await other.flush()


async def test_no_role_answers_for_another(nats: NatsServer) -> None:
    """metrics receives a gateway's requests to metrics, and with them no reply subject of JetStream."""
    async with (
        connected(nats.url_of(Role.GATEWAY), Role.GATEWAY) as gateway,
        raw_nats(nats.url_of(Role.METRICS)) as metrics,
        raw_nats(nats.url) as spy,
    ):
        spy.subscribe("_INBOX.>")
        metrics.subscribe("lp.service.metrics.*")
        await metrics.flush()
        await spy.flush()
        with pytest.raises(NoAnswer):
            await gateway.request("lp.service.metrics.state", b"", timeout_s=0.2)
        (reply,) = {reply for _, reply, _ in metrics.seen}
        metrics.publish(reply, b"mine to give")
        for answerer in ("server", "presence", "gateway"):
            metrics.publish(reply.replace("metrics", answerer), b"forged")
        await metrics.flush()
        await spy.flush()
        assert [payload for _, _, payload in spy.seen] == [b"mine to give"]


async def test_both_versions_work_with_the_users_for_a_roll_out(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "rolling", password="o")
    passwords = {role.value: "p" for role in Role} | {OPERATOR: "o"}
    server._authorization = lambda: nats_users(SETTINGS, passwords, rolling=True)  # type: ignore[method-assign]
    with server:
        for role in set(Role) - {Role.APP}:  # no part of the version before
            url = f"nats://{role}:p@127.0.0.1:{server.port}"
            async with connected(url, role), raw_nats(url) as old:
                old.subscribe("lp.probe.x")
                old.publish("lp.probe.x", b"1")
                old.publish("lp.logs.report", b"{}")
                await old.flush()
                assert old.refused == []
                assert old.seen == [("lp.probe.x", "", b"1")]


async def _listed(_query: object) -> PresencePage:
    return PresencePage(epoch="e", version=1, users=[])


async def test_services_answer_both_versions_during_a_roll_out_and_no_application_does(
    tmp_path: Path,
) -> None:
    """The version before asks `PREFIX.rpc.SERVICE.ENDPOINT`, where methods of applications are asked now."""
    server = NatsServer(tmp_path / "rolling", password="o")
    passwords = {role.value: "p" for role in Role} | {OPERATOR: "o"}
    server._authorization = lambda: nats_users(SETTINGS, passwords, rolling=True)  # type: ignore[method-assign]
    with server:

        def url_of(role: Role) -> str:
            return f"nats://{role}:p@127.0.0.1:{server.port}"

        async with (
            connected(url_of(Role.PRESENCE), Role.PRESENCE) as presence,
            connected(url_of(Role.GATEWAY), Role.GATEWAY) as gateway,
            connected(url_of(Role.APP), Role.APP) as app,
            raw_nats(url_of(Role.APP)) as thief,
        ):
            service = Service(presence, SETTINGS, "presence")
            service.endpoint(PRESENCE_LIST, _listed)
            await service.start()
            heard: list[str] = []
            app.subscribe("lp.rpc.>", lambda message: heard.append(message.subject), queue="q")
            await app.flush()
            for subject in ("lp.rpc.presence.list", "lp.rpc.presence.>", "lp.rpc.*.list"):
                thief.subscribe(subject)
            await thief.flush()
            for _ in range(20):
                answer = await gateway.request("lp.rpc.presence.list", b"{}", timeout_s=PATIENCE_S)
                assert b'"epoch":"e"' in answer.data
            assert (await call(gateway, SETTINGS.subjects, PRESENCE_LIST, PresenceQuery())).epoch == "e"
            gateway.publish("lp.rpc.orders", b"{}")
            await eventually(lambda: bool(heard), "a call")
            assert heard == ["lp.rpc.orders"]
            assert thief.seen == []
            await service.stop()
            with pytest.raises(NoAnswer, match="no responders"):
                await gateway.request("lp.rpc.presence.list", b"{}", timeout_s=PATIENCE_S)


async def test_after_a_roll_out_services_answer_one_version(nats: NatsServer) -> None:
    """What they may not answer any more is no fault of theirs."""
    async with (
        connected(nats.url_of(Role.PRESENCE), Role.PRESENCE) as presence,
        connected(nats.url_of(Role.GATEWAY), Role.GATEWAY) as gateway,
    ):
        service = Service(presence, SETTINGS, "presence")
        service.endpoint(PRESENCE_LIST, _listed)
        await service.start()
        assert presence.stats.permission_violations == 0
        with pytest.raises(NoAnswer, match="no responders"):
            await gateway.request("lp.rpc.presence.list", b"{}", timeout_s=PATIENCE_S)
        assert (await call(gateway, SETTINGS.subjects, PRESENCE_LIST, PresenceQuery())).epoch == "e"
        await service.stop()


async def test_the_proof_names_what_is_missing(tmp_path: Path) -> None:
    passwords = {role.value: "p" for role in Role} | {OPERATOR: "o"}
    users = nats_users(SETTINGS, passwords)
    lacking = users.replace('        "lp.control",\n', "").replace('        "lp.roster",\n', "", 1)
    server = NatsServer(tmp_path / "lacking", password="o")
    server._authorization = lambda: lacking  # type: ignore[method-assign]
    with server, pytest.raises(Misconfigured) as caught:
        async with connected(f"nats://gateway:p@127.0.0.1:{server.port}", Role.GATEWAY):
            pass
    assert "publish lp.control" in str(caught.value)
    assert "subscribe lp.control" in str(caught.value)
    assert "publish lp.roster" in str(caught.value)
    assert "lp.out.broadcast" not in str(caught.value)


async def test_another_deployments_user_is_found_out(nats: NatsServer) -> None:
    with pytest.raises(BusError, match=r"refused|lacks|violation"):
        await Bus.connect(
            Settings(prefix="others", nats_url=nats.url_of(Role.GATEWAY)), "test", role=Role.GATEWAY
        )


# --- Redis ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_may_use_its_keys_and_no_others(store: RedisServer, role: Role) -> None:
    own = access_of(role, SETTINGS).key_prefix
    other = access_of(next(one for one in ROLES if one is not role), SETTINGS).key_prefix
    async with redis.asyncio.Redis.from_url(store.url_of(role), client_name="x") as client:
        await prove_redis(client, role, SETTINGS)
        await client.set(f"{own}:x", "1")
        assert await client.eval("return redis.call('GET', KEYS[1])", 1, f"{own}:x") == b"1"
        await client.info()
        for forbidden in (
            ("GET", f"{other}:x"),
            ("SET", "x", "1"),
            ("EVAL", "return redis.call('GET', ARGV[1])", "0", f"{other}:x"),
            ("EVAL", "return redis.call('KEYS', '*')", "0"),
            ("KEYS", "*"),
            ("FLUSHALL",),
            ("FLUSHDB",),
            ("CONFIG", "GET", "*"),
            ("CONFIG", "SET", "dir", "/"),
            ("ACL", "LIST"),
            ("SHUTDOWN",),
            ("SCRIPT", "FLUSH"),
            ("PUBLISH", "x", "y"),
            ("CLIENT", "KILL", "127.0.0.1:1"),
            ("REPLICAOF", "127.0.0.1", "1"),
            ("MODULE", "LIST"),
            ("FUNCTION", "FLUSH"),
            ("MONITOR",),
            ("MIGRATE", "127.0.0.1", "1", f"{own}:x", "0", "1"),
        ):
            with pytest.raises(
                redis.exceptions.ResponseError, match=r"(?i)no permissions|can't access|can't run"
            ):
                await client.execute_command(*forbidden)


SCRIPTS = sorted(
    [*(ROOT / "presence_svc" / "lua").glob("*.lua"), *(ROOT / "metrics_svc" / "lua").glob("*.lua")]
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
async def test_every_command_in_the_scripts_is_allowed(store: RedisServer, path: Path) -> None:
    role = Role.PRESENCE if "presence_svc" in path.parts else Role.METRICS
    used = set(re.findall(r"['\"]([A-Z]{3,})['\"]", await asyncio.to_thread(path.read_text)))
    async with redis.asyncio.Redis.from_url(store.url) as operator:
        known = await operator.command()
        arity = {name.upper(): abs(entry["arity"]) for name, entry in known.items()}
        key = f"{access_of(role, SETTINGS).key_prefix}:x"
        for name in used & set(arity):
            arguments = [key, *["1"] * (arity[name] - 2)] if arity[name] > 1 else []
            verdict = await operator.execute_command("ACL", "DRYRUN", role, name, *arguments)
            assert verdict in (b"OK", "OK"), (name, verdict)


@pytest.fixture(params=["asked", "tried"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the proof finds out: `tried`, as at servers before 7, works at all of them."""
    if request.param == "tried":
        choice = "redis.acl_check_cmd and asked or tried"
        assert choice in redis_client._CHECK_RIGHTS
        monkeypatch.setattr(
            redis_client, "_CHECK_RIGHTS", redis_client._CHECK_RIGHTS.replace(choice, "tried")
        )
    return str(request.param)


@pytest.mark.usefixtures("way")
async def test_the_proof_leaves_nothing_behind(store: RedisServer) -> None:
    for role in ROLES:
        async with redis.asyncio.Redis.from_url(store.url_of(role)) as client:
            await prove_redis(client, role, SETTINGS)
            assert not await client.exists(f"{access_of(role, SETTINGS).key_prefix}:probe")


@pytest.mark.usefixtures("way")
async def test_the_proof_names_commands_that_are_missing(store: RedisServer) -> None:
    async with redis.asyncio.Redis.from_url(store.url) as operator:
        digest = hashlib.sha256(b"p").hexdigest()
        await operator.execute_command(
            "ACL",
            "SETUSER",
            "poor",
            "on",
            f"#{digest}",
            "~{lp:presence}*",
            "+@read",
            "+eval",
            "+evalsha",
            "+client|setname",
        )
        async with redis.asyncio.Redis.from_url(f"redis://poor:p@127.0.0.1:{store.port}/0") as poor:
            with pytest.raises(Misconfigured) as caught:
                await prove_redis(poor, Role.PRESENCE, SETTINGS)
    for command in ("HSET", "ZADD", "DEL"):
        assert command in str(caught.value)
    assert "HGETALL" not in str(caught.value)


# --- what deployments are given -----------------------------------------------------------------------------------


def test_the_deployments_users_are_those_of_the_code() -> None:
    assert (ROOT / "deploy" / "nats" / "users.conf").read_text() == nats_template(Settings()), (
        "run: make docs"
    )
    assert (ROOT / "deploy" / "redis" / "users.conf.template").read_text() == redis_template(Settings()), (
        "run: make docs"
    )


@contextmanager
def running(*command: str, cwd: Path, **variables: str) -> Iterator[None]:
    process = subprocess.Popen(
        command, env=os.environ | variables, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


async def test_the_deployments_users_work_at_nats(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "nats.conf"
    (tmp_path / "users.conf").write_text(nats_template(Settings()))
    config.write_text(
        f'host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: "{tmp_path}" }}\ninclude "users.conf"\n'
    )
    users = [*Role, "operator"]
    variables = {f"NATS_{user.upper()}_PASSWORD": f"secret-of-{user}" for user in users}
    with running(need("nats-server"), "-c", str(config), cwd=tmp_path, **variables):
        for role in Role:
            url = f"nats://{role}:secret-of-{role}@127.0.0.1:{port}"
            bus = await Bus.connect(Settings(nats_url=url), "test", role=role)
            await bus.close()
        async with raw_nats(f"nats://{OPERATOR}:secret-of-operator@127.0.0.1:{port}") as operator:
            operator.subscribe(">")
            await operator.flush()
            assert operator.refused == []


async def test_the_deployments_users_work_at_redis(tmp_path: Path) -> None:
    port = free_port()
    text = redis_template(Settings())
    for role in ROLES:
        text = text.replace(f"${{REDIS_{role.upper()}_PASSWORD}}", f"secret-of-{role}")
    (tmp_path / "users.conf").write_text(text)
    (tmp_path / "redis.conf").write_text(f'port {port}\nbind 127.0.0.1\nsave ""\ninclude users.conf\n')
    with running(need("redis-server"), "redis.conf", cwd=tmp_path):
        for role in ROLES:
            async with redis.asyncio.Redis.from_url(
                f"redis://{role}:secret-of-{role}@127.0.0.1:{port}/0"
            ) as client:

                async def proven(client: redis.asyncio.Redis = client, role: Role = role) -> bool:
                    try:
                        await prove_redis(client, role, Settings())
                    except redis.exceptions.ConnectionError:
                        return False
                    return True

                await eventually(proven, "Redis to answer")
        async with redis.asyncio.Redis(port=port) as nobody:
            with pytest.raises(redis.exceptions.AuthenticationError):
                await nobody.ping()
