"""A small server that speaks the storage API's wire format: enough of it for two buckets of private files."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

KEY = "sb_secret_of_the_storage"
_PATH = re.compile(r"/storage/v1/object/(?:(?P<what>sign|info)/)?(?P<bucket>[a-z-]+)/(?P<name>[0-9a-z/.]+)")


@dataclass
class Storage:
    """What lies in the server, and how often it is still to fail."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    buckets: set[str] = field(default_factory=lambda: {"model-artifacts", "feature-snapshots"})
    limit: int = 10**9
    failures: int = 0
    hang_ups: int = 0
    requests: list[str] = field(default_factory=list)


@contextmanager
def serve() -> Iterator[Storage]:
    """Serve until the block is left."""
    storage = Storage()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def send(self, status: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, status: int, code: str, message: str) -> None:
            body = {"statusCode": str(status), "error": code, "message": message}
            self.send(400 if status == 404 else status, json.dumps(body).encode())

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            storage.requests.append(f"{self.command} {self.path}")
            if storage.hang_ups:
                storage.hang_ups -= 1
                self.close_connection = True
                return
            if storage.failures:
                storage.failures -= 1
                self.refuse(503, "SlowDown", "too many requests")
                return
            parts = urlsplit(self.path)
            match = _PATH.fullmatch(parts.path)
            assert match is not None
            where = f"{match['bucket']}/{match['name']}"
            token = parse_qs(parts.query).get("token")
            if match["what"] == "sign" and self.command == "GET" and token:
                expires = token[0].split(".")[0]
                if token[0] == self.token(where, expires) and time.time() < int(expires):
                    self.send(200, storage.files[where], "application/octet-stream")
                else:
                    self.refuse(400, "InvalidJWT", "jwt expired")
                return
            if self.headers.get("apikey") != KEY or self.headers.get("Authorization") != f"Bearer {KEY}":
                self.refuse(403, "Unauthorized", "Invalid Compact JWS")
            elif match["bucket"] not in storage.buckets:
                self.refuse(404, "Bucket not found", "Bucket not found")
            elif self.command == "POST" and match["what"] is None:
                content = self.uploaded(body)
                if len(content) > storage.limit:
                    self.refuse(413, "Payload too large", "The object exceeded the maximum allowed size")
                elif where in storage.files and self.headers.get("x-upsert") != "true":
                    self.refuse(409, "Duplicate", "The resource already exists")
                else:
                    storage.files[where] = content
                    self.send(200, json.dumps({"Key": where, "Id": "1"}).encode())
            elif where not in storage.files:
                self.refuse(404, "not_found", "Object not found")
            elif match["what"] == "sign":
                expires = str(int(time.time()) + int(json.loads(body)["expiresIn"]))
                self.send(200, json.dumps({"signedURL": f"/object/sign/{where}?token={self.token(where, expires)}"}).encode())
            elif match["what"] == "info":
                self.send(200, json.dumps({"name": match["name"], "size": len(storage.files[where])}).encode())
            else:
                self.send(200, storage.files[where], "application/octet-stream")

        def uploaded(self, body: bytes) -> bytes:
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            message = BytesParser(EmailMessage, policy=HTTP).parsebytes(head + body)
            (part,) = (part for part in message.iter_parts() if part.get_filename())
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            return content

        @staticmethod
        def token(where: str, expires: str) -> str:
            return f"{expires}.{hashlib.sha256(f'{where} {expires} {KEY}'.encode()).hexdigest()}"

        do_GET = do_POST = handle_request

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    storage.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield storage
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
