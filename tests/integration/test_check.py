"""`tidings check` names each problem and its fix; each problem is real here."""

import datetime
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from services.bus.client import Bus
from services.permissions import Role
from services.settings import Settings
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.docs import ROOT
from tests.support.requires import need
from tests.support.trace_receiver import trace_receiver
from tidings_cli.certificates import make_authority
from tidings_cli.check import as_json, run_checks
from tidings_cli.checks.outcome import Outcome, Verdict, clock
from tidings_cli.local.processes import free_port
from tidings_cli.local.servers import NatsServer, RedisServer

pytestmark = pytest.mark.xdist_group("check")

Make = Callable[..., Settings]


async def _found(settings: Settings, name: str, role: Role | None = None) -> Outcome:
    """Return the outcome of that name: the worst, where there are several."""
    outcomes = [outcome for outcome in await run_checks(settings, role) if outcome.name == name]
    assert outcomes, f"nothing is said of {name}"
    return max(outcomes, key=lambda outcome: list(Verdict).index(outcome.verdict))


def _is(outcome: Outcome, verdict: Verdict, detail: str, advice: str = "") -> None:
    assert outcome.verdict is verdict, outcome
    assert detail in outcome.detail, outcome
    assert advice in outcome.advice, outcome
    assert bool(outcome.advice) is (verdict is not Verdict.OK), (
        "what is wrong is not all: what is to be done?"
    )


