"""Presence and rooms, with two users in two browsers, also after a lost connection."""

import re
import threading
import time

import httpx
import pytest

from tests.browser.windows import Page, Windows, connected, expect
from tests.support.deadline import wait_until
from tests.support.running import RunningTidings

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.xdist_group("browser")]

# A browser says so itself when a connection cannot be made.
LOST = r"WebSocket connection to|Failed to load resource|ERR_CONNECTION"


def joined(page: Page) -> None:
    expect(page.locator(".room .tag", has_text="joined")).to_be_visible()


def said(page: Page) -> list[str]:
    """Return what is in the room, without the marks beside it."""
    return page.locator(".message .said").evaluate_all(
        "all => all.map((each) => each.firstChild.textContent)"
    )


def test_a_second_browsers_user_shows_up(windows: Windows) -> None:
    ada = windows.open("presence", username="Ada Lovelace")
    connected(ada)
    person = ada.locator(".person").filter(has_text="Grace Hopper")
    expect(ada.locator(".person").filter(has_text="Ada Lovelace")).to_contain_text("you")
    expect(person).to_have_count(0)

    grace = windows.open("rooms/navy", username="Grace Hopper")
    joined(grace)
    expect(person.locator(".status")).to_have_text("online")
    expect(person.locator(".person-rooms")).to_have_text("navy")  # asked for every ten seconds

    grace.get_by_role("button", name="you: name, status and token").click()
    dialog = grace.get_by_role("dialog", name="You")
    dialog.get_by_label("Status").select_option("busy")
    dialog.get_by_role("button", name="Save").click()
    expect(person.locator(".status")).to_have_text("busy")

    search = ada.get_by_label("Search by name")
    search.fill("hopper navy")
    expect(ada.locator(".person")).to_have_count(1)
    search.fill("nobody of that name")
    expect(ada.get_by_text("Nobody matches")).to_be_visible()
    search.fill("")

    grace.close()
    expect(person).to_have_count(0)  # after the grace


def test_two_people_talk(windows: Windows) -> None:
    ada, grace = windows.open("rooms", username="Ada"), windows.open("rooms/tea & cake", username="Grace")
    joined(grace)
    ada.get_by_role("link", name=re.compile("tea & cake")).click()
    joined(ada)
    ada.get_by_label("Say something in tea & cake").fill("<b>hello</b> & good day")
    ada.keyboard.press("Enter")
    expect(grace.locator(".said", has_text="<b>hello</b> & good day")).to_be_visible()
    expect(grace.get_by_label("Members", exact=True)).to_contain_text("2 members")
    expect(grace.get_by_label("Members", exact=True)).to_contain_text("Ada")
    # Later members read it too.
    late = windows.open("rooms/tea & cake", username="Late")
    expect(late.locator(".said")).to_have_text(["<b>hello</b> & good day"])


def test_a_cut_connection_costs_nothing(windows: Windows) -> None:
    page = windows.open("rooms/cut", username="Ada")
    joined(page)
    page.get_by_role("button", name="Cut the connection").click()
    dialog = page.get_by_role("dialog", name="Cut the connection")
    dialog.get_by_label("Stay away").select_option("3")
    dialog.get_by_role("button", name="Cut", exact=True).click()
    expect(page.locator(".connection")).to_contain_text(re.compile(r"Reconnecting in \d s"))
    expect(page.locator(".resume")).to_contain_text("Away")

    expect(page.locator(".resume")).to_contain_text("3 messages recovered")
    expect(page.locator(".resume")).to_contain_text("nothing missed")
    expect(page.locator(".said .tag", has_text="recovered")).to_have_count(3)
    assert len(said(page)) == len(set(said(page))) == 3
    connected(page)


def test_a_user_can_reconnect_now(windows: Windows) -> None:
    page = windows.open("rooms/cut", username="Ada")
    joined(page)
    page.get_by_role("button", name="Cut the connection").click()
    dialog = page.get_by_role("dialog", name="Cut the connection")
    dialog.get_by_label("Stay away").select_option("30")
    dialog.get_by_label("Meanwhile").uncheck()
    dialog.get_by_role("button", name="Cut", exact=True).click()
    expect(page.locator(".connection")).to_contain_text(re.compile(r"Reconnecting in \d+ s"))
    page.get_by_role("button", name="Now").click()
    connected(page)  # which is less patient than half a minute
    expect(page.locator(".resume")).to_contain_text("Nothing was said meanwhile, and nothing was missed.")


def test_a_killed_gateway_costs_nothing(windows: Windows, running: RunningTidings, api: httpx.Client) -> None:
    windows.allow(LOST)
    page = windows.open("rooms/resilience", username="Ada")
    joined(page)
    gateway = connected(page)
    process = running.child(gateway)
    published: list[str] = []
    enough = threading.Event()

    def publish() -> None:
        """Say something all the time; an answer that does not come is asked for again, with the same id."""
        while not enough.is_set():
            number = len(published)
            body = {"room": "resilience", "content": f"message {number}", "id": f"n{number}"}
            try:
                if api.post("/api/publish", json=body).status_code == 200:
                    published.append(f"message {number}")
            except httpx.HTTPError:
                pass
            time.sleep(0.05)

    def shown() -> int:
        return len(said(page))

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        wait_until(lambda: shown() >= 5, "messages before")
        process.kill()
        wait_until(
            lambda: page.locator(".connection").get_attribute("data-state") != "connected", "the loss", 20
        )
        lost_at = len(published)
        wait_until(lambda: len(published) >= lost_at + 20, "messages meanwhile and after")
        connected(page)
    finally:
        enough.set()
        publisher.join()
    wait_until(lambda: shown() >= len(published), "all messages")
    assert said(page) == published
    expect(page.locator(".resume")).to_contain_text("nothing")
    wait_until(lambda: running.output.count(f"{gateway} is back"), "the gateway")


def test_gateways_are_listed(windows: Windows) -> None:
    page = windows.open("gateways")
    here = connected(page)
    expect(page.locator("[data-gateway]")).to_have_count(2)
    expect(page.locator(f"[data-gateway={here}]")).to_contain_text("you are here")
    for fact in ("Connections", "Memory", "Slow clients", "Messages out"):
        expect(page.locator(f"[data-gateway={here}] dt", has_text=fact)).to_be_visible()
    expect(page.locator(f"[data-gateway={here}] dd b").first).to_have_text(re.compile(r"[1-9]"))
