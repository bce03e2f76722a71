"""Serving the page's files: from memory, revalidated by content."""

import hashlib
from dataclasses import dataclass
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# Scripts and styles from this host alone, connections to it alone; nothing inline, nothing framed.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/page/room.js": ("room.js", "text/javascript; charset=utf-8"),
    "/page/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/page/connection.js": ("connection.js", "text/javascript; charset=utf-8"),
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
}


@dataclass(frozen=True, slots=True)
class _Asset:
    body: bytes
    media_type: str
    etag: str

    async def answer(self, request: Request) -> Response:
        """Answer the file, or 304 to a browser that has it."""
        headers = {
            # Kept by the browser but asked for each time: a new version shows at once, an old one costs nothing.
            "cache-control": "no-cache",
            "etag": self.etag,
            "content-security-policy": CONTENT_POLICY,
        }
        known = {
            tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")
        }
        if self.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers=headers, media_type=self.media_type)


def page_routes() -> list[Route]:
    """Return the routes of the page and its files, read now."""
    folder = resources.files(__package__)
    return [
        Route(path, _load(folder.joinpath(name).read_bytes(), media_type).answer, methods=["GET"])
        for path, (name, media_type) in _FILES.items()
    ]


def _load(body: bytes, media_type: str) -> _Asset:
    return _Asset(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
