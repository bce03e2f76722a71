"""Each connection logs one line when it ends, without content and addresses."""

import http.client
import json
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.support.deadline import wait_until
from tests.support.deployment import Deployment, websocket_url


def _lines(deployment: Deployment, event: str, user: str) -> list[dict[str, Any]]:
    texts = [line for gateway in deployment.gateways for line in gateway.log_text().splitlines()]
    lines = [json.loads(text) for text in texts if f'"event":"{event}"' in text]
    return [line for line in lines if line["user"] == user]


@pytest.mark.parametrize(("code", "reason"), [(1000, "normal"), (3000, ""), (None, "connection lost")])
def test_a_websocket_leaves_one_line(deployment: Deployment, code: int | None, reason: str) -> None:
    with connect(websocket_url(deployment.gateways[0], "username=logged")) as socket:
        user = json.loads(socket.recv(10))["userId"]
        socket.send(json.dumps({"type": "join_room", "room": "quiet"}))
        socket.send(json.dumps({"type": "room_message", "room": "quiet", "content": "between us", "id": "1"}))
        while json.loads(socket.recv(10))["type"] != "ack":
            pass
        if code is None:
            socket.socket.close()
        else:
            socket.close(code, "a text of the client's own")
    wait_until(lambda: _lines(deployment, "connection closed", user), "the line")
    (line,) = _lines(deployment, "connection closed", user)
    assert (line["code"], line["reason"], line["by_client"]) == (code or 1006, reason, code is not None)
    assert (line["rooms"], line["messages_in"]) == (1, 2)
    assert line["seconds"] >= 0
    assert line["connection"]
    everything = json.dumps(line)
    assert "between us" not in everything
    assert "own" not in everything
    assert "127.0.0.1" not in everything


def test_a_stream_leaves_one_line(deployment: Deployment) -> None:
    gateway = deployment.gateways[0]
    before = len([line for line in gateway.log_text().splitlines() if '"stream closed"' in line])
    client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    client.request("GET", "/events?rooms=quiet")
    answer = client.getresponse()
    read = answer.readline()
    assert read == b"event: connected\n"
    client.close()
    answer.close()

    def lines() -> list[dict[str, Any]]:
        texts = [line for line in gateway.log_text().splitlines() if '"stream closed"' in line]
        return [json.loads(text) for text in texts[before:]]

    wait_until(lines, "the line")
    (line,) = lines()
    assert (line["path"], line["by_client"]) == ("/events", True)
    assert line["bytes_out"] > len(read)
    assert line["seconds"] >= 0
