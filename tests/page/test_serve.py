"""`rtmpose serve` itself: mistakes in one line, and an end that leaves nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.files import UserError
from rtmpose.page import server
from tests.inference.clips import clip

COMMAND = [sys.executable, "-m", "rtmpose.cli.app", "serve", "--port", "0", "--threads", "1"]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "NEEDED", ("json", "no_such_package"))
    with pytest.raises(UserError, match=r"no_such_package is not installed: pip install 'rtmpose\[page\]'"):
        server.check_extra()


def test_addresses_that_cannot_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}: .*in use"):
            server.listening("127.0.0.1", port)
    for host in ("no such host", "a" * 300):
        with pytest.raises(UserError, match="--host"):
            server.listening(host, 0)


def test_the_url_is_one_that_a_browser_opens() -> None:
    for host, name in (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("localhost", "localhost")):
        with server.listening(host, 0) as found:
            assert server.url_of(host, found) == f"http://{name}:{found.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_the_end_leaves_no_temporary_files(
    files: ModelFiles, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Not even ONNX Runtime's own: where its telemetry is on it leaves a `.ses`."""
    (tmp_path / "uploads").mkdir()
    content = clip(tmp_path / "clip.mp4", times=[n / 50 for n in range(1000)]).read_bytes()
    environment = os.environ | {"TMPDIR": str(tmp_path / "uploads"), "TEMP": "", "TMP": ""}
    with subprocess.Popen(
        [*COMMAND, "--model", str(files.onnx)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        assert httpx.get(f"{url}/healthz", timeout=60).json()["status"] == "ok"
        with pytest.raises(httpx.TimeoutException):  # it is still computed when the client goes
            httpx.post(f"{url}/v1/video", content=content, timeout=httpx.Timeout(60, read=0.3))
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    assert process.returncode == code and "Traceback" not in said, said
    assert list((tmp_path / "uploads").iterdir()) == []
