"""One trace from a publish on one gateway to the delivery on another, by spans that a collector receives."""

import http.client
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from services.lifecycle import EXIT_BAD_SETTINGS, EXIT_CANNOT_START
from services.settings import Settings
from tests.support.deadline import PATIENCE_S, wait_until
from tests.support.deployment import Deployment, websocket_url
from tests.support.docs import ROOT
from tests.support.trace_receiver import ReceivedSpan, TraceReceiver, trace_receiver

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("tracing")]

_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_TRACE, _CALLER = _PARENT.split("-")[1:3]


@pytest.fixture(scope="module")
def collector() -> Iterator[TraceReceiver]:
    with trace_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def tracing(
    nats_server: object,
    redis_server: object,
    collector: TraceReceiver,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """Two gateways, presence_svc and metrics_svc that record every trace and send spans at once."""
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "100"
    try:
        with Deployment(
            tmp_path_factory.mktemp("tracing"),
            nats_url=nats_server.url,  # type: ignore[attr-defined]
            redis_url=redis_server.url,  # type: ignore[attr-defined]
            prefix=f"tracing{os.getpid()}",
            traces_endpoint=collector.url,
            traces_ratio=1,
        ) as deployment:
            yield deployment
    finally:
        del os.environ["OTEL_BSP_SCHEDULE_DELAY"]


def _answers(socket: ClientConnection, kind: str) -> dict[str, object]:
    while True:
        message: dict[str, object] = json.loads(socket.recv(10))
        if message["type"] == kind:
            return message


def _came(socket: ClientConnection, kind: str, within_s: float = 1.0) -> bool:
    try:
        while json.loads(socket.recv(within_s))["type"] != kind:
            pass
    except TimeoutError:
        return False
    return True


@contextmanager
def _member(deployment: Deployment, gateway: int, room: str) -> Iterator[ClientConnection]:
    with connect(websocket_url(deployment.gateways[gateway], "username=ada")) as socket:
        socket.send(json.dumps({"type": "join_room", "room": room}))
        _answers(socket, "joined_room")
        yield socket


def _spans(
    collector: TraceReceiver, until: Callable[[list[ReceivedSpan]], bool], trace: str
) -> list[ReceivedSpan]:
    wait_until(lambda: until(collector.trace(trace)), f"the spans of {trace}")
    return collector.trace(trace)


def _request(url: str, body: object = None, **headers: str) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:  # noqa: S310
        return bytes(answer.read())


def test_a_publish_is_one_trace_up_to_its_delivery_on_another_gateway(
    tracing: Deployment, collector: TraceReceiver
) -> None:
    with _member(tracing, 0, "kitchen") as sender, _member(tracing, 1, "kitchen") as reader:
        sender.send(json.dumps({"type": "room_message", "room": "kitchen", "content": "hi", "id": "1"}))
        seq = _answers(sender, "ack")["seq"]
        _answers(reader, "room_message")
    wait_until(lambda: collector.named("publish "), "a publish span")
    published = collector.named("publish ")[0]
    spans = _spans(collector, lambda found: len(found) == 3, published.trace_id)
    delivered = [span for span in spans if span.name.startswith("deliver ")]
    assert published.parent_id == ""
    assert published.attributes["tidings.seq"] == seq
    assert (published.service, published.instance) == ("tidings-gateway", "gateway-1")
    assert {span.instance for span in delivered} == {"gateway-1", "gateway-2"}
    assert {span.parent_id for span in delivered} == {published.span_id}
    assert {span.attributes["tidings.seq"] for span in delivered} == {seq}
    assert all(span.start_ns >= published.start_ns and span.end_ns >= span.start_ns for span in spans)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("room", "room_message"),
        ("live", "room_message"),
        ("everyone", "broadcast"),
        ("user", "direct_message"),
    ],
)
def test_a_request_goes_on_with_its_clients_trace(
    tracing: Deployment, collector: TraceReceiver, target: str, kind: str
) -> None:
    trace = f"{_TRACE[:-4]}{target.encode().hex()[:4]}"
    parent = _PARENT.replace(_TRACE, trace)
    with connect(websocket_url(tracing.gateways[1], "username=ada")) as reader:
        user = _answers(reader, "welcome")["userId"]
        room = "live:cursor" if target == "live" else "hall"
        reader.send(json.dumps({"type": "join_room", "room": room}))
        _answers(reader, "joined_room")
        where = (
            {"userId": user}
            if target == "user"
            else {"broadcast": True}
            if target == "everyone"
            else {"room": room}
        )
        # Where nothing is stored, a join is answered before NATS has heard of it: the first may come too early.
        for _ in range(10):
            _request(f"{tracing.gateways[0].url}/api/publish", {**where, "content": "hi"}, traceparent=parent)
            if _came(reader, kind):
                break

    wait_until(lambda: _chain(collector.trace(trace)), "the spans from request to delivery")
    deliver, publish, post = _chain(collector.trace(trace)) or ()
    assert post.name == "POST /api/publish"
    assert post.parent_id == _CALLER
    assert (deliver.instance, publish.instance, post.instance) == ("gateway-2", "gateway-1", "gateway-1")


