"""One deployment and one browser for all tests; each test has its own windows, which are checked for errors."""

from collections.abc import Iterator

import httpx
import pytest

from tests.browser.windows import Browser, Windows, start_browser
from tests.support.requires import need
from tests.support.running import RunningTidings


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with start_browser() as browser:
        yield browser


@pytest.fixture(scope="package")
def running(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTidings]:
    need("nats-server")
    need("redis-server")
    with RunningTidings(tmp_path_factory.mktemp("dashboard")) as tidings:
        yield tidings.wait_ready()


@pytest.fixture
def windows(browser: Browser, running: RunningTidings) -> Iterator[Windows]:
    windows = Windows(browser, running.url)
    yield windows
    windows.close()


@pytest.fixture(scope="package")
def api(running: RunningTidings) -> Iterator[httpx.Client]:
    """The HTTP surface of the deployment, for what happens elsewhere than in the browser."""
    # Tried again, because a test may just have killed the gateway that would have answered.
    with httpx.Client(base_url=running.url, transport=httpx.HTTPTransport(retries=3), timeout=10) as client:
        yield client
