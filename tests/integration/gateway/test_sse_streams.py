"""Server-Sent Events as a browser's EventSource receives and resumes them."""

import asyncio
import json
from typing import Any
from urllib.parse import quote

import httpx

from services.wire.codes import ErrorCode
from tests.support.clients import client, event_source
from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S, eventually

Gateways = tuple[ServiceProcess, ServiceProcess]


async def test_events_begin_with_connected_and_beat(gateways: Gateways) -> None:
    async with event_source(gateways[0]) as stream:
        event, data = await stream.next()
        assert (event, data["status"]) == ("connected", "connected")
        assert set(data) == {"status", "connectionId", "userId", "username", "session"}
        event, data = await stream.next()
        assert event == "heartbeat"
        assert set(data) == {"timestamp", "message"}
        assert isinstance(data["timestamp"], int)
    assert stream.response.headers["cache-control"] == "no-store"
    assert stream.response.headers["x-accel-buffering"] == "no"


async def test_a_busy_stream_beats_too(gateways: Gateways) -> None:
    async with event_source(gateways[0], channels="metrics") as stream:
        types = []
        while "heartbeat" not in types:
            types.append((await stream.next())[0])
        assert types[:2] == ["connected", "initial_state"]
        assert "metrics_update" in types


async def test_rooms_and_channels_as_events(gateways: Gateways, room: str) -> None:
    async with (
        event_source(
            gateways[0], rooms=f"{room},{room}-b", channels="presence,inbox", username="Eve"
        ) as stream,
        client(gateways[1], "username=Ann") as ann,
    ):
        joined = {(await stream.expect("joined_room"))["room"] for _ in range(2)}
        assert joined == {room, f"{room}-b"}
        for name in joined:
            await ann.join(name)
            ack = await ann.ask("room_message", room=name, content=name)
            message = await stream.expect("room_message")
            assert message["type"] == "room_message"
            assert (message["room"], message["content"], message["seq"]) == (name, name, ack["seq"])
        await ann.ask("broadcast", content="all")
        assert (await stream.expect("broadcast"))["content"] == "all"


async def test_a_stream_begins_with_history(gateways: Gateways, room: str) -> None:
    rooms = f"{room},live:{room}"
    async with client(gateways[0]) as ann:
        await ann.join(room)
        for number in range(5):
            await ann.ask("room_message", room=room, content=number)
        async with event_source(gateways[1], rooms=rooms, history=3) as stream:
            assert [(await stream.expect("room_message"))["content"] for _ in range(2)] == [2, 3]
            cut_off = stream.last_id
            events = [await stream.next() for _ in range(3)]
            contents = [data["content"] for event, data in events if event == "room_message"]
            assert contents == [4]
            await ann.ask("room_message", room=room, content="live")
            assert (await stream.expect("room_message"))["content"] == "live"
        # A position wins over history.
        async with event_source(gateways[1], rooms=rooms, history=3, last_id=cut_off) as stream:
            assert [(await stream.expect("room_message"))["content"] for _ in range(2)] == [4, "live"]
            assert (await stream.expect("joined_room"))["recovered"] is True
    async with httpx.AsyncClient(base_url=gateways[0].url, timeout=PATIENCE_S) as http:
        for wrong in ("-1", "301", "x", "", "9" * 5000, "१"):
            answer = await http.get("/events", params={"rooms": room, "history": wrong})
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field"), wrong


async def positions_after(stream: Any, count: int) -> list[Any]:
    return [(await stream.expect("room_message"))["content"] for _ in range(count)]


async def test_last_event_id_resumes_every_room_at_once(gateways: Gateways, room: str) -> None:
    rooms = [room, f"{room}-b", f"{room}-c"]
    async with client(gateways[0]) as ann:
        for name in rooms:
            await ann.join(name)
        async with event_source(gateways[0], rooms=",".join(rooms)) as stream:
            for _ in rooms:
                await stream.expect("joined_room")
            await ann.ask("room_message", room=rooms[0], content="seen")
            await stream.expect("room_message")
            last_id = stream.last_id
        for number, name in enumerate(rooms):
            await ann.ask("room_message", room=name, content=number)
        async with event_source(gateways[1], rooms=",".join(rooms), last_id=last_id) as stream:
            missed = [(await stream.expect("room_message"))["content"] for _ in rooms]
            assert sorted(missed) == [0, 1, 2]
            await ann.ask("room_message", room=rooms[2], content="live")
            assert (await stream.expect("room_message"))["content"] == "live"
        async with event_source(gateways[0], rooms=",".join(rooms), last_event_id=last_id) as stream:
            assert sorted(map(str, await positions_after(stream, 4))) == ["0", "1", "2", "live"]


async def test_an_id_that_came_early_still_resumes_all_rooms(gateways: Gateways, room: str) -> None:
    """The stream may break between the answers of two rooms: every id carries what is known of the others."""
    rooms = [room, f"{room}-b"]
    async with client(gateways[0]) as ann:
        for name in rooms:
            await ann.join(name)
        async with event_source(gateways[0], rooms=",".join(rooms)) as stream:
            for _ in rooms:
                await stream.expect("joined_room")
            first_id = stream.last_id
        for name in rooms:
            await ann.ask("room_message", room=name, content=name)
        async with event_source(gateways[0], rooms=",".join(rooms), last_id=first_id) as stream:
            await stream.expect("room_message")  # of one room; the other's answer may not be there yet
            early_id = stream.last_id
        async with event_source(gateways[1], rooms=",".join(rooms), last_id=early_id) as stream:
            contents = set()
            for _ in rooms:
                joined = await stream.expect("joined_room")
                assert joined["recovered"] is True
                contents.add(joined["room"])
            assert contents == set(rooms)