def _chain(spans: list[ReceivedSpan]) -> tuple[ReceivedSpan, ReceivedSpan, ReceivedSpan] | None:
    """Return a delivery on the second gateway, its publish, and the request that published, once all have come."""
    by_id = {span.span_id: span for span in spans}
    for deliver in spans:
        publish = by_id.get(deliver.parent_id)
        post = by_id.get(publish.parent_id) if publish else None
        if deliver.name.startswith("deliver") and deliver.instance == "gateway-2" and publish and post:
            return deliver, publish, post
    return None


def test_a_question_to_a_service_is_part_of_the_trace(tracing: Deployment, collector: TraceReceiver) -> None:
    for path, service in (("/api/presence", "presence"), ("/api/alerts", "metrics")):
        trace = f"{_TRACE[:-4]}{service.encode().hex()[-4:]}"
        _request(f"{tracing.gateways[0].url}{path}", traceparent=_PARENT.replace(_TRACE, trace))
        by_kind = {
            span.name.split()[0]: span for span in _spans(collector, lambda found: len(found) == 3, trace)
        }
        assert by_kind["GET"].name == f"GET {path}"
        assert by_kind["ask"].parent_id == by_kind["GET"].span_id
        assert by_kind["answer"].parent_id == by_kind["ask"].span_id
        assert by_kind["answer"].service == f"tidings-{service}"


def test_a_trace_that_its_client_does_not_record_is_not_recorded(
    tracing: Deployment, collector: TraceReceiver
) -> None:
    unrecorded = f"{_TRACE[:-4]}0000"
    url = f"{tracing.gateways[0].url}/api/publish"
    _request(url, {"room": "hall", "content": "hi"}, traceparent=f"00-{unrecorded}-{_CALLER}-00")
    recorded = f"{_TRACE[:-4]}1111"
    _request(url, {"room": "hall", "content": "hi"}, traceparent=f"00-{recorded}-{_CALLER}-01")
    _spans(collector, lambda found: len(found) >= 2, recorded)
    assert collector.trace(unrecorded) == []


def test_a_path_names_no_room_and_a_failure_is_marked(tracing: Deployment, collector: TraceReceiver) -> None:
    trace = f"{_TRACE[:-4]}2222"
    url = f"{tracing.gateways[0].url}/api/rooms/kitchen/history"
    _request(url, traceparent=_PARENT.replace(_TRACE, trace))
    spans = _spans(collector, lambda found: any(span.parent_id == _CALLER for span in found), trace)
    assert next(span.name for span in spans if span.parent_id == _CALLER) == "GET /api/rooms/{room}/history"


