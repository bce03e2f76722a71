"""Browser windows that record errors, violations of the content policy, and requests to other hosts."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.requires import missing, need

try:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright
except ModuleNotFoundError:
    # `start_browser`, which everything here needs, says so.
    Browser = BrowserContext = Locator = Page = Any
    expect = sync_playwright = None

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "dashboard" / "node_modules" / "axe-core" / "axe.min.js"
DIST = ROOT / "gateway" / "dashboard" / "dist"

VIEWS = ["overview", "alerts", "presence", "rooms/hall", "gateways", "logs"]
DESKTOP = (1280, 800)
PHONE = (360, 740)

# The machine is shared with the other suites.
PATIENCE_MS = 20_000

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# On a machine that is too busy a part of the deployment may not answer in time. The page says so and asks again.
_TOO_BUSY = re.compile(r"status of 503")
# The containers of another suite come and go, and Chromium gives up what it asks for at that moment.
_OTHER_NETWORKS = re.compile(r"net::ERR_NETWORK_CHANGED")

# Long tasks keep a page from answering; they are counted from the first moment on.
_WATCH_TASKS = """
window.longTasks = [];
new PerformanceObserver((list) => {
  for (const { startTime, duration } of list.getEntries()) window.longTasks.push({ startTime, duration });
}).observe({ type: "longtask", buffered: true });
"""


@contextmanager
def start_browser() -> Iterator[Browser]:
    """Start the Chromium that is installed here."""
    if sync_playwright is None:
        missing("playwright", "REQUIRE_ALL=1 make .venv/.synced-all, or: uv sync --group browser")
    chromium = need("chromium", "apt-get install chromium")
    if not (DIST / "index.html").is_file():
        missing("the built dashboard", "make dashboard")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield browser
        browser.close()


class Windows:
    """Windows of one test. Each has its own session, as if on another machine."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url
        self._contexts: list[BrowserContext] = []
        self._allowed = [_TOO_BUSY, _OTHER_NETWORKS]
        self._faults: list[str] = []
        self.addresses: list[str] = []

    def open(
        self,
        view: str = "overview",
        *,
        username: str = "",
        scheme: str = "light",
        size: tuple[int, int] = DESKTOP,
        kept: dict[str, str] | None = None,
    ) -> Page:
        """Open a view in a new window; `kept` is in its session storage."""
        context = self._browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            reduced_motion="reduce",
            locale="en-GB",
        )
        self._contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(_WATCH_TASKS)
        storage = (kept or {}) | ({"tidings.username": username} if username else {})
        for key, value in storage.items():
            pair = f"{json.dumps(key)}, {json.dumps(value)}"
            context.add_init_script(f"try {{ sessionStorage.setItem({pair}) }} catch {{}}")
        page = context.new_page()
        page.on("console", self._on_console)
        page.on("pageerror", lambda fault: self._faults.append(f"uncaught: {fault}"))
        page.on("request", lambda request: self._on_address(request.url))
        page.on("websocket", lambda socket: self._on_address(socket.url))
        page.goto(f"{self._url}/#/{view}")
        return page

    def allow(self, pattern: str) -> None:
        """Expect console errors like this: of a server that was killed, for one."""
        self._allowed.append(re.compile(pattern))

    def close(self) -> None:
        """Close all windows, and fail if anything went wrong in them."""
        for context in self._contexts:
            context.close()
        if self._faults:
            raise AssertionError("\n".join(["what went wrong in a window:", *self._faults]))

    def _on_console(self, message: Any) -> None:
        if message.type not in ("error", "warning"):
            return
        text = f"{message.text} ({message.location.get('url', '')})"
        if not any(pattern.search(text) for pattern in self._allowed):
            self._faults.append(text)

    def _on_address(self, url: str) -> None:
        self.addresses.append(url)
        if urlsplit(url).netloc not in ("", urlsplit(self._url).netloc):
            self._faults.append(f"a request to another host: {url}")


def connected(page: Page) -> str:
    """Wait until the page is connected; return the gateway it is on."""
    expect(page.locator(".connection")).to_have_attribute("data-state", "connected")
    expect(page.locator(".connection b")).not_to_have_text("a gateway")
    return page.locator(".connection b").inner_text()


def violations(page: Page) -> list[str]:
    """Return what axe finds wrong with the page, one line each."""
    if not AXE.is_file():
        missing("axe-core", "make test-js")
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(
        "axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] })"
    )
    return [
        f"{each['id']} ({each['help']}): {node['target']} {node['failureSummary']}"
        for each in found["violations"]
        for node in each["nodes"]
    ]
