"""A file server on 127.0.0.1 that can misbehave, for the tests of downloads."""

from __future__ import annotations

import base64
import hashlib
import http.server

import numpy as np

CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8))


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content, usedforsecurity=False).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; `cut` closes the connection after so many bytes of a body.

    `states_md5`: answers hold the MD5 of the file, as those of Google's storage do.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/file": CONTENT}
        self.cut: int | None = None
        self.ranges_known = True
        self.states_md5 = True
        self.requests: list[tuple[str, str | None]] = []
        self.encodings: set[str | None] = set()  # that were said to be understood
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        self.server.encodings.add(self.headers.get("Accept-Encoding"))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if not self.server.ranges_known:
            start = 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: self.server.cut])

    def do_HEAD(self) -> None:
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("x-goog-hash", "crc32c=AAAAAA==")
        if self.server.states_md5:
            digest = hashlib.md5(content, usedforsecurity=False).digest()
            self.send_header("x-goog-hash", f"md5={base64.b64encode(digest).decode()}")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass
