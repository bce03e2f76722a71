"""Carries out the rows of tests/fixtures/scenarios/faked.json, which describes its steps."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from rig.clock import FakeClock
from rig.server import FakeServer
from tidings_client import Ack, Backoff, CredentialRequest, Room, TidingsClient, TidingsError

TABLES = Path(__file__).resolve().parents[4] / "tests" / "fixtures" / "scenarios"
WHO = "python"
_MS = 1000
# Options of the table that are times here: their names, in seconds.
_TIMES = {"ackTimeoutMs": "ack_timeout", "connectTimeoutMs": "connect_timeout"}
_OTHERS = {"tries": "tries", "queueLimit": "queue_limit", "historyLimit": "history_limit"}


def rows(table: str) -> list[dict[str, Any]]:
    """Return the rows of a table that this client has to pass."""
    loaded: list[dict[str, Any]] = json.loads((TABLES / f"{table}.json").read_text(encoding="utf-8"))
    for row in loaded:
        assert set(row) <= {"name", "options", "steps", "clients", "why", "ways", "server"}, row["name"]
        assert ("clients" in row) == ("why" in row), f"{row['name']}: say why not for all clients"
        assert set(row.get("clients", [WHO])) <= {"js", "python"}, f"{row['name']}: there is no such client"
    return [row for row in loaded if WHO in row.get("clients", [WHO])]


def error_of(fault: BaseException) -> dict[str, Any]:
    """Return an error as the tables describe it."""
    assert isinstance(fault, TidingsError), repr(fault)
    return {"code": fault.code, "message": fault.message, "retryable": fault.retryable}


def is_part(part: Any, whole: Any) -> bool:
    """Say whether all that is in `part` is in `whole`."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and is_part(value, whole[name]) for name, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(is_part, part, whole))
    return bool(part == whole)


