"""Accessibility of the dashboard: keyboard, screen reader, phone, both themes."""

from collections.abc import Iterator

import httpx
import pytest

from tests.browser.windows import PHONE, VIEWS, Page, Windows, connected, expect, violations

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module", autouse=True)
def _things_to_show(api: httpx.Client) -> Iterator[None]:
    """An alert, a silence, something said and something logged: empty views are accessible easily."""
    api.put("/api/rules", json={"metric": "queue_depth", "source": "shop", "warning": 10})
    api.post("/api/metrics", json={"source": "shop", "gauges": {"queue_depth": 20}})
    matchers = [{"name": "metric", "value": "cpu"}]
    body = {"matchers": matchers, "duration": 900, "comment": "a loud day"}
    silence = api.post("/api/silences", json=body).json()
    api.post("/api/publish", json={"room": "hall", "content": "good morning", "username": "Ada"})
    api.post("/api/logs", json={"source": "shop", "level": "error", "event": "card refused"})
    yield
    api.delete(f"/api/silences/{silence['id']}")
    api.post("/api/metrics", json={"source": "shop", "gauges": {"queue_depth": 0}})
    api.delete("/api/rules/queue_depth@shop")


def show(page: Page, view: str) -> None:
    """Go to a view, and wait until it shows what it is about."""
    page.evaluate("view => { location.hash = `#/${view}` }", view)
    expect(page.get_by_role("heading", level=1)).to_have_text(view.partition("/")[0].capitalize())
    something = {
        "overview": "[data-metric=cpu] b >> text=%",
        "alerts": "[data-silence]",
        "presence": ".person",
        "rooms/hall": ".message",
        "gateways": "[data-gateway]",
        "logs": ".log.error",
    }[view]
    expect(page.locator(something).first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(windows: Windows, scheme: str) -> None:
    page = windows.open(scheme=scheme, username="Ada")
    connected(page)
    assert page.locator("html").get_attribute("data-theme") == scheme
    found = {}
    for view in VIEWS:
        show(page, view)
        found[view] = violations(page)
    show(page, "alerts")
    page.get_by_role("button", name="New silence").click()
    found["a dialog"] = violations(page)
    assert {where: what for where, what in found.items() if what} == {}


def test_on_a_phone_nothing_is_wider_than_the_screen(windows: Windows) -> None:
    page = windows.open(size=PHONE)
    connected(page)
    wide, found = {}, {}
    for view in VIEWS:
        show(page, view)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > PHONE[0]:
            wide[view] = width
        found[view] = violations(page)
    assert wide == {}
    assert {where: what for where, what in found.items() if what} == {}
    expect(page.get_by_role("navigation")).to_be_in_viewport()
    expect(page.locator(".connection")).to_be_in_viewport()


def test_the_keyboard_reaches_everything(windows: Windows) -> None:
    page = windows.open()
    connected(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()

    page.reload()
    connected(page)
    order = []
    for _ in range(12):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.textContent.trim()"))
    assert [
        name
        for name in order
        if name.split("1")[0] in ("Overview", "Alerts", "Presence", "Rooms", "Gateways", "Logs")
    ]

    page.get_by_role("navigation").get_by_role("link", name="Presence").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Presence")
    expect(page.get_by_role("main")).to_be_focused()  # so that the next Tab is in the view, not in the menu
    page.keyboard.press("Tab")
    expect(page.get_by_label("Search by name")).to_be_focused()

    page.get_by_role("navigation").get_by_role("link", name="Alerts").focus()
    page.keyboard.press("Enter")
    button = page.get_by_role("button", name="New silence")
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    for _ in range(15):  # the focus stays in the dialog, or goes to the browser's own bar and back
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(button).to_be_focused()


def test_the_theme_can_be_chosen_and_is_kept(windows: Windows) -> None:
    page = windows.open(scheme="light")
    connected(page)
    root = page.locator("html")
    expect(root).to_have_attribute("data-theme", "light")
    page.get_by_role("button", name="Switch to dark").click()
    expect(root).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(root).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Switch to light").click()
    expect(root).to_have_attribute("data-theme", "light")
    page.emulate_media(color_scheme="dark")
    expect(root).to_have_attribute("data-theme", "dark")  # the system's own is followed again
