"""A server that speaks OpenAI's embeddings from a script; when the script is over, it answers every request well."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


@dataclass
class Script:
    """What the server answers next (status and body), where it is, and what it was asked."""

    base_url: str = ""
    steps: list[tuple[int, str]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def vector_of(text: str) -> list[float]:
    """The server's vector of a text: its number of characters, then of letters a and b."""
    values = np.zeros(1536)
    values[:3] = len(text), text.count("a"), text.count("b")
    return [float(value) for value in values]


def answer(texts: list[str], **changes: Any) -> str:
    """The body of a good answer, last text first, with changes."""
    data = [{"object": "embedding", "index": i, "embedding": vector_of(text)} for i, text in reversed([*enumerate(texts)])]
    tokens = sum(len(text) for text in texts)
    body = {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return json.dumps(body | changes)


@contextmanager
def serve() -> Iterator[Script]:
    """Serve a script on a free port of this machine until the block is left."""
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            script.requests.append(request)
            script.keys.append(self.headers["Authorization"])
            assert self.path == "/v1/embeddings"
            status, text = script.steps.pop(0) if script.steps else (200, answer(request["input"]))
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
