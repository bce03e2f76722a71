"""A small application that answers hooks, as a process of its own: `HookApplication` starts it, and has it misbehave.

It is written as a backend developer would write it: check the signature, look the session up, decide. What it does otherwise
is set by `misbehave`, over HTTP.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.deadline import wait_until
from tidings_cli.local.die_with_parent import die_with_parent
from tidings_cli.local.processes import free_port

SECRET = "the-application-knows-this"
MAX_AGE_S = 60


class Application:
    """What the process does."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers: dict[str, Any] = {}  # by hook, instead of its decision
        self.delay_s = 0.0
        self.status = 200
        self.body = ""  # any text instead of JSON
        self.fault = ""  # redirect, huge, trickle, broken
        self.under_way = 0
        self.most_under_way = 0

    async def hook(self, request: Request) -> Response:
        """Answer one hook."""
        body = await request.body()
        if not is_signed(body, request.headers):
            return Response(status_code=401)
        asked = json.loads(body)
        test = self.asked
        test.append(asked)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self._answer(asked)
        finally:
            if self.asked is test:  # else it is left over from the test before
                self.under_way -= 1

    async def _answer(self, asked: dict[str, Any]) -> Response:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        match self.fault:
            case "redirect":
                return RedirectResponse("/elsewhere")
            case "huge":
                return JSONResponse({"userId": "x" * 70_000})
            case "trickle":
                return StreamingResponse(slowly(b'{"userId": "' + b"x" * 100))
            case "broken":
                return StreamingResponse(breaking_off())
        if self.body or self.status != 200:
            return Response(self.body, self.status, media_type="application/json")
        answer = self.answers.get(asked["hook"])
        return JSONResponse(await decide(asked) if answer is None else answer)

    async def control(self, request: Request) -> Response:
        """Set what the next answers are like, and return the questions so far."""
        for name, value in (await request.json()).items():
            setattr(self, name, value)
        return JSONResponse({"asked": self.asked, "mostUnderWay": self.most_under_way})


def is_signed(body: bytes, headers: Any) -> bool:
    """Check a signature as the documentation says."""
    stamp = headers.get("tidings-timestamp", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > MAX_AGE_S:
        return False
    right = hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    given = headers.get("tidings-signature", "").split(",")
    return any(hmac.compare_digest(one, f"v1={right}") for one in given)


async def decide(asked: dict[str, Any]) -> dict[str, Any]:
    """Decide as an application does: by its sessions, rooms and rules. Contents ask for what they get."""
    match asked["hook"]:
        case "connect":
            cookies = dict(
                part.strip().partition("=")[::2] for part in asked["headers"].get("cookie", "").split(";")
            )
            user = cookies.get("sessionid")
            if not user:
                return {"refuse": {"code": "login_required", "message": "log in first"}}
            return {"userId": user, "username": user.title()}
        case "join" if asked["room"].startswith("closed"):
            return {"refuse": {"code": "not_a_friend", "message": "this room is for friends"}}
        case "publish":
            content = asked["content"] if isinstance(asked["content"], dict) else {}
            await asyncio.sleep(content.get("delayMs", 0) / 1000)
            if "refuse" in content:
                return {"refuse": {"code": content["refuse"], "message": "not here"}}
            if "replace" in content:
                return {"content": content["replace"]}
            return {"skip": True} if "skip" in content else {}
        case "rpc" if asked["method"] == "echo":
            return {"data": asked["data"]}
        case "rpc":
            return {"refuse": {"code": "unknown_method", "message": "no such method"}}
    return {}


async def slowly(body: bytes) -> AsyncIterator[bytes]:
    for at in range(len(body)):
        yield body[at : at + 1]
        await asyncio.sleep(0.1)


async def breaking_off() -> AsyncIterator[bytes]:
    yield b'{"userId":'
    raise ConnectionResetError


def main(port: int) -> None:
    """Serve until the process is ended."""
    application = Application()
    routes = [
        Route("/hooks", application.hook, methods=["POST"]),
        Route("/control", application.control, methods=["POST"]),
    ]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=port, log_level="critical")


class HookApplication:
    """The process. It keeps its port when it is killed and started again. A context manager."""

    name = "application"

    def __init__(self, log: Path, command: list[str] | None = None) -> None:
        self.port = free_port()
        self._log = log
        self._command = command or [sys.executable, "-m", "tests.support.hook_application"]
        self._process: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10.0, verify=False)  # noqa: S501

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a gateway that asks it, without `hooks`."""
        return {"hooks_url": f"http://127.0.0.1:{self.port}/hooks", "hooks_secrets": SECRET}

    def start(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                die_with_parent([*self._command, str(self.port)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, f"the application to answer; its log: {self._log}")
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return self._control().is_success
        return False

    def _control(self, **changes: Any) -> httpx.Response:
        return self._http.post("/control", json=changes)

    def misbehave(self, **changes: Any) -> None:
        """Set attributes of `Application`: `answers`, `delay_s`, `status`, `body`, `fault`."""
        self._control(**changes).raise_for_status()

    def behave(self) -> None:
        """Answer as it decides, and forget the questions so far."""
        self.misbehave(
            answers={}, delay_s=0.0, status=200, body="", fault="", asked=[], under_way=0, most_under_way=0
        )

    def asked(self, hook: str = "") -> list[dict[str, Any]]:
        """Return the questions so far, in the order in which they came."""
        questions = self._control().json()["asked"]
        return [one for one in questions if hook in ("", one["hook"])]

    @property
    def most_under_way(self) -> int:
        """The most questions that were there at once."""
        return int(self._control().json()["mostUnderWay"])

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


if __name__ == "__main__":
    main(int(sys.argv[1]))
