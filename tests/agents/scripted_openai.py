"""A server that speaks OpenAI's chat completions and answers from a script: a whole language model in a few lines.

Each request takes the next entry of the script; when the script is over, every further request fails with HTTP 500, so
that a planner which asks more often than it should is noticed. As OpenAI does, it refuses a history in which a tool call
is not answered; as some servers of one's own do, one in which an id comes twice or arguments are not JSON.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Request = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server does with one request: `body` with `status`, after `delay` seconds, or half of it when `cut`."""

    body: str
    status: int = 200
    delay: float = 0.0
    cut: bool = False


Step = Answer | Callable[[Request], Answer]
"""An answer, or a function that makes one from the request."""


def say(text: str | None, *calls: tuple[Any, Any], usage: tuple[int, int, int] | None = (1000, 200, 50), **more: Any) -> Answer:
    """Answer with text and tool calls (name, arguments); arguments that are text are sent as they are, valid or not.

    `usage` holds tokens in, how many of them were cached, and tokens out. Ids are the same in every answer, as those of
    small servers are.
    """
    tool_calls = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": _as_text(arguments)}}
        for number, (name, arguments) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": text, **({"tool_calls": tool_calls} if calls else {}), **more}
    choice = {"index": 0, "finish_reason": "tool_calls" if calls else "stop", "message": message}
    body: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    if usage is not None:
        body["usage"] = {
            "prompt_tokens": usage[0],
            "prompt_tokens_details": {"cached_tokens": usage[1]},
            "completion_tokens": usage[2],
            "total_tokens": usage[0] + usage[2],
        }
    return Answer(body=json.dumps(body))


def fail(status: int, message: str = "no") -> Answer:
    """Answer with an HTTP error."""
    return Answer(body=json.dumps({"error": {"message": message}}), status=status)


def tool_texts(request: Request) -> list[str]:
    """Return what the tools answered to the last answer of the model, in order."""
    last = max(place for place, message in enumerate(request["messages"]) if message["role"] != "tool")
    return [message["content"] for message in request["messages"][last + 1 :]]


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _complaint(request: Request) -> str | None:
    """What a strict server has against the history of a request."""
    calls = [call for message in request["messages"] for call in message.get("tool_calls", [])]
    asked = [call["id"] for call in calls]
    answered = [message["tool_call_id"] for message in request["messages"] if message["role"] == "tool"]
    if len(set(asked)) < len(asked) or not all(len(call_id) == 9 and call_id.isalnum() for call_id in asked):
        return f"tool calls must have ids of their own of nine letters and digits, had {asked}"
    try:
        for call in calls:
            json.loads(call["function"]["arguments"])
    except json.JSONDecodeError as error:
        return f"arguments in the history are not JSON: {error}"
    return None if asked == answered else f"tool calls {asked} were answered as {answered}"


@dataclass
class ScriptedOpenAI:
    """Serve a script on a free port of this machine; `requests` holds what was asked."""

    script: list[Step] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path: str, request: Request) -> Answer:
        self.requests.append(request)
        problem = f"there is no {path}" if path != "/v1/chat/completions" else _complaint(request)
        if problem is not None:
            self.complaints.append(problem)
            return fail(400, problem)
        step = self.script.pop(0) if self.script else fail(500, "the script is over")
        return step(request) if callable(step) else step

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                answer = owner._answer(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                if owner._closing.wait(answer.delay):
                    return
                body = answer.body.encode()
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if answer.cut else body)

            def log_message(self, format: str, *args: Any) -> None:
                """Stay quiet."""

        return Handler
