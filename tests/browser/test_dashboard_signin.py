"""Signing in with a token, and the permissions that a token lacks."""

import time
from collections.abc import Iterator

import jwt
import pytest

from tests.browser.windows import Browser, Windows, connected, expect
from tests.support.requires import need
from tests.support.running import RunningTidings

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.xdist_group("browser")]

SECRET = "a-secret-for-tests-of-32-bytes-or-more"
# Refused requests are errors to a browser, whatever the page makes of them.
REFUSED = r"status of 40[13]|WebSocket connection to"


@pytest.fixture(scope="module")
def guarded(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTidings]:
    need("nats-server")
    need("redis-server")
    environment = {"TIDINGS_AUTH": "jwt", "TIDINGS_JWT_SECRETS": SECRET}
    with RunningTidings(tmp_path_factory.mktemp("guarded"), "--gateways", "1", **environment) as tidings:
        yield tidings.wait_ready()


@pytest.fixture
def windows(browser: Browser, guarded: RunningTidings) -> Iterator[Windows]:
    windows = Windows(browser, guarded.url)
    windows.allow(REFUSED)
    yield windows
    windows.close()


def token(**tidings: object) -> str:
    claims = {"sub": "ada", "name": "Ada", "aud": "tidings", "exp": int(time.time()) + 300}
    return jwt.encode(claims | ({"tidings": tidings} if tidings else {}), SECRET, algorithm="HS256")


def test_a_token_is_asked_for_and_opens_the_page(windows: Windows) -> None:
    page = windows.open()
    expect(page.get_by_role("heading", name="This server asks for a token")).to_be_visible()
    expect(page.get_by_role("navigation")).to_have_count(0)

    page.get_by_label("Token").fill("not.a.token")
    page.get_by_role("button", name="Connect").click()
    expect(page.get_by_role("alert")).to_contain_text("refused")

    admin = token(admin=True)
    page.get_by_label("Token").fill(admin)
    page.get_by_role("button", name="Connect").click()
    connected(page)
    expect(page.locator("[data-metric=cpu] b")).to_contain_text("%")
    expect(page.locator(".notice")).to_have_count(0)

    page.reload()  # it is kept in the tab
    connected(page)
    assert any("ticket=" in address for address in windows.addresses)
    assert not [address for address in windows.addresses if admin in address]

    page.get_by_role("button", name="you: name, status and token").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="This server asks for a token")).to_be_visible()


def test_missing_permissions_are_shown(windows: Windows) -> None:
    page = windows.open(kept={"tidings.token": token()})
    connected(page)
    expect(page.locator(".notice.warning").first).to_contain_text("does not allow to see metrics, alerts")
    page.get_by_role("link", name="Logs").click()
    expect(page.locator(".notice.warning", has_text="follow logs")).to_be_visible()
    page.get_by_role("link", name="Presence").click()
    expect(page.locator(".person", has_text="Ada")).to_be_visible()


def test_reading_is_not_changing(windows: Windows) -> None:
    page = windows.open(
        "alerts", kept={"tidings.token": token(channels=["metrics", "alerts", "presence", "logs"])}
    )
    connected(page)
    page.get_by_role("button", name="New silence").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Value").fill("cpu")
    dialog.get_by_label("Why").fill("because")
    dialog.get_by_role("button", name="Silence", exact=True).click()
    expect(dialog.get_by_role("alert")).to_have_text("Your token does not allow this.")
