"""The overview: live data, history, and late data."""

import re
import signal

import httpx
import pytest

from tests.browser.windows import Page, Windows, connected, expect
from tests.support.deadline import wait_until
from tests.support.running import RunningTidings

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.xdist_group("browser")]

CHARTS = ["cpu", "memory", "disk", "requests", "errors", "latency", "network"]
NO_VALUE = "\N{EN DASH}"
NUMBER = re.compile(r"\d")


def figures(page: Page) -> list[str]:
    return page.locator(".chart .values b").all_inner_texts()


def test_numbers_move(windows: Windows) -> None:
    page = windows.open()
    expect(page.locator("[data-metric=cpu] b")).to_have_text(NUMBER)
    connected(page)

    seen = {tuple(figures(page))}

    def several() -> bool:
        seen.add(tuple(figures(page)))
        return len(seen) >= 3

    wait_until(several, "figures that move")
    assert [chart.get_attribute("data-chart") for chart in page.locator(".chart").all()] == CHARTS
    assert page.locator(".chart canvas").count() == len(CHARTS)
    assert NO_VALUE not in figures(page)


def test_thresholds_of_the_rules_are_shown(windows: Windows, api: httpx.Client) -> None:
    assert api.put("/api/rules", json={"metric": "disk", "critical": 99.5}).status_code == 200
    try:
        page = windows.open()
        expect(page.locator("[data-chart=cpu] .limits .warning")).to_have_text("warning at 70 %")
        expect(page.locator("[data-chart=cpu] .limits .critical")).to_have_text("critical at 90 %")
        expect(page.locator("[data-chart=disk] .limits")).to_have_text("critical at 99.5 %")
    finally:
        api.delete("/api/rules/disk")


def test_one_crosshair_over_all_charts_and_zoom(windows: Windows) -> None:
    page = windows.open()
    connected(page)
    wait_until(lambda: NO_VALUE not in figures(page), "figures")

    with page.expect_request(lambda request: "step=5" in request.url and "/history" in request.url):
        page.get_by_role("button", name="Last 1 h").click()
    expect(page.get_by_role("button", name="Last 1 h")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Last 5 min").click()

    plot = page.locator("[data-chart=cpu] .u-over")
    box = plot.bounding_box()
    assert box is not None
    right, middle = box["x"] + box["width"] - 4, box["y"] + box["height"] / 2
    page.mouse.move(right, middle)
    expect(page.locator(".chart .values.then")).to_have_count(len(CHARTS))
    expect(page.locator(".when.then")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))

    # A drag over most of the last minute.
    page.mouse.move(right - 90, middle)
    page.mouse.down()
    page.mouse.move(right - 40, middle, steps=4)
    page.mouse.move(right, middle, steps=4)
    page.mouse.up()
    reset = page.get_by_role("button", name="Reset zoom")
    expect(reset).to_be_visible()
    page.mouse.move(5, 5)
    expect(page.locator(".when")).to_contain_text(NO_VALUE)
    reset.click()
    expect(reset).to_have_count(0)


def test_charts_by_keyboard(windows: Windows) -> None:
    page = windows.open()
    connected(page)
    wait_until(lambda: NO_VALUE not in figures(page), "figures")
    page.locator("[data-chart=memory] .plot").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".chart .values.then")).to_have_count(len(CHARTS))
    page.keyboard.press("+")
    expect(page.get_by_role("button", name="Reset zoom")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Reset zoom")).to_have_count(0)
    expect(page.locator(".chart .values.then")).to_have_count(0)


def test_late_data_is_shown(windows: Windows, running: RunningTidings) -> None:
    page = windows.open()
    connected(page)
    expect(page.locator("[data-metric=cpu] b")).to_have_text(NUMBER)
    expect(page.locator(".late")).to_have_count(0)
    metrics = running.child("metrics-1")
    metrics.send_signal(signal.SIGSTOP)
    try:
        expect(page.locator(".late")).to_contain_text(re.compile(r"data is \d+ s late"))
        expect(page.locator(".charts.stale")).to_have_count(1)
    finally:
        metrics.send_signal(signal.SIGCONT)
    expect(page.locator(".late")).to_have_count(0)
