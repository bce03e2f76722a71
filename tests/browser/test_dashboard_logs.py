"""Logs: live, filtered, paused, opened."""

import httpx
import pytest

from tests.browser.windows import Locator, Page, Windows, connected, expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.xdist_group("browser")]


def push(api: httpx.Client, *events: str, **more: object) -> None:
    lines = [{"source": "shop", "event": event, **more} for event in events]
    assert api.post("/api/logs", json=lines).json()["accepted"] == len(events)


def line(page: Page, event: str) -> Locator:
    return page.locator(".log").filter(has_text=event)


def test_lines_come_and_are_filtered(windows: Windows, api: httpx.Client) -> None:
    page = windows.open("logs")
    connected(page)
    # Not before: a crowd of another test that just left may have written more lines than a page asks for.
    push(api, "till-4 opened")
    level, words, source = (page.get_by_label(name) for name in ("Least level", "Only lines with", "Source"))
    words.fill("till-4")  # the processes write lines too, and only those in sight exist
    expect(line(page, "till-4 opened")).to_be_visible()
    push(api, "till-4 refused", level="error", fields={"order": 7, "reason": "expired"})
    push(api, "till-4 paid")
    push(api, "till-4 looked", level="debug")
    refused, paid, looked = (line(page, f"till-4 {event}") for event in ("refused", "paid", "looked"))
    expect(refused).to_contain_text("order=7 reason=expired")
    expect(paid).to_be_visible()
    expect(looked).to_have_count(0)

    level.select_option("debug")
    expect(looked).to_be_visible()
    level.select_option("error")
    expect(paid).to_have_count(0)
    expect(refused).to_be_visible()
    level.select_option("info")

    words.fill("till-4 -refused -opened")
    expect(page.locator(".log .event")).to_have_text(["till-4 paid"])
    words.fill("no such thing")
    expect(page.get_by_text("No line passes the filters")).to_be_visible()
    words.fill("")
    source.select_option("shop")
    expect(line(page, "till-4 opened")).to_be_visible()
    assert set(page.locator(".log .source").all_inner_texts()) == {"shop"}


def test_pause_holds_and_counts(windows: Windows, api: httpx.Client) -> None:
    page = windows.open("logs")
    connected(page)
    page.get_by_label("Only lines with").fill("of the pause")
    push(api, "first of the pause")
    expect(line(page, "first of the pause")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    push(api, "second of the pause", "third of the pause")
    go_on = page.get_by_role("button", name="Go on")
    expect(go_on).to_contain_text("new)")
    expect(line(page, "third of the pause")).to_have_count(0)
    go_on.click()
    expect(line(page, "third of the pause")).to_be_visible()

    page.get_by_role("button", name="Clear").click()
    expect(line(page, "third of the pause")).to_have_count(0)


def test_a_line_opens_by_keyboard(windows: Windows, api: httpx.Client) -> None:
    page = windows.open("logs")
    connected(page)
    page.get_by_label("Only lines with").fill("be unfolded")
    push(api, "to be unfolded", fields={"nested": {"deep": [1, 2]}})
    expect(line(page, "to be unfolded")).to_be_visible()
    rows = page.get_by_role("listbox")
    rows.focus()
    page.keyboard.press("End")
    details = page.get_by_label("The chosen line")
    expect(details).to_contain_text('{"deep":[1,2]}')
    expect(rows.get_by_role("option", selected=True)).to_contain_text("to be unfolded")
    rows.focus()
    page.keyboard.press("Escape")
    expect(details).to_have_count(0)
