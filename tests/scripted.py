"""An API server that answers what a test tells it to, request by request, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from almanac.kubeconfig import Access

JOBS = "/apis/almanac.dev/v1alpha1/namespaces/default/forecastjobs"
PODS = "/api/v1/namespaces/default/pods"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


def refusal(code: int, reason: str, message: str, **details: Any) -> tuple[int, dict[str, Any]]:
    """An answer as Kubernetes writes it where it says no."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    return code, {**status, "message": message, "details": details}


def missing(name: str) -> tuple[int, dict[str, Any]]:
    """No such job."""
    message = f'forecastjobs.almanac.dev "{name}" not found'
    return refusal(404, "NotFound", message, name=name, group="almanac.dev", kind="forecastjobs")


def events(*changes: tuple[str, dict[str, Any]]) -> tuple[int, bytes]:
    """A watch that says these things and ends."""
    lines = (json.dumps({"type": kind, "object": document}) for kind, document in changes)
    return 200, "".join(f"{line}\n" for line in lines).encode()


class Broken(bytes):
    """A body after which the connection breaks, before its end."""


class Server:
    """Answers by method and path, in order; the last one again and again."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._answers: dict[tuple[str, str], list[tuple[int, Any]]] = defaultdict(list)
        self.url = ""

    def answer(self, method: str, path: str, *answers: tuple[int, Any]) -> None:
        """Answer with a status and a body: a document, or bytes as they are."""
        self._answers[method, path] += answers

    def asked(self, method: str) -> list[Request]:
        """The requests of a method."""
        return [one for one in self.requests if one.method == method]

    def respond(self, request: Request) -> tuple[int, bytes]:
        """The next answer to a request; where nothing was said, that of a server without our kinds."""
        self.requests.append(request)
        kind = "WATCH" if request.query.get("watch") else request.method
        queue = self._answers.get((kind, request.path))
        if not queue:
            return 404, b"404 page not found\n"
        status, body = queue.pop(0) if len(queue) > 1 else queue[0]
        return status, body if isinstance(body, bytes) else json.dumps(body).encode()

    def access(self) -> Access:
        """How a client reaches it."""
        return Access(self.url)

    def kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig with it as the current context."""
        file = folder / "kubeconfig"
        named = {"current-context": "here", "contexts": [{"name": "here", "context": {"cluster": "here"}}]}
        file.write_text(yaml.safe_dump({**named, "clusters": [{"name": "here", "cluster": {"server": self.url}}]}))
        return file


@contextmanager
def serve() -> Iterator[Server]:
    """A server on a free port of this machine, until the block ends."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            split = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(
                self.command, split.path, dict(parse_qsl(split.query)), dict(self.headers), json.loads(body or b"null")
            )
            status, content = server.respond(request)
            self.send_response(status)
            broken = isinstance(content, Broken)
            self.send_header("Content-Length", str(len(content) + broken))
            self.close_connection = self.close_connection or broken
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = respond  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    server.url = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
