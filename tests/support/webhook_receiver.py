"""A server that receives webhooks: it checks signatures, records posts, and fails on request."""

import contextlib
import hashlib
import hmac
import http.server
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass
class Post:
    """One request."""

    body: bytes
    headers: dict[str, str]
    answered: int
    at: float = 0.0

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    def signed_with(self, key: str) -> bool:
        """Whether one of the signatures is valid, as an application would check it."""
        stamp = self.headers["tidings-timestamp"]
        right = hmac.new(key.encode(), f"{stamp}.".encode() + self.body, hashlib.sha256).hexdigest()
        signatures = self.headers["tidings-signature"].split(",")
        return abs(time.time() - int(stamp)) < 60 and any(
            hmac.compare_digest(signature, f"v1={right}") for signature in signatures
        )


@dataclass
class WebhookReceiver:
    """Listens on a free loopback port. `status` is what it answers; `stop` and `start` keep the port."""

    status: int = 200
    delay_s: float = 0.0
    drip_s: float = 0.0  # sends a byte of a header every 0.1 s for so long, and no end of headers
    retry_after: str = ""
    poison: str = ""  # posts that mention this are answered with 400
    posts: list[Post] = field(default_factory=list)
    port: int = 0
    _server: http.server.ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks?token=x"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [post.json for post in self.posts]

    @property
    def keys(self) -> list[str]:
        """The idempotency keys of all posts."""
        return [post.headers.get("idempotency-key", "") for post in self.posts]

    @property
    def accepted(self) -> list[dict[str, Any]]:
        """The events of all posts that were answered with 2xx, in their order."""
        return [event for post in self.posts if post.answered == 200 for event in post.json["events"]]

    def start(self) -> Self:
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = receiver.status
                if receiver.poison and receiver.poison.encode() in body:
                    status = 400
                time.sleep(receiver.delay_s)
                receiver.posts.append(Post(body, headers, status, time.monotonic()))
                if receiver.drip_s:
                    self.drip()
                    return
                self.send_response(status)
                if receiver.retry_after:
                    self.send_header("retry-after", receiver.retry_after)
                self.send_header("content-length", "0")
                self.end_headers()

            def drip(self) -> None:
                self.close_connection = True
                end = time.monotonic() + receiver.drip_s
                with contextlib.suppress(OSError):  # the client may have closed
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
                    while time.monotonic() < end:
                        self.wfile.write(b"x")
                        time.sleep(0.1)

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        http.server.ThreadingHTTPServer.allow_reuse_address = True
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
