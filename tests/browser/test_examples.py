"""The examples of the JavaScript client, served by the documented command, in a real browser."""

import re
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from tests.browser.windows import ROOT, Browser, Page, Windows, expect
from tests.support.deadline import PATIENCE_S, wait_until
from tests.support.requires import need
from tests.support.running import RunningTidings
from tidings_cli.local.processes import free_port

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def served(running: RunningTidings) -> Iterator[str]:
    """The address at which the examples are."""
    url = f"http://127.0.0.1:{free_port()}"
    command = ["sh", "scripts/examples.sh", "--server", running.url, "--port", url.rpartition(":")[2]]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            # The first time, the packages that bundle them are fetched.
            wait_until(lambda: _answers(url) or process.poll() is not None, "the examples", 90)
            assert process.poll() is None
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=PATIENCE_S).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def examples(browser: Browser, served: str) -> Iterator[Windows]:
    windows = Windows(browser, served)
    windows.allow("favicon")
    yield windows
    windows.close()


def _open(examples: Windows, served: str, name: str) -> Page:
    page = examples.open()
    page.goto(f"{served}/{name}/")
    return page


def test_two_people_chat(examples: Windows, served: str) -> None:
    one, other = _open(examples, served, "chat"), _open(examples, served, "chat")
    for page in (one, other):
        expect(page.locator("#state")).to_have_text("connected")
    one.locator("#text").fill("<b>hello</b>")
    one.get_by_role("button", name="Send").click()
    expect(other.locator("#messages li")).to_have_text([re.compile("guest .*: <b>hello</b>")])
    other.locator("#text").fill("hello yourself")
    other.locator("#text").press("Enter")
    expect(one.locator("#messages li")).to_have_text(["you: <b>hello</b>", re.compile(": hello yourself")])
    expect(one.locator("#people")).to_have_text(re.compile("guest .*, guest"))
    one.reload()
    expect(one.locator("#messages li")).to_have_count(2)


def test_a_cursor_follows_and_goes(examples: Windows, served: str) -> None:
    one, other = _open(examples, served, "cursors"), _open(examples, served, "cursors")
    cursor = other.locator(".cursor")

    def moved() -> bool:
        one.mouse.move(100, 100)
        one.mouse.move(200, 150, steps=3)
        return cursor.count() == 1

    wait_until(moved, "a cursor in the other window")  # it joins its room in the meantime
    one.close()
    expect(cursor).to_have_count(0)  # after the grace


def test_the_bell_rings_for_its_user(examples: Windows, served: str) -> None:
    need("curl", "apt-get install curl")
    bell = _open(examples, served, "bell")
    command = bell.locator("#command")
    expect(command).to_contain_text("curl")
    printed = subprocess.run(command.inner_text(), shell=True, capture_output=True, text=True, timeout=20)  # noqa: S602 - as its reader would
    assert '"type":"ack"' in printed.stdout
    expect(bell.locator("#count")).to_have_text("1")
    expect(bell.locator("#notices li")).to_contain_text(["your build is ready"])
    bell.get_by_role("button").click()
    expect(bell.locator("#count")).to_have_text("0")


def test_the_board_shows_live_figures(examples: Windows, served: str) -> None:
    board = _open(examples, served, "board")
    expect(board.get_by_role("status")).to_contain_text("live")
    for name in ("CPU", "Memory", "Disk"):
        expect(board.get_by_role("meter", name=name)).to_have_attribute("aria-valuenow", re.compile(r"\d+"))
    history = board.get_by_role("status").inner_text()
    expect(board.get_by_role("status")).not_to_have_text(history)  # the numbers move
