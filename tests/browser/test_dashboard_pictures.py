"""A picture of each view with data. `make screenshots` stores them for the documentation."""

import math
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.browser.crowd import crowd_of
from tests.browser.windows import DESKTOP, PHONE, Page, Windows, connected, expect
from tests.support.deadline import wait_until
from tests.support.running import RunningTidings

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420), pytest.mark.xdist_group("browser")]

KEPT = os.environ.get("SCREENSHOTS", "")
# Charts want a past; a test does not.
PAST_S = 200 if KEPT else 4
MOST_BYTES = 150_000

NAMES = [
    "Ada Lovelace", "Alan Turing", "Barbara Liskov", "Claude Shannon", "Donald Knuth", "Edsger Dijkstra", "Frances Allen",
    "Grace Hopper", "Hedy Lamarr", "John Backus", "Karen Jones", "Leslie Lamport", "Margaret Hamilton", "Niklaus Wirth",
    "Radia Perlman", "Shafi Goldwasser", "Tony Hoare", "Vint Cerf",
]  # fmt: skip
TALK = [
    ("Margaret Hamilton", "The new build is on both gateways."),
    ("Alan Turing", "Latencies look the same as before. I watch them for another hour."),
    ("Grace Hopper", "Can somebody restart one of them while I talk? I want to see that nothing gets lost."),
    ("Margaret Hamilton", "gateway-1 goes in ten seconds."),
]


class Load:
    """An application that reports, once a second, a day in fast motion."""

    def __init__(self, api: httpx.Client) -> None:
        self._api = api
        self._over = threading.Event()
        self._second = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(1.0):
            self._second += 1
            self._api.post("/api/metrics", json=self._item(self._second))

    def _item(self, second: int) -> dict[str, object]:
        wave = 1 + 0.45 * math.sin(second / 21) + 0.15 * math.sin(second / 3.1)
        slow = 6 if 70 < second % 130 < 84 else 1
        errors = 14 if 76 < second % 130 < 84 else int(second % 17 == 0) * 2
        latencies = [8 * wave * slow * (1 + (index % 10) ** 2 / 9) for index in range(40)]
        requests = int(320 * wave)
        gauges = {"queue_depth": 20.0}
        return {
            "source": "shop",
            "requests": requests,
            "errors": errors,
            "latencies": latencies,
            "gauges": gauges,
        }

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def wait(self, seconds: int) -> None:
        """Wait until it ran so long."""
        wait_until(lambda: self._second >= seconds, "some history", seconds + 60)


@pytest.fixture
def busy(running: RunningTidings, api: httpx.Client) -> Iterator[None]:
    api.put("/api/rules", json={"metric": "queue_depth", "source": "shop", "warning": 10, "clearForS": 0})
    with crowd_of(running.url, NAMES, ["lobby", "on-call", "lobby", "deploys"]) as crowd, Load(api) as load:
        crowd.stir(3, "away")
        for number, (username, content) in enumerate(TALK):
            body = {"room": "lobby", "content": content, "username": username, "id": f"talk-{number}"}
            assert api.post("/api/publish", json=body).status_code == 200
        matchers = [{"name": "metric", "value": "cpu"}]
        body = {"matchers": matchers, "duration": 3600, "comment": "building an image", "createdBy": "Ada"}
        silence = api.post("/api/silences", json=body).json()
        load.wait(PAST_S)
        yield
    api.delete(f"/api/silences/{silence['id']}")
    api.post("/api/metrics", json={"source": "shop", "gauges": {"queue_depth": 0}})
    api.delete("/api/rules/queue_depth@shop")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(KEPT) if KEPT else tmp_path


@pytest.mark.usefixtures("busy")
def test_pictures_of_each_view(windows: Windows, folder: Path) -> None:
    taken = []

    def take(page: Page, name: str) -> None:
        page.evaluate("document.querySelectorAll('.toast button').forEach((button) => button.click())")
        page.mouse.move(2, 2)
        path = folder / f"dashboard-{name}.png"
        page.screenshot(path=path)
        taken.append(path)

    def turn_to(page: Page, view: str, something: str) -> None:
        page.evaluate("view => { location.hash = `#/${view}` }", view)
        expect(page.locator(something).first).to_be_visible()

    dark = windows.open(username="Ada", scheme="dark")
    connected(dark)
    expect(dark.locator("[data-metric=requests] b")).to_contain_text(re.compile(r"\d"))
    expect(dark.locator("[data-chart=cpu] .limits")).to_be_visible()
    wait_until(lambda: dark.evaluate("performance.now()") > 4000, "figures of this page too")
    take(dark, "overview-dark")

    page = windows.open(username="Ada")
    connected(page)
    expect(page.locator("[data-metric=requests] b")).to_contain_text(re.compile(r"\d"))
    wait_until(lambda: page.evaluate("performance.now()") > 4000, "figures of this page too")
    take(page, "overview")

    turn_to(page, "alerts", "[data-silence]")
    expect(page.locator("[data-alert='queue_depth@shop-alert']")).to_be_visible()
    take(page, "alerts")
    turn_to(page, "presence", ".person")
    expect(page.locator(".person-rooms .tag").first).to_be_visible()
    take(page, "presence")
    turn_to(page, "gateways", "[data-gateway]")
    if KEPT:
        wait_until(
            lambda: page.locator("polyline").first.get_attribute("points").count(" ") > 20, "lines", 90
        )
    take(page, "gateways")
    page.set_viewport_size({"width": 1280, "height": 600})  # text makes large pictures
    turn_to(page, "logs", ".log")
    page.get_by_role("listbox").focus()
    page.keyboard.press("End")
    expect(page.get_by_label("The chosen line")).to_be_visible()
    take(page, "logs")
    page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})

    turn_to(page, "rooms/lobby", ".message")
    page.get_by_label("Say something in lobby").fill("I will be right back.")
    page.keyboard.press("Enter")
    expect(page.locator(".message")).to_have_count(len(TALK) + 1)
    page.get_by_role("button", name="Cut the connection").click()
    page.get_by_label("Stay away").select_option("3")
    page.get_by_role("dialog").get_by_role("button", name="Cut", exact=True).click()
    expect(page.locator(".resume")).to_contain_text("3 messages recovered")
    take(page, "rooms")

    phone = windows.open(size=PHONE, scheme="dark")
    connected(phone)
    expect(phone.locator("[data-metric=requests] b")).to_contain_text(re.compile(r"\d"))
    expect(phone.locator(".vital b").nth(1)).to_contain_text(re.compile(r"\d"))
    take(phone, "phone")

    sizes = {path.name: path.stat().st_size for path in taken}
    assert len(sizes) == 8
    assert max(sizes.values()) < MOST_BYTES, sizes
