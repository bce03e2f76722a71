"""Serving the dashboard's files: from memory, compressed once, and no longer asked for once a browser has them."""

import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# Scripts, styles and fonts from this host alone, connections to it alone; nothing inline, nothing framed, and no text
# that becomes markup.
CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)

# The page is asked for each time, so that a new version shows at once. What it refers to has a name made from the
# content: under that name it never changes.
_REVALIDATE: Final = "no-cache"
_FOR_EVER: Final = "public, max-age=31536000, immutable"

_MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "woff2": "font/woff2",
}
# Fonts are compressed by themselves.
_COMPRESSIBLE: Final = frozenset({"html", "js", "css", "svg"})


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    compressed: bytes | None
    media_type: str
    cache: str
    etag: str

    async def answer(self, request: Request) -> Response:
        """Answer the file, or 304 to a browser that has it."""
        compressed = self.compressed if _takes_gzip(request.headers) else None
        # The compressed form is another representation and needs a tag of its own (RFC 9110, 8.8.3.3).
        etag = f'"{self.etag}"' if compressed is None else f'"{self.etag}-gzip"'
        headers = {
            "cache-control": self.cache,
            "etag": etag,
            "content-security-policy": CONTENT_POLICY,
            "cross-origin-opener-policy": "same-origin",
            "vary": "Accept-Encoding",
        }
        known = {
            tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")
        }
        if etag in known:
            return Response(status_code=304, headers=headers)
        if compressed is None:
            return Response(self.body, headers=headers, media_type=self.media_type)
        headers["content-encoding"] = "gzip"
        return Response(compressed, headers=headers, media_type=self.media_type)


def page_routes(built: Traversable | None = None) -> list[Route]:
    """Return the routes of the page and its files, read now; `built` is the folder that the build wrote."""
    package = resources.files(__package__)
    folder = package.joinpath("dist") if built is None else built
    if not folder.joinpath("index.html").is_file():
        return [_route("/", package.joinpath("unbuilt.html"), _REVALIDATE)]
    top = [file for file in folder.iterdir() if file.is_file() and file.name != "index.html"]
    named = [(f"/{file.name}", file, _REVALIDATE) for file in top]
    named += [(f"/assets/{file.name}", file, _FOR_EVER) for file in folder.joinpath("assets").iterdir()]
    routes = [_route(path, file, cache) for path, file, cache in named if _suffix(file) in _MEDIA_TYPES]
    return [_route("/", folder.joinpath("index.html"), _REVALIDATE), *routes]


def _route(path: str, file: Traversable, cache: str) -> Route:
    body, suffix = file.read_bytes(), _suffix(file)
    compressed = gzip.compress(body, mtime=0) if suffix in _COMPRESSIBLE else None
    etag = hashlib.sha256(body).hexdigest()[:32]
    return Route(path, _File(body, compressed, _MEDIA_TYPES[suffix], cache, etag).answer, methods=["GET"])


def _suffix(file: Traversable) -> str:
    return file.name.rpartition(".")[2]


def _takes_gzip(headers: Headers) -> bool:
    """Say whether gzip is among the encodings that are accepted, and not with a weight of 0."""
    for each in headers.get("accept-encoding", "").split(","):
        coding, _, weight = each.replace(" ", "").partition(";q=")
        if coding.lower() == "gzip":
            return weight.strip("0.") != "" if weight else True
    return False
