"""Streams are backed up while gateways run, and restored after a total loss, in a new epoch."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from websockets.sync.client import connect

from services.bus.client import Bus
from services.bus.specs import StreamSpec
from services.bus.streams import DurableLog
from services.permissions import Role
from services.permissions.redis import access_of
from services.redis_client import close_redis, open_redis
from services.settings import Settings
from tests.support.bus import room_log, store
from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S, eventually, wait_until
from tests.support.deployment import Deployment, websocket_url
from tests.support.docs import ROOT
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_sentinels import SentinelSet
from tests.support.requires import need
from tidings_cli import CommandFailed
from tidings_cli.backup import back_up, restore
from tidings_cli.backup_redis import back_up_redis, restore_redis
from tidings_cli.local.processes import free_port
from tidings_cli.local.servers import NatsServer, RedisServer

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("backup")]


def _publish(gateway: ServiceProcess, text: str) -> dict[str, Any]:
    body = json.dumps({"room": "hall", "content": text}).encode()
    with urllib.request.urlopen(f"{gateway.url}/api/publish", body, timeout=10) as answer:  # noqa: S310  # our own
        return dict(json.load(answer))


def _history(gateway: ServiceProcess) -> dict[str, Any]:
    with urllib.request.urlopen(f"{gateway.url}/api/rooms/hall/history", timeout=10) as answer:  # noqa: S310  # our own
        return dict(json.load(answer))


def _join(gateway: ServiceProcess, **since: object) -> dict[str, Any]:
    with connect(websocket_url(gateway, "username=ada")) as socket:
        socket.send(json.dumps({"type": "join_room", "room": "hall", "since": since}))
        while (answer := json.loads(socket.recv(10)))["type"] != "joined_room":
            pass
    return dict(answer)


def _tidings(nats: NatsServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TIDINGS_NATS_URL": nats.url, "TIDINGS_PREFIX": "kept"}
    command = [sys.executable, "-m", "tidings_cli", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def test_everything_is_lost_and_recovers(tmp_path: Path) -> None:
    need("nats-server")
    folder = tmp_path / "backup"
    common = {
        "prefix": "kept",
        "redis_url": f"redis://127.0.0.1:{free_port()}",
        "gateways": 1,
        "services": False,
    }
    with NatsServer(tmp_path / "nats") as nats, Deployment(tmp_path, nats_url=nats.url, **common) as before:  # type: ignore[arg-type]
        gateway = before.gateways[0]
        kept = [_publish(gateway, f"kept {number}") for number in range(5)]
        done = _tidings(nats, "backup", str(folder))
        assert done.returncode == 0, done.stderr
        assert "kept-rooms-default: 5 messages" in done.stdout
        lost = _publish(gateway, "after the backup")
        # While it runs, nothing is replaced under it.
        with pytest.raises(CommandFailed, match=r"1 gateway\(s\) run: stop them"):
            asyncio.run(restore(Settings(nats_url=nats.url, prefix="kept"), folder, replace=True))
        assert _join(gateway, epoch=kept[-1]["epoch"], seq=kept[-1]["seq"])["recovered"] is True

    # Another server, with nothing in it.
    with NatsServer(tmp_path / "new nats") as nats:
        done = _tidings(nats, "restore", str(folder))
        assert done.returncode == 0, done.stderr
        assert "kept-rooms-default: 5 messages" in done.stdout
        with Deployment(tmp_path, nats_url=nats.url, **common) as after:  # type: ignore[arg-type]
            gateway = after.gateways[0]
            history = _history(gateway)
            assert [message["content"] for message in history["messages"]] == [f"kept {n}" for n in range(5)]
            assert history["epoch"] != kept[0]["epoch"]
            # Messages after the backup are lost, and their sequences are used again: clients must not confuse the two.
            assert _publish(gateway, "another")["seq"] == lost["seq"]
            assert _join(gateway, epoch=lost["epoch"], seq=lost["seq"])["recovered"] is False
            anew = _join(gateway, epoch=history["epoch"], seq=kept[-1]["seq"])
            assert (anew["recovered"], [one["content"] for one in anew["missed"]]) == (True, ["another"])
        settings = Settings(nats_url=nats.url, prefix="kept")
        with pytest.raises(CommandFailed, match="--replace"):
            asyncio.run(restore(settings, folder, replace=False))
        assert ": 5 messages," in asyncio.run(restore(settings, folder, replace=True))[0]


async def test_a_large_stream_travels_in_pieces(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings()
    subjects = settings.subjects
    spec = StreamSpec(
        subjects.inbox_stream,
        subjects.inboxes_captured,
        10_000,
        600,
        60,
        1,
    )
    bus = await Bus.connect(settings, "test")
    log = DurableLog(bus, spec)
    await log.open()
    for number in range(300):  # 12 MB that do not compress: more than the server sends unacknowledged
        bus.publish(subjects.user_in("ada"), os.urandom(40_000))
        if number % 50 == 49:
            await bus.flush()
    await eventually(lambda: _is_last(log, 300), "all are stored")
    (copied,) = await back_up(settings, tmp_path / "backup")
    messages, size = re.findall(r"\d+", copied.rpartition(":")[2])
    assert int(messages) == 300
    assert int(size) > 10_000_000
    (back,) = await restore(settings, tmp_path / "backup", replace=True)
    assert ": 300 messages," in back
    assert (await log.state()).last_seq == 300
    log.close()
    await bus.close()


class _NoMonitoring(NatsServer):
    """A NATS whose user may do everything but ask which services run."""

    def _authorization(self) -> str:
        return (
            f'authorization {{ users: [ {{ user: "tidings", password: "{self.password}", '
            'permissions: { publish: { allow: [">"], deny: ["$SRV.>"] }, subscribe: [">"] } } ] }'
        )


async def test_nothing_is_deleted_where_it_is_not_known_that_no_gateway_runs(tmp_path: Path) -> None:
    need("nats-server")
    with NatsServer(tmp_path / "nats", password="secret") as nats:
        settings = Settings(nats_url=nats.url, prefix="kept")
        await _one_message(settings)
        await back_up(settings, tmp_path / "backup")
        bus = await Bus.connect(settings, "frozen")
        bus.subscribe("$SRV.PING.tidings-gateway", lambda _ping: None)  # as a gateway that is paused
        await bus.flush()
        with pytest.raises(CommandFailed, match="does not answer"):
            await restore(settings, tmp_path / "backup", replace=True)
        await bus.close()
        port = nats.port
    with _NoMonitoring(tmp_path / "nats", port=port, password="secret") as nats:
        with pytest.raises(CommandFailed, match="permissions violation"):
            await restore(settings, tmp_path / "backup", replace=True)
        assert await _messages(settings) == 1


async def test_a_damaged_backup_replaces_nothing(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings()
    await _one_message(settings)
    folder = tmp_path / "backup"
    await back_up(settings, folder)
    data = folder / settings.subjects.rooms_stream("default") / "stream.tar.s2"
    whole = data.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        data.write_bytes(damaged)
        with pytest.raises(CommandFailed, match="is not what was backed up"):
            await restore(settings, folder, replace=True)
    data.unlink()
    with pytest.raises(CommandFailed, match="nothing was changed"):
        await restore(settings, folder, replace=True)
    assert await _messages(settings) == 1


async def _one_message(settings: Settings) -> None:
    bus = await Bus.connect(settings, "test")
    log = room_log(bus, settings)
    await log.open()
    await store(log, settings.subjects.room_in("default", "hall"), b"kept")
    log.close()
    await bus.close()


async def _messages(settings: Settings) -> int:
    bus = await Bus.connect(settings, "test")
    answer = await bus.request(
        f"$JS.API.STREAM.INFO.{settings.subjects.rooms_stream('default')}", b"", timeout_s=PATIENCE_S
    )
    await bus.close()
    return int(json.loads(answer.data)["state"]["messages"])


async def _is_last(log: DurableLog, seq: int) -> bool:
    return (await log.state()).last_seq == seq


async def test_errors_are_reported(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    settings = make_settings()
    with pytest.raises(CommandFailed, match="no stream yet"):
        await back_up(settings, tmp_path / "none")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    with pytest.raises(CommandFailed, match="is not empty"):
        await back_up(settings, tmp_path / "full")
    with pytest.raises(CommandFailed, match="is TIDINGS_PREFIX the same"):
        await restore(settings, tmp_path / "full", replace=False)
    away = settings.model_copy(update={"nats_url": f"nats://127.0.0.1:{free_port()}", "bus_connect_s": 0.5})
    with pytest.raises(CommandFailed, match="cannot be reached"):
        await back_up(away, tmp_path / "away")


def test_stored_metrics_recover_behind_sentinels(tmp_path: Path) -> None:
    """With users, as production has them: those of roles may not, the operator may."""
    need("redis-server")
    expires = int(time.time() + 3600)

    def tidings(*arguments: str, user: str = "operator") -> subprocess.CompletedProcess[str]:
        url = sentinels.url.replace("default:secret@", f"{user}:of-{user}@")
        environment = {
            "TIDINGS_REDIS_URL": url,
            "TIDINGS_REDIS_SENTINEL_LOGIN": ":secret",
            "TIDINGS_PREFIX": "kept",
        }
        command = [sys.executable, "-m", "tidings_cli", *arguments, str(tmp_path / "backup")]
        return subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
        )

    with SentinelSet(tmp_path) as sentinels:
        for server in (sentinels.first, sentinels.second):
            with redis.Redis.from_url(server.url) as client:
                client.execute_command(
                    "ACL", "SETUSER", "operator", "on", ">of-operator", "~*", "&*", "+@all"
                )
                rules = access_of(Role.METRICS, Settings(prefix="kept")).rules.split()
                client.execute_command("ACL", "SETUSER", "metrics", "on", ">of-metrics", *rules)
        with redis.Redis.from_url(sentinels.master.url) as client:
            client.hset("{kept:metrics}:states", mapping={"cpu": "critical", b"\xff": b"\x00"})
            client.zadd("{kept:metrics}:rows", {"row": 1})
            client.expireat("{kept:metrics}:rows", expires)
            client.set("{kept:presence}:somebody", "is here")
            refused = tidings("backup", "--redis", user="metrics")
            assert refused.returncode == 1
            assert "operator's user" in refused.stderr
            done = tidings("backup", "--redis")
            assert (done.returncode, done.stdout) == (0, "redis: 2 keys\n"), done.stderr
            assert (tmp_path / "backup" / "redis.msgpack").stat().st_mode & 0o777 == 0o600
            client.hset("{kept:metrics}:states", "cpu", "later")
            client.set("{kept:metrics}:new", "later")
            assert "--replace" in tidings("restore", "--redis").stderr
            done = tidings("restore", "--redis", "--replace")
            assert (done.returncode, done.stdout) == (0, "redis: 2 keys\n"), done.stderr
            assert client.hgetall("{kept:metrics}:states") == {b"cpu": b"critical", b"\xff": b"\x00"}
            assert abs(client.expiretime("{kept:metrics}:rows") - expires) <= 1
            assert not client.exists("{kept:metrics}:new")
            assert client.get("{kept:presence}:somebody") == b"is here"


async def test_stored_metrics_recover_in_a_cluster(tmp_path: Path) -> None:
    need("redis-server")
    with RedisCluster(tmp_path, password="of-the-cluster") as cluster:
        settings = Settings(redis_url=cluster.url, prefix="kept")
        client = open_redis(settings, "test")
        await client.hset("{kept:metrics}:states", mapping={"cpu": "critical"})
        assert await back_up_redis(settings, tmp_path / "backup") == ["redis: 1 keys"]
        with pytest.raises(CommandFailed, match="exists already"):
            await back_up_redis(settings, tmp_path / "backup")
        await client.hset("{kept:metrics}:states", mapping={"cpu": "later"})
        assert await restore_redis(settings, tmp_path / "backup", replace=True) == ["redis: 1 keys"]
        assert await client.hgetall("{kept:metrics}:states") == {b"cpu": b"critical"}
        await close_redis(client)


def test_redis_is_restored_from_a_snapshot(tmp_path: Path) -> None:
    """As docs/backup.md says: a snapshot is put in place with the append-only file off, which is switched on again."""
    need("redis-server")
    with RedisServer(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as client:
        client.hset("{tidings:alerts}:log", mapping={"one": "1", "two": "2"})
        client.save()
        snapshot = shutil.copy(server.directory / "dump.rdb", tmp_path / "snapshot.rdb")

    class Restoring(RedisServer):
        def _configuration(self) -> str:
            return super()._configuration().replace("appendonly yes", "appendonly no")

    folder = tmp_path / "new redis"
    folder.mkdir()
    shutil.copy(snapshot, folder / "dump.rdb")
    with Restoring(folder) as server, redis.Redis.from_url(server.url) as client:
        assert client.hlen("{tidings:alerts}:log") == 2
        client.config_set("appendonly", "yes")
        wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "the file")
    with RedisServer(folder) as server, redis.Redis.from_url(server.url) as client:
        assert client.hlen("{tidings:alerts}:log") == 2
