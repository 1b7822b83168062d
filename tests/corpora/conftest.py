"""A server on the loopback interface that breaks off, refuses and lies as it is told."""

import http.server
import threading
from collections.abc import Iterator

import pytest


class LoopbackServer(http.server.ThreadingHTTPServer):
    """Serves `pages`, path -> bytes. The other attributes are the test's to set, and to read.

    Args:
        pages: What there is.
        headers: Sent with every page.
        failures: (status, headers) of the answers that come before anything else.
        breaks: Offsets at which answers break off, one for each; when they are used up, answers are whole.
        resumes: Whether Range is understood.
        announces: Whether sizes are.
        holds_at: Offset at which an answer waits for `released`.
        ranges: The Range header of every request for a page.
        sent: Bytes of every page that was begun.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, bytes] = {}
        self.headers: dict[str, str] = {}
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.breaks: list[int] = []
        self.resumes = True
        self.announces = True
        self.holds_at: int | None = None
        self.held, self.released = threading.Event(), threading.Event()
        self.ranges: list[str | None] = []
        self.sent: list[int] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: LoopbackServer

    def do_GET(self) -> None:
        server, content = self.server, self.server.pages.get(self.path)
        if content is None:
            self.send_error(404)
            return
        wanted = self.headers.get("Range")
        server.ranges.append(wanted)
        if server.failures:
            status, headers = server.failures.pop(0)
            self.begin(status, {"Content-Length": "0", **headers})
            return
        condition = self.headers.get("If-Range")
        stale = condition is not None and condition not in server.headers.values()
        start = 0
        headers = dict(server.headers)
        if wanted is not None and server.resumes and not stale:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.begin(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(content)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if server.announces:
            headers["Content-Length"] = str(len(content) - start)
        if self.path.endswith(".gz"):
            headers["Content-Encoding"] = "gzip"  # some servers do, though the file is meant as it is
        self.begin(206 if start else 200, headers)
        end = server.breaks.pop(0) if server.breaks else len(content)
        pause = end if server.holds_at is None else server.holds_at
        server.sent.append(end - start)  # before the client has it, and a test looks
        try:
            self.wfile.write(content[start:pause])
            if pause < end:
                server.held.set()
                server.released.wait()
                self.wfile.write(content[pause:end])
        except ConnectionError:
            server.sent[-1] = pause - start

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()