@contextmanager
def _serving(status: int = 200, body: str = "", seen: list[str] | None = None) -> Iterator[str]:
    """Run an HTTP server that answers everything alike, and notes what was asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if seen is not None:
                seen.append(f"{self.command} {self.path}")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


# --- all is well ---


async def test_all_is_well(make_settings: Make) -> None:
    outcomes = await run_checks(make_settings(session_secret="s" * 32))
    assert {outcome.name for outcome in outcomes if outcome.verdict is not Verdict.OK} <= {
        "file descriptors",
        "accept queue",
    }
    assert {outcome.name for outcome in outcomes} >= {
        "configuration", "access", "file descriptors", "port", "NATS", "NATS login", "NATS permissions", "JetStream",
        "streams", "processes", "Redis", "Redis permissions", "Redis memory", "Redis persistence", "clock of Redis",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("role", "absent"),
    [
        (Role.GATEWAY, {"Redis", "JetStream"}),
        (Role.PRESENCE, {"port", "access", "streams"}),
        (Role.METRICS, {"port", "access", "streams"}),
        (Role.AGENT, {"port", "Redis", "streams"}),
    ],
)
async def test_each_process_is_checked_as_its_own_user(tmp_path: Path, role: Role, absent: set[str]) -> None:
    need("nats-server")
    need("redis-server")
    own = Settings(prefix="checked")
    with (
        NatsServer(tmp_path / "nats", settings=own) as nats,
        RedisServer(tmp_path / "redis", settings=own) as store,
    ):
        urls = {"nats_url": nats.url_of(role)}
        if role in (Role.PRESENCE, Role.METRICS):
            urls["redis_url"] = store.url_of(role)
        settings = own.model_copy(
            update={**urls, "port": 0, "session_secret": Settings(session_secret="s" * 32).session_secret}
        )
        outcomes = await run_checks(settings, role)
        assert [outcome for outcome in outcomes if not outcome.ok] == []
        assert not absent & {outcome.name for outcome in outcomes}
        # Without a named process, the user of one process is not enough, and the check says why.
        _is(
            await _found(settings, "NATS login"),
            Verdict.FAIL,
            "permissions violation",
            "tidings check gateway",
        )


def test_the_command_prints_json_and_ends_by_what_it_found(make_settings: Make) -> None:
    settings = make_settings()
    environment = {
        **os.environ,
        "TIDINGS_NATS_URL": settings.nats_url,
        "TIDINGS_REDIS_URL": settings.redis_url,
        "TIDINGS_PORT": "0",
    }
    command = [sys.executable, "-m", "tidings_cli", "check", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], done.stderr) == (0, True, "")
    assert set(report["checks"][0]) == {"name", "verdict", "detail", "advice", "latencyMs"}
    environment["TIDINGS_REDIS_URL"] = f"redis://:topsecret@127.0.0.1:{free_port()}"
    done = subprocess.run(command[:-1], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "→ start it, or correct TIDINGS_REDIS_URL" in done.stdout
    assert "topsecret" not in done.stdout


# --- NATS ---


async def test_nats_is_not_there(make_settings: Make) -> None:
    settings = make_settings(nats_url=f"nats://127.0.0.1:{free_port()}")
    _is(await _found(settings, "NATS"), Verdict.FAIL, "Connection refused", "TIDINGS_NATS_URL")


async def test_one_of_several_servers_is_away(make_settings: Make, nats_server: NatsServer) -> None:
    settings = make_settings(nats_url=f"{nats_server.url},nats://127.0.0.1:{free_port()}")
    _is(await _found(settings, "NATS"), Verdict.WARN, "Connection refused", "bring it back")
    assert (await _found(settings, "NATS login")).ok


async def test_the_nats_password_is_wrong(make_settings: Make, nats_server: NatsServer) -> None:
    settings = make_settings(nats_url=f"nats://tidings:topsecret@127.0.0.1:{nats_server.port}")
    outcome = await _found(settings, "NATS login")
    _is(outcome, Verdict.FAIL, "refuses the credentials", "correct the login")
    assert "topsecret" not in as_json([outcome])


async def test_nats_permits_too_little(make_settings: Make, tmp_path: Path) -> None:
    need("nats-server")
    with NatsServer(tmp_path, settings=Settings(prefix="other")) as server:
        settings = make_settings(nats_url=server.url_of(Role.GATEWAY))
        outcome = await _found(settings, "NATS login", Role.GATEWAY)
        _is(outcome, Verdict.FAIL, "permissions", "what the server permits")


async def test_nats_takes_too_little_and_has_too_few_servers(make_settings: Make, tmp_path: Path) -> None:
    need("nats-server")
    with NatsServer(tmp_path, extra_config="max_payload: 4096") as server:
        settings = make_settings(nats_url=server.url, replicas=3)
        _is(await _found(settings, "message size"), Verdict.FAIL, "accepts 4096 bytes", "raise max_payload")
        _is(await _found(settings, "replicas"), Verdict.FAIL, "belongs to no cluster", "run 3 servers")


class _Small(NatsServer):
    def _configuration(self) -> str:
        return re.sub(r"max_file_store: \d+", "max_file_store: 2000000", super()._configuration())


async def test_a_full_store_is_reported(make_settings: Make, tmp_path: Path) -> None:
    need("nats-server")
    with _Small(tmp_path) as server:
        settings = make_settings(nats_url=server.url)
        assert (await _found(settings, "JetStream store")).ok
        bus = await Bus.connect(settings, "test")
        somebodys = json.dumps({"name": "S", "subjects": ["s.*"], "storage": "file"}).encode()
        await bus.request("$JS.API.STREAM.CREATE.S", somebodys, timeout_s=PATIENCE_S)
        answers = [(await bus.request(f"s.{n}", bytes(65_536), timeout_s=PATIENCE_S)).data for n in range(40)]
        assert b"insufficient resources" in answers[-1]
        _is(await _found(settings, "JetStream store"), Verdict.FAIL, "is refused", "max_file_store")
        streams = (await bus.request("$JS.API.STREAM.NAMES", b"", timeout_s=PATIENCE_S)).data
        assert json.loads(streams)["streams"] == ["S"]  # it left none behind
        await bus.close()


async def test_what_a_stream_has_is_compared_with_the_settings(make_settings: Make, tmp_path: Path) -> None:
    need("nats-server")
    with NatsServer(tmp_path) as server:
        settings = make_settings(nats_url=server.url)
        bus = await Bus.connect(settings, "test")
        stream = settings.subjects.rooms_stream("default")
        config = {
            "name": stream, "subjects": [settings.subjects.rooms_captured("default")], "max_msgs_per_subject": 7,
            "max_age": 600_000_000_000, "discard": "old", "max_bytes": 4096, "allow_direct": True,
        }  # fmt: skip
        await bus.request(
            f"$JS.API.STREAM.CREATE.{stream}", json.dumps(config).encode(), timeout_s=PATIENCE_S
        )
        for number in range(9):
            subject = settings.subjects.room_in("default", f"r{number}")
            await bus.request(subject, bytes(900), timeout_s=PATIENCE_S)
        said = [one for one in await run_checks(settings) if one.name == f"stream {stream}"]
        assert [one.verdict for one in said] == [Verdict.WARN, Verdict.WARN]
        assert "max_msgs_per_subject 7 (settings: 100)" in said[0].detail
        assert "of 4096 bytes" in said[1].detail
        await bus.close()


class _WithoutJetStream(NatsServer):
    def _configuration(self) -> str:
        return "\n".join(
            line for line in super()._configuration().splitlines() if not line.startswith("jetstream")
        )


async def test_jetstream_is_off(make_settings: Make, tmp_path: Path) -> None:
    need("nats-server")
    with _WithoutJetStream(tmp_path) as server:
        settings = make_settings(nats_url=server.url)
        _is(await _found(settings, "NATS"), Verdict.FAIL, "without JetStream", "JetStream enabled")


# --- Redis ---


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    need("redis-server")
    with RedisServer(tmp_path / "redis") as server:
        yield server


def _configure(server: RedisServer, **options: object) -> None:
    with redis.Redis.from_url(server.url) as client:
        for name, value in options.items():
            client.config_set(name.replace("_", "-"), str(value))


async def test_redis_is_not_there(make_settings: Make) -> None:
    settings = make_settings(redis_url=f"redis://127.0.0.1:{free_port()}")
    _is(await _found(settings, "Redis"), Verdict.FAIL, "cannot be used", "TIDINGS_REDIS_URL")


async def test_the_redis_password_is_wrong(make_settings: Make, redis_server: RedisServer) -> None:
    settings = make_settings(redis_url=f"redis://default:topsecret@127.0.0.1:{redis_server.port}/0")
    outcome = await _found(settings, "Redis")
    _is(outcome, Verdict.FAIL, "refuses the login", "correct user and password")
    assert "topsecret" not in as_json([outcome])


async def test_redis_permits_too_little(make_settings: Make, tmp_path: Path) -> None:
    need("redis-server")
    with RedisServer(tmp_path, settings=Settings(prefix="checked")) as server:
        settings = make_settings(redis_url=server.url_of(Role.PRESENCE))
        _is(
            await _found(settings, "Redis permissions", Role.METRICS),
            Verdict.FAIL,
            "",
            "tidings permissions redis",
        )


async def test_redis_may_evict_is_nearly_full_or_keeps_nothing(
    make_settings: Make, store: RedisServer
) -> None:
    settings = make_settings(redis_url=store.url)
    _configure(store, maxmemory="100mb", maxmemory_policy="allkeys-lru")
    _is(await _found(settings, "Redis memory"), Verdict.FAIL, "allkeys-lru", "noeviction")
    with redis.Redis.from_url(store.url) as client:
        used = client.info()["used_memory"]
    _configure(store, maxmemory=used + 50_000, maxmemory_policy="noeviction")
    _is(await _found(settings, "Redis memory"), Verdict.WARN, "bytes", "raise maxmemory")
    _configure(store, maxmemory=0, appendonly="no")
    _is(await _found(settings, "Redis persistence"), Verdict.WARN, "no append-only file", "appendonly yes")


async def test_redis_cannot_save(make_settings: Make, store: RedisServer) -> None:
    with redis.Redis.from_url(store.url) as client:
        shutil.rmtree(store.directory)  # nothing can be written there any more
        client.bgsave()
        await eventually(lambda: not client.info("persistence")["rdb_bgsave_in_progress"], "the attempt")
    settings = make_settings(redis_url=store.url)
    _is(await _found(settings, "Redis persistence"), Verdict.FAIL, "the last attempt failed", "free space")


async def test_redis_is_a_replica(make_settings: Make, store: RedisServer, redis_server: RedisServer) -> None:
    _configure(store, masterauth=redis_server.password)
    with redis.Redis.from_url(store.url) as client:
        client.replicaof("127.0.0.1", str(redis_server.port))
    outcome = await _found(make_settings(redis_url=store.url), "Redis replication")
    _is(outcome, Verdict.FAIL, "takes no writes", "redis+sentinel")


# --- this machine and the settings ---


async def test_another_program_has_the_port(make_settings: Make) -> None:
    with _serving(body="{}") as url:
        port = int(url.rpartition(":")[2])
        outcome = await _found(make_settings(port=port), "port")
        _is(outcome, Verdict.FAIL, "in use by another program", "choose another TIDINGS_PORT")
    with _serving(body='{"status":"ready","checks":{}}') as url:  # as a gateway answers
        port = int(url.rpartition(":")[2])
        _is(await _found(make_settings(port=port), "port"), Verdict.OK, "a process of Tidings runs there")


async def test_the_address_is_another_machines(make_settings: Make) -> None:
    settings = make_settings(host="192.0.2.1", port=8080, auth="jwt", jwt_secrets=["s" * 32])
    _is(await _found(settings, "port"), Verdict.FAIL, "not an address of this machine", "TIDINGS_HOST")


def test_there_are_few_file_descriptors() -> None:
    program = """
