"""A server between a gateway and the Data API, which counts requests and fails where a test says."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

Answer = tuple[int, bytes]
CUT = (0, b"")
"""The answer of a server that goes away: the connection is closed without one."""


@dataclass
class Proxy:
    """A running proxy; `before` may answer a request itself, `after` may take the answer's place once it was carried out."""

    url: str = ""
    requests: list[str] = field(default_factory=list)
    before: Callable[[str], Answer | None] = lambda line: None
    after: Callable[[str], Answer | None] = lambda line: None


@contextmanager
def forward(target: str) -> Iterator[Proxy]:
    """Forward everything to `target`, until the block is left."""
    proxy = Proxy()
    client = httpx.Client(timeout=30.0)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, answer: Answer, headers: dict[str, str] | None = None) -> None:
            if answer == CUT:
                self.close_connection = True
                return
            self.send_response(answer[0])
            for name, value in (headers or {"content-type": "application/json"}).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer[1])))
            self.end_headers()
            self.wfile.write(answer[1])

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            line = f"{self.command} {self.path}"
            proxy.requests.append(line)
            early = proxy.before(line)
            if early is not None:
                self.answer(early)
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "content-length")}
            came = client.request(self.command, target + self.path, content=body, headers=headers)
            late = proxy.after(line)
            kept = {name: value for name, value in came.headers.items() if name in ("content-type", "content-range")}
            self.answer((came.status_code, came.content) if late is None else late, kept if late is None else None)

        do_GET = do_POST = do_PATCH = do_DELETE = forward

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        client.close()
