"""Alerts: shown at once, acknowledged, silenced, resolved."""

from collections.abc import Iterator

import httpx
import pytest

from tests.browser.windows import Windows, connected, expect
from tests.support.deadline import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.xdist_group("browser")]

RULE = {"metric": "queue_depth", "source": "shop", "warning": 10, "critical": 100, "clearForS": 0}
ALERT = "queue_depth@shop-alert"


def push_depth(api: httpx.Client, depth: float) -> None:
    answer = api.post("/api/metrics", json={"source": "shop", "gauges": {"queue_depth": depth}})
    assert answer.json() == {"accepted": 1, "rejected": []}


@pytest.fixture
def firing(api: httpx.Client) -> Iterator[None]:
    """An alert that fires until it is resolved by a report."""
    assert api.put("/api/rules", json=RULE).status_code == 200

    def alerts() -> list[str]:
        push_depth(api, 20)  # a value counts for three seconds: again, until the rule is in force
        return [alert["id"] for alert in api.get("/api/alerts").json() if alert["id"] == ALERT]

    wait_until(alerts, "the alert")
    yield
    push_depth(api, 0)
    for silence in api.get("/api/silences").json():
        api.delete(f"/api/silences/{silence['id']}")
    api.delete("/api/rules/queue_depth@shop")


def test_an_alert_appears_and_resolves(windows: Windows, api: httpx.Client) -> None:
    page = windows.open("alerts")
    connected(page)
    expect(page.get_by_text("History")).to_be_visible()
    before = page.locator("[data-alert=errors-alert]")
    expect(before).to_have_count(0)

    # A source of its own: what `shop` counts is spread over the time since it was pushed last.
    api.post("/api/metrics", json={"source": "till", "requests": 120, "errors": 60})
    alert = page.locator("[data-alert=errors-alert]")
    expect(alert).to_contain_text("errors is")
    expect(alert).to_contain_text("critical at 50")
    expect(page.locator(".toast.critical, .toast.warning").filter(has_text="errors is")).to_be_visible()
    expect(page.locator("nav .badge")).to_be_visible()
    expect(page).to_have_title("(1) Alerts · Tidings") if page.locator(".alert").count() == 1 else None

    expect(alert).to_have_count(0)
    expect(page.locator(".toast.good").filter(has_text="errors is")).to_be_visible()
    past = page.locator(".past").filter(has_text="errors is").first
    expect(past).to_have_attribute("data-state", "resolved")


@pytest.mark.usefixtures("firing")
def test_acknowledging_shows_everywhere(windows: Windows) -> None:
    ada, grace = windows.open("alerts", username="Ada"), windows.open("alerts", username="Grace")
    alert = ada.locator(f"[data-alert='{ALERT}']")
    alert.get_by_role("button", name="Acknowledge").click()
    expect(alert.get_by_text("acknowledged")).to_be_visible()
    expect(alert.get_by_role("button", name="Acknowledge")).to_have_count(0)
    expect(grace.locator(f"[data-alert='{ALERT}']").get_by_text("acknowledged")).to_be_visible()


@pytest.mark.usefixtures("firing")
def test_silencing_and_expiring(windows: Windows, api: httpx.Client) -> None:
    page = windows.open("alerts", username="Ada")
    alert = page.locator(f"[data-alert='{ALERT}']")
    alert.get_by_role("button", name="Silence").click()
    dialog = page.get_by_role("dialog", name="Silence alerts")
    dialog.get_by_role("button", name="Silence", exact=True).click()
    expect(dialog).to_be_visible()  # a reason is asked for
    dialog.get_by_label("For").select_option(label="4 hours")
    dialog.get_by_label("Why").fill("moving the shop")
    dialog.get_by_role("button", name="Silence", exact=True).click()
    expect(dialog).to_have_count(0)

    expect(alert.get_by_text("silenced")).to_be_visible()
    silence = page.locator("[data-silence]").filter(has_text="moving the shop")
    expect(silence).to_contain_text("3 h 59 min left")
    expect(silence).to_contain_text("by Ada")
    [kept] = api.get("/api/silences").json()
    assert kept["matchers"] == [{"name": "id", "value": ALERT}]

    silence.get_by_role("button", name="Expire").click()
    expect(silence).to_have_count(0)
    expect(alert.get_by_text("silenced")).to_have_count(0)
    assert api.get("/api/silences").json() == []


def test_a_silence_by_pattern(windows: Windows, api: httpx.Client) -> None:
    page = windows.open("alerts")
    page.get_by_role("button", name="New silence").click()
    dialog = page.get_by_role("dialog", name="Silence alerts")
    dialog.get_by_label("How it compares").select_option("~")
    dialog.get_by_label("Value").fill("latency*")
    dialog.get_by_label("Why").fill("a slow day")
    dialog.get_by_label("Why").press("Enter")
    silence = page.locator("[data-silence]").filter(has_text="a slow day")
    expect(silence).to_contain_text("metric ~ latency*")
    silence.get_by_role("button", name="Expire").click()
    expect(silence).to_have_count(0)