class Faked:
    """One row: a client, the server it sees, and what came of it."""

    def __init__(self, options: dict[str, Any], codec: Any = "json") -> None:
        self.clock = FakeClock()
        self.server = FakeServer()
        self.asked: list[bool] = []
        self.results: dict[str, asyncio.Task[Any]] = {}
        self.seen: dict[str, list[Any]] = {}
        self.presence_seen: dict[str, list[str]] = {}
        self.alerts_seen: list[str] = []
        self.errors: list[str] = []
        self.removals: dict[str, list[str]] = {}
        self.arrivals: dict[str, list[Any]] = {}
        self.asked_for_rooms: list[bool] = []
        self.following: dict[str, Any] = {}
        self.client = TidingsClient(
            "http://server",
            connect=self.server.connect,
            http=self.server.http,
            clock=self.clock,
            backoff=Backoff(0.5, 30),
            codec=codec,
            **self._options(dict(options)),
        )
        self.inbox = self._collect(self.client.inbox.messages, self.client.inbox.gaps)
        self.client.errors.listen(lambda fault: self.errors.append(fault.code))
        self.client.alerts.raises.listen(lambda alert: self.alerts_seen.append(f"+{alert.id}"))
        self.client.alerts.resolves.listen(lambda alert: self.alerts_seen.append(f"-{alert.id}"))

    def _options(self, given: dict[str, Any]) -> Any:
        token = given.pop("token", None)
        options: dict[str, Any] = {"transports": given.pop("transports", ["websocket"])}
        options |= {} if token is None else {"token": self._token_giver(token)}
        for name, value in given.items():
            options |= {_TIMES[name]: value / _MS} if name in _TIMES else {_OTHERS[name]: value}
        return options

    def _token_giver(self, kind: Any) -> Callable[[CredentialRequest], str]:
        assert kind in (True, "fails once")

        def give(request: CredentialRequest) -> str:
            self.asked.append(request.refresh)
            if kind == "fails once" and len(self.asked) == 1:
                raise OSError("the application's server is away")
            return f"token {len(self.asked)}"

        return give

    async def run(self, steps: list[list[Any]]) -> None:
        """Carry out the steps; raises AssertionError where one is not as it should be."""
        try:
            for number, (verb, *given) in enumerate(steps, 1):
                act = getattr(self, f"do_{verb.replace('-', '_')}", None)
                assert act is not None, f"step {number}: this runner does not know {verb!r}"
                try:
                    outcome = act(*given)
                    if asyncio.iscoroutine(outcome):
                        await outcome
                    await self.clock.pass_()
                    if verb == "expect":
                        self._check(given[0])
                except AssertionError as wrong:
                    raise AssertionError(f"step {number}, {[verb, *given]}: {wrong}") from None
        finally:
            await self.client.close()
            await self.server.http.aclose()
            for task in self.results.values():
                task.cancel()
            await asyncio.gather(*self.results.values(), return_exceptions=True)

    # Steps.

    def _begin(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        self.results[name] = asyncio.create_task(work)

    async def do_connect(self) -> None:
        self._begin("connect", self.client.connect())
        await self.clock.pass_()
        assert self.client.is_up, self.client.status

    def do_begin(self) -> None:
        self._begin("connect", self.client.connect())

    async def do_close(self) -> None:
        await self.client.close()

    def do_wake(self) -> None:
        self.client.wake()

    async def do_join(self, name: str, options: Any = None) -> None:
        self.do_want(name, options)
        await self.clock.pass_()
        assert self.client.room(name).state == "joined"

    def do_want(self, name: str, options: Any = None) -> None:
        given = dict(options or {})
        if given.get("token") in (True, "fails once"):
            given["token"] = self._room_token_giver(given["token"])
        self._begin(f"join {name}", self._join(self.do_listen(name), given))

    async def _join(self, room: Room, options: dict[str, Any]) -> dict[str, Any]:
        return {"history": [message.content for message in await room.join(**options)]}

    def _room_token_giver(self, kind: Any) -> Callable[[CredentialRequest], str]:
        def give(request: CredentialRequest) -> str:
            self.asked_for_rooms.append(request.refresh)
            if kind == "fails once" and len(self.asked_for_rooms) == 1:
                raise OSError("the application's server is away")
            return f"room token {len(self.asked_for_rooms)}"

        return give

    def do_listen(self, name: str) -> Room:
        room = self.client.room(name)
        if name not in self.seen:
            self.seen[name] = self._collect(room.messages, room.gaps)
            removals = self.removals.setdefault(name, [])
            arrivals = self.arrivals.setdefault(name, [])
            room.removals.listen(lambda removal: removals.append(removal.reason))
            room.user_joins.listen(lambda user: arrivals.append({user.user_id: user.member_data}))
        return room

    def do_call(self, name: str, method: str, data: Any, options: Any = None) -> None:
        given = {"timeout": options["timeoutMs"] / _MS} if options else {}
        self._begin(name, self.client.call(method, data, **given))

    def do_leave(self, name: str) -> None:
        self.client.room(name).leave()

    def do_publish(self, name: str, room: str, content: Any, options: Any = None) -> None:
        self._begin(name, self.client.room(room).publish(content, **(options or {})))

    def do_direct(self, name: str, user_id: str, content: Any) -> None:
        self._begin(name, self.client.send_direct(user_id, "x" * 2000 if content == "LARGE" else content))

    def do_broadcast(self, name: str, content: Any) -> None:
        self._begin(name, self.client.broadcast(content))

    def do_status(self, name: str, status: Any) -> None:
        self._begin(name, self.client.set_status(status))

    def do_data(self, name: str, data: Any) -> None:
        self._begin(name, self.client.set_custom_data(data))

    def do_follow(self, *channels: str) -> None:
        for channel in channels:
            kind = channel.partition(":")[0]
            if kind == "presence":
                seen = self.presence_seen.setdefault(channel, [])
                presence = self._presence(channel)
                presence.enters.listen(lambda user, seen=seen: seen.append(f"+{user.user_id}"))
                presence.leaves.listen(lambda user, seen=seen: seen.append(f"-{user.user_id}"))
                presence.updates.listen(lambda user, seen=seen: seen.append(f"{user.user_id} {user.status}"))
                self.following[channel] = presence.follow()
            else:
                self.following[channel] = getattr(self.client, kind).follow()

    def do_unfollow(self, channel: str) -> None:
        self.following[channel].stop()

    async def do_pass(self, ms: int) -> None:
        await self.clock.pass_(ms / _MS)

    async def do_beats(self, ms: int) -> None:
        for _ in range(0, ms, _MS):
            await self.clock.pass_(1)
            self.server.beat()

    def do_upgrade(self) -> None:
        next(each for each in self.server.open if each.subprotocol != "sse").greet()

    def do_sleep(self, ms: int) -> None:
        self.clock.sleep(ms / _MS)

    def do_server(self, changes: dict[str, Any]) -> None:
        names = {
            "busDown": "bus_down",
            "userId": "user_id",
            "refuseCredentials": "refuse_credentials",
            "refusesChannels": "refuses_channels",
            "proxyStatus": "proxy_status",
            "refuseJoins": "refuse_joins",
        }
        for name, value in changes.items():
            assert hasattr(self.server, names.get(name, name)), name
            setattr(self.server, names.get(name, name), value)

    def do_say(self, room: str, content: Any) -> None:
        self.server.say(room, content)

    def do_store(self, room: str, content: Any) -> None:
        self.server.store(room, content)

    def do_direct_in(self, content: Any) -> None:
        self.server.direct(content)

    def do_keep(self) -> None:
        self.server.keep(self.server.last.of("room_message")[-1])

    def do_answer(self, kind: str) -> None:
        self.server.answer(self.server.last, self.server.last.of(kind)[-1])

    def do_send(self, message: dict[str, Any]) -> None:
        self.server.last.send_out(_filled(message))

    def do_frame(self, text: str) -> None:
        binary = self.server.last.subprotocol.endswith("msgpack")
        self.server.last.send_frame(text.encode() if binary else text)

    def do_drop(self, code: int) -> None:
        self.server.last.drop(code)

    def do_disconnect(self, said: dict[str, Any]) -> None:
        self.server.last.disconnect(
            said["code"], reconnect=said["reconnect"], retry_after_ms=said.get("retryAfterMs")
        )

    def do_die(self) -> None:
        self.server.last.closed_with = 1006  # without a close frame

    def do_expect(self, _: dict[str, Any]) -> None:
        """Checked after everything has happened that needs no time."""

    # Expectations.

    def _check(self, expected: dict[str, Any]) -> None:
        for name, value in expected.items():
            look = getattr(self, f"see_{name}", None)
            assert look is not None, f"this runner does not know what {name!r} is"
            found = look(value)
            assert found == value, f"{name} is {found!r}"

    def see_state(self, _: Any) -> Any:
        return self.client.status.state

    def see_transport(self, _: Any) -> Any:
        return self.client.status.transport

    def see_reason(self, _: Any) -> Any:
        return self.client.status.reason

    def see_code(self, _: Any) -> Any:
        return self.client.status.code

    def see_error(self, expected: Any) -> Any:
        fault = self.client.status.error
        found = None if fault is None else error_of(fault)
        return expected if is_part(expected, found) else found

    def see_retryInMs(self, _: Any) -> Any:  # noqa: N802 - the names of the table
        retry_at = self.client.status.retry_at
        return None if retry_at is None else round((retry_at - self.clock.now()) * _MS)

    def see_seen(self, expected: Any) -> Any:
        return {room: self.seen[room] for room in expected}

    def see_inbox(self, _: Any) -> Any:
        return self.inbox

    def see_inboxPosition(self, _: Any) -> Any:  # noqa: N802
        return _position(self.client.inbox.position)

    def see_position(self, expected: Any) -> Any:
        return {room: _position(self.client.room(room).position) for room in expected}

    def see_rooms(self, expected: Any) -> Any:
        return {room: self.client.room(room).state for room in expected}

    def see_removals(self, expected: Any) -> Any:
        return {room: self.removals[room] for room in expected}

    def see_arrivals(self, expected: Any) -> Any:
        return {room: self.arrivals[room] for room in expected}

    def see_askedForRooms(self, _: Any) -> Any:  # noqa: N802
        return self.asked_for_rooms

    def see_results(self, expected: Any) -> Any:
        return {name: self._result(name, value) for name, value in expected.items()}

    def _result(self, name: str, expected: Any) -> Any:
        task = self.results[name]
        if not task.done():
            return "open"
        fault = task.exception()
        if fault is not None:
            found: Any = {"error": error_of(fault)}
        else:
            ok = task.result()
            if isinstance(ok, Ack):
                ok = {"id": ok.id, "epoch": ok.epoch, "seq": ok.seq}
            found = {"ok": {} if ok is None else ok}
        return expected if is_part(expected, found) else found

    def see_errors(self, _: Any) -> Any:
        return self.errors

    def see_presence(self, expected: Any) -> Any:
        found = {}
        for channel, facts in expected.items():
            presence = self._presence(channel)
            every = {
                "users": {user_id: user.status for user_id, user in presence.items()},
                "memberData": {user_id: user.member_data for user_id, user in presence.items()},
                "synced": presence.synced,
                "count": presence.count,
            }
            found[channel] = {name: every[name] for name in facts}
        return found

    def see_presenceSeen(self, expected: Any) -> Any:  # noqa: N802
        return {channel: self.presence_seen[channel] for channel in expected}

    def see_alerts(self, _: Any) -> Any:
        return [alert.id for alert in self.client.alerts.active]

    def see_alertsSeen(self, _: Any) -> Any:  # noqa: N802
        return self.alerts_seen

    def see_metrics(self, _: Any) -> Any:
        return [record.timestamp for record in self.client.metrics.history]

    def see_connections(self, _: Any) -> Any:
        return len(self.server.connections)

    def see_departures(self, _: Any) -> Any:
        return self.server.departures

    def see_closedWith(self, _: Any) -> Any:  # noqa: N802
        return self.server.last.closed_with

    def see_types(self, _: Any) -> Any:
        return self.server.last.types

    def see_sent(self, expected: Any) -> Any:
        found = {}
        for kind, parts in expected.items():
            sent = self.server.last.of(kind)
            found[kind] = parts if is_part(parts, sent) else sent
        return found

    def see_ids(self, expected: Any) -> Any:
        sent = [
            (kind, message["id"])
            for each in self.server.connections
            for kind in expected
            for message in each.of(kind)
        ]
        return {kind: len({request_id for of, request_id in sent if of == kind}) for kind in expected}

    def see_asked(self, _: Any) -> Any:
        return self.asked

    def see_shown(self, _: Any) -> Any:
        return self.server.last.headers["Authorization"].removeprefix("Bearer ")

    def _presence(self, channel: str) -> Any:
        _, _, room = channel.partition(":")
        return self.client.room(room).presence if room else self.client.presence

    def _collect(self, messages: Any, gaps: Any) -> list[Any]:
        seen: list[Any] = []
        messages.listen(lambda message: seen.append(message.content))
        gaps.listen(lambda _: seen.append("gap"))
        return seen


def _position(position: Any) -> Any:
    return position and {"epoch": position.epoch, "seq": position.seq}


def _filled(value: Any) -> Any:
    """Return a message with what its abbreviations stand for."""
    if isinstance(value, dict):
        return {name: _filled(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each) for each in value]
    kind, _, of = value.partition(" ") if isinstance(value, str) else ("", "", "")
    if kind == "RECORD":
        figures = dict.fromkeys(
            ("cpu", "memory", "disk", "requests", "errors", "latencyP50", "latencyP95", "latencyP99"), 1
        )
        return {**figures, "network": {"in": 0, "out": 0}, "timestamp": int(of)}
    if kind == "ALERT":
        figures = {"metric": of, "value": 1, "threshold": 1, "message": "", "timestamp": 1}
        return {"id": of, "type": "warning", **figures}
    return value
