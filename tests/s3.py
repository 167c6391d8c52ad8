"""A local S3 server, and a proxy in front of it that fails on request."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

BUCKET = "shards"


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with an empty bucket, which s3:// URLs of this process and its children lead to -> its
    endpoint.
    """
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        use_endpoint(endpoint, monkeypatch)
        urllib.request.urlopen(
            urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")
        ).close()  # one per process
        fsspec.filesystem("s3").mkdir(BUCKET)
        yield endpoint
    finally:
        server.stop()


def use_endpoint(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "ENDPOINT_URL": endpoint,
        "ACCESS_KEY_ID": "test",
        "SECRET_ACCESS_KEY": "test",
        "DEFAULT_REGION": "us-east-1",
    }
    for key, value in {
        **settings,
        "MAX_ATTEMPTS": "1",
    }.items():  # one: what is tested are our attempts, not botocore's
        monkeypatch.setenv(f"AWS_{key}", value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@contextmanager
def faulty_proxy(endpoint: str, fault: Callable[[int], str]) -> Iterator[tuple[str, list[str]]]:
    """A proxy whose answer to its n-th GET of an object is `fault(n)`: "ok", "500", "slow", "cut" or "flip"
    -> its endpoint and the list of faults as they are served.
    """
    served: list[str] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def _forward(self) -> tuple[int, dict[str, str], bytes]:
            request = urllib.request.Request(
                endpoint + self.path, method=self.command, headers=dict(self.headers.items())
            )
            try:
                with urllib.request.urlopen(request) as answer:
                    return answer.status, dict(answer.headers.items()), answer.read()
            except urllib.error.HTTPError as error:
                return error.code, dict(error.headers.items()), error.read()

        def do_GET(self) -> None:
            with lock:
                kind = fault(len(served))
                served.append(kind)
            status, headers, body = self._forward()
            if kind == "500":
                status, headers = 500, {"Content-Type": "application/xml"}
                body = b"<Error><Code>InternalError</Code><Message>out of order</Message></Error>"
            elif kind == "slow":
                time.sleep(3)
            elif kind == "flip":
                body = bytes([body[0] ^ 1]) + body[1:]
            self._answer(status, headers, body, short=kind == "cut")

        def do_HEAD(self) -> None:
            status, headers, _ = self._forward()
            self._answer(status, headers, b"")

        def _answer(self, status: int, headers: dict[str, str], body: bytes, short: bool = False) -> None:
            self.send_response(status)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            for key, value in headers.items():
                if key.lower() not in ("content-length", "connection", "server", "date"):
                    self.send_header(key, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            try:
                self.wfile.write(body[: len(body) // 2] if short else body)
            except OSError:
                served.append("left")  # the client gave up waiting
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", served
    finally:
        server.shutdown()
        server.server_close()