async def test_what_cannot_be_resumed_is_reset_in_band(gateways: Gateways, room: str) -> None:
    async with event_source(gateways[0], rooms=room, channels="inbox", last_id="nonsense") as stream:
        reset = await stream.expect("reset")
        assert reset["topics"] == [room, "inbox"]
        await stream.expect("joined_room")
    async with client(gateways[0]) as ann:
        await ann.join(room)
        async with event_source(gateways[0], rooms=room) as stream:
            await stream.expect("joined_room")
            last_id = stream.last_id
        for number in range(130):  # the room keeps 100
            await ann.send("room_message", room=room, content=number)
        await ann.ask("room_message", room=room, content="end")
        async with event_source(gateways[1], rooms=room, last_id=last_id) as stream:
            assert (await stream.expect("reset"))["topics"] == [room]
            assert (await stream.expect("joined_room"))["recovered"] is False
            await ann.ask("room_message", room=room, content="after")
            assert (await stream.expect("room_message"))["content"] == "after"


async def test_the_inbox_resumes(gateways: Gateways) -> None:
    async with client(gateways[0]) as ann, client(gateways[1]) as bob:
        query = {"channels": "inbox", "session": bob.welcome["session"]}
        async with event_source(gateways[0], **query) as stream:
            await stream.expect("subscribed")
            last_id = stream.last_id
        await ann.ask("direct_message", targetUserId=bob.user, content="missed")
        async with event_source(gateways[1], last_id=last_id, **query) as stream:
            assert (await stream.expect("direct_message"))["content"] == "missed"
            await ann.ask("direct_message", targetUserId=bob.user, content="live")
            assert (await stream.expect("direct_message"))["content"] == "live"


async def test_a_user_with_a_stream_and_rooms_is_present(gateways: Gateways, room: str) -> None:
    async with client(gateways[0]) as ann:
        await ann.join(room)
        async with event_source(gateways[1], rooms=room, username="Eve"):
            joined = await ann.expect("user_joined", room=room)
            assert joined["username"] == "Eve"
        await ann.expect("user_left", userId=joined["userId"])


async def test_metrics_as_plain_data(gateways: Gateways) -> None:
    for path, headers in (("/events/metrics", {}), ("/metrics", {"accept": "text/event-stream"})):
        async with (
            httpx.AsyncClient(base_url=gateways[0].url, timeout=PATIENCE_S) as http,
            http.stream("GET", path, headers=headers) as response,
        ):
            lines = response.aiter_lines()
            async with asyncio.timeout(PATIENCE_S):
                records = [json.loads((await _data_line(lines)).removeprefix("data: ")) for _ in range(2)]
        assert records[0]["timestamp"] < records[1]["timestamp"]
        assert "latencyP99" in records[0]


async def _data_line(lines: Any) -> str:
    async for line in lines:
        if line.startswith("data: "):
            return str(line)
    raise AssertionError("the stream ended")


async def test_requests_that_are_refused(gateways: Gateways) -> None:
    async with httpx.AsyncClient(base_url=gateways[0].url, timeout=PATIENCE_S) as http:
        for query, status in (
            ({"channels": "nonsense"}, 404),
            ({"rooms": "a\x00b"}, 400),
            ({"rooms": ",".join(map(str, range(101)))}, 409),
            ({"username": "x" * 129}, 400),
        ):
            response = await http.get("/events", params=query)
            assert response.status_code == status, response.text
            assert response.json()["retryable"] is False
        head = await http.head("/events")
        assert (head.status_code, head.headers["content-type"][:17]) == (200, "text/event-stream")


async def test_a_stream_that_goes_while_it_opens_leaves_nothing(gateways: Gateways, room: str) -> None:
    async with client(gateways[0]) as ann:
        await ann.join(room)
        for _ in range(10):
            async with event_source(
                gateways[0], rooms=f"{room},{room}-x", channels="inbox,presence,logs,metrics"
            ):
                pass
        await ann.ask("room_message", room=room, content=1)
    async with httpx.AsyncClient(base_url=gateways[0].url, timeout=PATIENCE_S) as http:

        async def none_left() -> bool:
            return "tidings_gateway_sse_streams 0.0" in (await http.get("/metrics")).text

        await eventually(none_left, "the streams are gone")


async def test_a_stream_of_a_hundred_rooms_with_long_names_resumes(gateways: Gateways, room: str) -> None:
    rooms = [f"{room}-{number:03}-{'x' * 60}" for number in range(100)]
    async with event_source(gateways[0], rooms=",".join(rooms)) as stream:
        for _ in rooms:
            await stream.expect("joined_room")
        last = stream.last_id
    async with client(gateways[1]) as ann:
        await ann.join(rooms[50])
        await ann.ask("room_message", room=rooms[50], content="missed")
    assert len(last) < 4096
    async with event_source(gateways[1], rooms=",".join(rooms), last_id=last) as stream:
        assert (await stream.expect("room_message"))["content"] == "missed"


async def test_a_stream_that_could_not_be_resumed_is_refused(gateways: Gateways, room: str) -> None:
    """Its rooms fit into the head of this request, but not with the id that a browser adds to the next."""
    rooms = [f"{room}-{number:02}-" + "\N{SNOWMAN}" * 30 for number in range(60)]
    rooms = rooms[: 15_800 // len(quote(f"{rooms[0]},"))]
    async with (
        httpx.AsyncClient(base_url=gateways[0].url, timeout=PATIENCE_S) as http,
        http.stream("GET", "/events", params={"rooms": ",".join(rooms)}) as answer,
    ):
        assert answer.status_code == ErrorCode.TOO_MANY_ROOMS.value.http_status
        body = json.loads(await answer.aread())
    assert body["code"] == "too_many_rooms"
    assert "could not be resumed" in body["message"]