def test_what_a_stream_starts_is_no_part_of_its_trace(tracing: Deployment, collector: TraceReceiver) -> None:
    trace = f"{_TRACE[:-4]}4444"
    gateway = tracing.gateways[0]
    stream = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    stream.request(
        "GET",
        "/events?rooms=brook&channels=presence",
        headers={"traceparent": _PARENT.replace(_TRACE, trace)},
    )
    answer = stream.getresponse()
    assert answer.readline() == b"event: connected\n"

    def root(found: list[ReceivedSpan]) -> bool:
        return any(span.name == "GET /events" for span in found)

    _spans(collector, root, trace)
    _request(f"{gateway.url}/api/publish", {"room": "brook", "content": "later"})
    while b"later" not in answer.readline():
        pass
    wait_until(
        lambda: any(
            "brook" in str(span.attributes.get("messaging.destination.name"))
            for span in collector.named("deliver")
        ),
        "its span",
    )
    spans = collector.trace(trace)
    assert not [span.name for span in spans if span.name.startswith(("publish", "deliver"))]
    begun = next(span for span in spans if span.name == "GET /events")
    assert all(span.start_ns <= begun.end_ns for span in spans), "something later took part"
    stream.close()
    answer.close()


def test_log_lines_name_the_trace(tracing: Deployment, collector: TraceReceiver) -> None:
    trace = f"{_TRACE[:-4]}5555"
    headers = {
        "traceparent": _PARENT.replace(_TRACE, trace),
        "Last-Event-ID": "",
        "Accept": "text/event-stream",
    }
    gateway = tracing.gateways[0]
    stream = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    stream.request("GET", "/events", headers=headers)
    answer = stream.getresponse()
    answer.readline()
    stream.close()
    answer.close()
    wait_until(lambda: trace in gateway.log_text(), "its line")
    line = next(json.loads(line) for line in gateway.log_text().splitlines() if trace in line)
    assert (line["event"], line["trace_id"]) == ("stream closed", trace)


def test_clients_need_not_be_followed(tracing: Deployment, collector: TraceReceiver) -> None:
    gateway = tracing.extra_gateway("gateway-aloof", traces_follow_clients=False)
    trace = f"{_TRACE[:-4]}3333"
    _request(
        f"{gateway.url}/api/publish",
        {"room": "hall", "content": "hi"},
        traceparent=_PARENT.replace(_TRACE, trace),
    )
    wait_until(lambda: any(span.instance == "gateway-aloof" for span in collector.spans), "its spans")
    assert collector.trace(trace) == []


def test_what_waits_is_sent_when_a_gateway_stops(tracing: Deployment, collector: TraceReceiver) -> None:
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "600000"
    gateway = tracing.extra_gateway("gateway-late")
    _request(f"{gateway.url}/api/rooms", traceparent=_PARENT)
    gateway.terminate()
    assert gateway.wait(PATIENCE_S) == 0
    assert any(span.instance == "gateway-late" for span in collector.spans)


def test_an_unreachable_collector_affects_nothing(tracing: Deployment) -> None:
    gateway = tracing.extra_gateway("gateway-alone", traces_endpoint="http://127.0.0.1:9")
    answer = json.loads(_request(f"{gateway.url}/api/publish", {"room": "hall", "content": "hi"}))
    assert answer["type"] == "ack"
    gateway.terminate()
    assert gateway.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("endpoint", "said", "code"),
    [
        ("collector:4318", "give an OTLP/HTTP address", EXIT_BAD_SETTINGS),
        ("http://127.0.0.1:9", "install tidings[tracing]", EXIT_CANNOT_START),
    ],
)
def test_invalid_settings_are_reported_at_the_start(
    make_settings: Callable[..., Settings], tmp_path: Path, endpoint: str, said: str, code: int
) -> None:
    settings = make_settings()
    (tmp_path / "sitecustomize.py").write_text(  # as if the optional part was not installed
        "import sys\nsys.modules['opentelemetry.sdk'] = None\n", encoding="utf-8"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}",
        "TIDINGS_NATS_URL": settings.nats_url,
        "TIDINGS_PORT": "0",
        "TIDINGS_TRACES_ENDPOINT": endpoint,
    }
    ended = subprocess.run(
        [sys.executable, "-m", "gateway"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert ended.returncode == code
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
