"""Each example, started from the command line against a real deployment."""

import asyncio
import re
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rig.fleet import Fleet

from tidings_client import TidingsClient

FOLDER = Path(__file__).resolve().parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))

pytestmark = [pytest.mark.xdist_group("python client, open"), pytest.mark.timeout(90)]


class Running:
    """A running example: its output and input."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stdin is not None
        self._process = process
        self._lines = process.stdout
        self._typed = process.stdin
        self.said = ""

    async def says(self, pattern: str) -> "re.Match[str]":
        """Wait for a line that matches, and return the match."""
        async with asyncio.timeout(30):
            while line := (await self._lines.readline()).decode():
                self.said += line
                if found := re.search(pattern, line):
                    return found
        raise AssertionError(f"it ended without {pattern!r}:\n{self.said}")

    def type(self, line: str) -> None:
        self._typed.write(f"{line}\n".encode())

    async def end(self) -> int:
        """End its input, and wait until it ended."""
        self._typed.close()
        async with asyncio.timeout(30):
            return await self._process.wait()


@asynccontextmanager
async def started(name: str, url: str, *arguments: str) -> AsyncIterator[Running]:
    """Run an example until the block ends; Ctrl-C ends it without a traceback."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        str(FOLDER / name),
        *arguments,
        "--url",
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    running = Running(process)
    try:
        yield running
        if process.returncode is None:
            process.send_signal(2)
        rest = (await process.communicate())[0].decode()
        assert "Traceback" not in running.said + rest, running.said + rest
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def url(fleet_of: Callable[[str], Fleet]) -> str:
    return fleet_of("open").url


@pytest.fixture
def room() -> str:
    return f"example-{secrets.token_hex(4)}"


async def test_chat_shows_the_past_others_and_what_is_typed(url: str, room: str) -> None:
    async with TidingsClient(url, username="Grace") as grace:
        await grace.room(room).join()
        await grace.room(room).publish("long ago")
        async with started("chat.py", url, "--name", "Ada", room) as chat:
            await chat.says("Grace: long ago")
            await chat.says(f"you are Ada in {room}")
            heard = grace.room(room).stream()
            chat.type("good morning")
            await chat.says("Ada: good morning")
            assert (await anext(heard)).content == "good morning"
            await grace.room(room).publish("<b>hello</b>")
            await chat.says("Grace: <b>hello</b>")
            assert await chat.end() == 0


async def test_bot_answers_commands(url: str, room: str) -> None:
    async with started("bot.py", url, "--name", "Robbie", room) as bot:
        await bot.says("Robbie answers")
        async with TidingsClient(url, username="Grace") as grace:
            heard = grace.room(room).stream()
            await grace.room(room).publish("what a day")
            for asked, answered in (
                ("!roll 20", r"Grace: \d+ \(of 20\)"),
                ("!time", r"Grace: It is \d\d:\d\d"),
                ("!who", "Grace: Here are .*Robbie"),
            ):
                await grace.room(room).publish(asked)
                async with asyncio.timeout(30):
                    assert re.match(answered, str((await anext(heard)).content))


async def test_figures_are_pushed_and_watched(url: str) -> None:
    async with started("figures.py", url, "push", "--source", "example", "--every", "0.2") as pushing:
        await pushing.says(r"pushed \d+ requests, 1 accepted")
        async with started("figures.py", url, "watch") as watching:
            await watching.says(r"cpu +[\d.]+ % .* requests/s")
        async with TidingsClient(url) as client:
            sources = await client.request("GET /api/metrics/sources")
            assert "example" in {source.source for source in sources}


async def test_notifier_sends_an_alert_to_room_and_users(url: str, room: str) -> None:
    async with TidingsClient(url, username="Grace") as grace:
        assert grace.user_id is not None
        in_room, sent = grace.room(room).stream(), grace.inbox.stream()
        await grace.room(room).join()
        async with started("notifier.py", url, "--room", room, "--user", grace.user_id) as notifier:
            user_id = (await notifier.says(r"notifier is (\S+)"))[1]
            await grace.send_direct(user_id, "are you there?")
            await notifier.says("from Grace: are you there")
            alarm = {"source": "example-alarm", "errors": 5000, "requests": 5000}
            await grace.request("POST /api/metrics", body=alarm)
            await notifier.says("raised: errors")
            async with asyncio.timeout(30):
                while "errors" not in str(news := (await anext(in_room)).content):
                    continue
                told = (await anext(sent)).content
            assert news["how"] == "raised"
            assert "text" in told


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_below_100_lines_and_has_a_test(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100
    assert f'"{path.name}"' in Path(__file__).read_text(encoding="utf-8")
