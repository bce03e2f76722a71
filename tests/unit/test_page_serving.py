"""The dashboard's files: content, caching and content policy."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from gateway.dashboard import page_routes

SCRIPT = "export const text = 'a script of some length, so that compressing it is worth while';\n" * 20


@pytest.fixture
def built(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text('<script type="module" src="/assets/index-abc.js"></script>')
    (tmp_path / "favicon.svg").write_text("<svg/>")
    (tmp_path / ".built-from").write_text("a checksum")
    (tmp_path / "assets" / "index-abc.js").write_text(SCRIPT)
    (tmp_path / "assets" / "index-abc.js.map").write_text("{}")
    (tmp_path / "assets" / "font-abc.woff2").write_bytes(b"wOF2")
    return tmp_path


def client_of(folder: Path) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=Starlette(routes=page_routes(folder)))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")


@pytest.fixture
async def client(built: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(built) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "media_type", "kept"),
    [
        ("/", "text/html; charset=utf-8", "no-cache"),
        ("/favicon.svg", "image/svg+xml", "no-cache"),
        ("/assets/index-abc.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"),
        ("/assets/font-abc.woff2", "font/woff2", "public, max-age=31536000, immutable"),
    ],
)
async def test_files_are_cached_according_to_their_names(
    client: httpx.AsyncClient, path: str, media_type: str, kept: str
) -> None:
    answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["cache-control"] == kept
    assert (await client.head(path)).status_code == 200

    again = await client.get(path, headers={"if-none-match": f'"other", W/{answer.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == answer.headers["etag"]


async def test_text_is_compressed_for_clients_that_accept_it(client: httpx.AsyncClient, built: Path) -> None:
    small = await client.get("/assets/index-abc.js", headers={"accept-encoding": "br, gzip;q=0.8"})
    plain = await client.get("/assets/index-abc.js", headers={"accept-encoding": "gzip;q=0, br"})

    assert small.headers["content-encoding"] == "gzip"
    assert int(small.headers["content-length"]) == len(gzip.compress(SCRIPT.encode(), mtime=0)) < len(SCRIPT)
    assert "content-encoding" not in plain.headers
    assert small.text == plain.text == SCRIPT
    assert small.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert small.headers["etag"] != plain.headers["etag"]

    font = await client.get("/assets/font-abc.woff2", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in font.headers


async def test_nothing_else_of_the_folder_is_served(client: httpx.AsyncClient) -> None:
    for path in (
        "/.built-from",
        "/assets/index-abc.js.map",
        "/assets/",
        "/assets/../.built-from",
        "/index.html",
    ):
        assert (await client.get(path)).status_code == 404, path


async def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    for path in ("/", "/assets/index-abc.js"):
        policy = (await client.get(path)).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert "frame-ancestors 'none'" in policy
        for loose in ("unsafe", "http:", "https:", "*"):
            assert loose not in policy


async def test_without_a_build_the_page_names_the_command(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        answer = await client.get("/")
        assert answer.status_code == 200
        assert "make dashboard" in answer.text
        assert answer.headers["cache-control"] == "no-cache"
        for inline in ("<script", "<style", " style=", " onclick=", "javascript:"):
            assert inline not in answer.text
