"""`mlflow models serve`, started for a test where it has no network, and asked over HTTP."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import ROOT
from tests.tracking.servers import free_port, running, until

DEAD = "http://127.0.0.1:9"  # where no proxy listens
ALONE = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
CLONE_NEWNET = 0x40000000
Ask = Callable[[Any], tuple[int, Any]]


@contextmanager
def model_server(folder: Path, model: str) -> Iterator[Ask]:
    """Serve a model of the store that MLflow points to -> a function that posts a JSON body to /invocations
    and gives the HTTP status and the JSON of the answer.

    The server has a network of its own with nobody in it. Where that is not permitted, every proxy it could
    use is a dead address; `folder`/serve.log says which of the two it was.
    """
    alone = (
        os.geteuid() == 0
        and not subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode
    )
    (folder / "serve.log").write_text("network: none\n" if alone else "network: dead proxies\n")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *(ALONE if alone else ()), sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", model,
        "--port", str(port), "--env-manager", "local",
    ]  # fmt: skip
    proxies = {"http_proxy": DEAD, "https_proxy": DEAD, "all_proxy": DEAD, "no_proxy": ""}
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | proxies
    with (
        (folder / "serve.log").open("a") as log,
        running(command, environment, log, cwd=folder) as server,
        ThreadPoolExecutor(1, initializer=_enter, initargs=(server.pid if alone else None,)) as inside,
    ):
        until(lambda: inside.submit(_open, f"{url}/ping").result() and None, OSError, server)
        yield lambda body: inside.submit(_open, f"{url}/invocations", body).result()


def _enter(pid: int | None) -> None:
    """Bring this thread into the network of the process `pid`, once that has its own."""
    if pid is None:
        return
    while os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.01)
    with open(f"/proc/{pid}/ns/net") as network:
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


def _open(url: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers={"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request) as answer:
            return answer.status, json.loads(answer.read().strip() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