import resource, tidings_cli.checks.machine as machine
resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))
print(machine._descriptors())
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for part in ("WARN", "some 936 connections", "ulimit -Hn"):
        assert part.lower() in said.lower()


@pytest.mark.parametrize(
    ("given", "verdict", "detail"),
    [
        ({"auth": "jwt", "jwt_secrets": ["s" * 32]}, Verdict.WARN, "no API key"),
        ({}, Verdict.WARN, "its own session secret"),
    ],
)
async def test_settings_contradict_each_other(
    make_settings: Make, given: dict[str, Any], verdict: Verdict, detail: str
) -> None:
    _is(await _found(make_settings(**given), "access"), verdict, detail)


async def test_nothing_is_tried_where_no_process_could_work(make_settings: Make) -> None:
    outcomes = await run_checks(make_settings(auth="jwt", nats_url="nats://127.0.0.1:1"))
    assert [(one.name, one.verdict) for one in outcomes] == [
        ("configuration", Verdict.OK),
        ("TIDINGS_AUTH", Verdict.FAIL),
    ]


async def test_a_misspelled_variable_is_named(make_settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_JWT_SECRET", "x")
    (said,) = [one for one in await run_checks(make_settings(auth="jwt")) if one.verdict is Verdict.WARN]
    assert "did you mean TIDINGS_JWT_SECRETS?" in said.detail


async def test_certificates_and_rules(make_settings: Make, tmp_path: Path) -> None:
    cert, key, rules = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "rules.toml"
    rules.write_text("[[rules]\n", encoding="utf-8")
    settings = make_settings(tls_cert=cert, tls_key=key, rules_file=rules)
    _is(await _found(settings, "certificate"), Verdict.FAIL, "cannot be used", "readable")
    _is(await _found(settings, "rules file"), Verdict.FAIL, "cannot be read", "built-in")
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(cert)
    rules.write_text("rules = []\n", encoding="utf-8")
    assert (await _found(settings, "certificate")).detail.startswith("valid until")
    assert (await _found(settings, "rules file")).ok
    certificates, now = tmp_path / "ca.pem", datetime.datetime.now(datetime.UTC)
    for days, verdict in ((3640, Verdict.WARN), (3660, Verdict.FAIL), (0, Verdict.OK)):
        made = make_authority(now - datetime.timedelta(days=days))
        certificates.write_bytes(make_authority(now).certificate + made.certificate)
        assert (await _found(make_settings(nats_ca=certificates), "TIDINGS_NATS_CA")).verdict is verdict


async def test_an_open_gateway_beyond_loopback_is_pointed_out(make_settings: Make) -> None:
    settings = make_settings(host="0.0.0.0", open_beyond_loopback=True)  # noqa: S104
    _is(await _found(settings, "access"), Verdict.WARN, "has all rights", "TIDINGS_AUTH=jwt")


@pytest.mark.parametrize(
    ("skew_s", "verdict"), [(0.1, Verdict.OK), (-4, Verdict.WARN), (4, Verdict.WARN), (-90, Verdict.FAIL)]
)
def test_clocks_differ(skew_s: float, verdict: Verdict) -> None:
    _is(
        clock("clock", 1000 + skew_s, 1000),
        verdict,
        "this machine's",
        "" if verdict is Verdict.OK else "time service",
    )


# --- what is reached by HTTP ---


@pytest.mark.parametrize(
    ("status", "body", "verdict", "detail"),
    [
        (200, '{"keys": [{"kty": "EC"}]}', Verdict.OK, "1 at"),
        (200, '{"keys": [{"kty": "oct"}]}', Verdict.FAIL, "no key that could verify"),
        (200, "<html>", Verdict.FAIL, "is not a set of keys"),
        (302, "", Verdict.FAIL, "answers 302"),
        (503, "", Verdict.FAIL, "answers 503"),
    ],
)
async def test_public_keys(
    make_settings: Make, status: int, body: str, verdict: Verdict, detail: str
) -> None:
    with _serving(status, body) as url:
        settings = make_settings(auth="jwt", jwks_url=f"{url}/jwks.json", jwt_issuer="https://issuer")
        _is(await _found(settings, "public keys of https://issuer"), verdict, detail)


async def test_public_keys_out_of_reach(make_settings: Make) -> None:
    settings = make_settings(auth="jwt", jwks_url=f"http://127.0.0.1:{free_port()}/", jwt_issuer="https://i")
    _is(await _found(settings, "public keys of https://i"), Verdict.FAIL, "cannot be reached", "503")


async def test_the_application_of_hooks(make_settings: Make) -> None:
    with _serving() as url:
        settings = make_settings(hooks=["connect"], hooks_secrets=["s"], hooks_url=url)
        assert (await _found(settings, "hooks")).ok
    settings = make_settings(
        hooks=["join"], hooks_secrets=["s"], hooks_url=f"http://127.0.0.1:{free_port()}/"
    )
    _is(await _found(settings, "hooks"), Verdict.FAIL, "cannot be reached", "TIDINGS_HOOKS_ON_FAILURE")


async def test_receivers_are_connected_to_and_sent_nothing(make_settings: Make) -> None:
    seen: list[str] = []
    away = f"http://user:topsecret@127.0.0.1:{free_port()}/capability"
    with _serving(seen=seen) as url:
        settings = make_settings(
            webhook_urls=[url, away],
            presence_webhook_urls=[url],
            presence_webhook_secrets=["s"],
            alertmanager_urls=[url],
        )
        outcomes = await run_checks(settings)
    of = {
        name: [one for one in outcomes if one.name == name]
        for name in ("alert webhook", "presence webhook", "Alertmanager")
    }
    assert [one.ok for one in of["alert webhook"]] == [True, False]
    _is(of["alert webhook"][1], Verdict.FAIL, "Connection refused", "make sure that it runs")
    assert of["presence webhook"][0].ok
    assert of["Alertmanager"][0].ok
    assert seen == ["GET /-/ready"]
    assert "topsecret" not in as_json(outcomes)
    assert "capability" not in as_json(outcomes)


async def test_the_collector_of_traces(make_settings: Make) -> None:
    with trace_receiver() as collector:
        _is(await _found(make_settings(traces_endpoint=collector.url), "traces"), Verdict.OK, "takes spans")
        assert (collector.posts, collector.spans) == (1, [])
        wrong = await _found(make_settings(traces_endpoint=f"{collector.url}/elsewhere"), "traces")
    _is(wrong, Verdict.WARN, "answers 404", "OTLP over HTTP")
