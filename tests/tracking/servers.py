"""What a team's MLflow stands on, started for a test: PostgreSQL, S3, and `mlflow server` on both.

Each is a context manager. Secrets reach them by their environment or by files, never by their command lines.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from tests.s3 import BUCKET, s3_server

POSTGRES = max(
    Path("/usr/lib/postgresql").glob("*/bin"),
    key=lambda path: int(path.parent.name),
    default=Path("/usr/lib/postgresql/15/bin"),
)
WAIT = 300  # seconds until a server must answer on a busy machine
ARTIFACTS = f"s3://{BUCKET}/mlflow"

needs_postgres = pytest.mark.skipif(
    not (POSTGRES / "initdb").exists(), reason=f"there is no PostgreSQL in {POSTGRES}"
)


@contextmanager
def postgres(folder: Path, password: str = "postgres") -> Iterator[str]:
    """An empty data base that wants a password -> its URI, with the password. The log goes into `folder`."""
    import psycopg

    data, port = Path(tempfile.mkdtemp(prefix="postgres-")), free_port()
    owner = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    secret = folder / "postgres.password"
    secret.write_text(password)
    if owner:
        shutil.chown(data, owner, owner)
    with (folder / "postgres.log").open("w") as log, secret.open("rb") as pipe:
        init: list[str | Path] = [
            POSTGRES / "initdb", "--no-sync", "--username=postgres", "--auth=scram-sha-256",
            "--pwfile=/dev/stdin", "--pgdata", data,
        ]  # fmt: skip
        try:
            subprocess.run(init, user=owner, cwd=data, stdin=pipe, stdout=log, stderr=log, check=True)
            settings = (
                "fsync=off",
                "full_page_writes=off",
                f"unix_socket_directories={data}",
                "listen_addresses=127.0.0.1",
            )
            command: list[str | Path] = [
                POSTGRES / "postgres",
                "-D",
                data,
                "-h",
                "127.0.0.1",
                "-p",
                str(port),
            ]
            options: list[str | Path] = [word for setting in settings for word in ("-c", setting)]
            with running([*command, *options], dict(os.environ), log, cwd=data, user=owner) as server:
                uri = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
                until(lambda: psycopg.connect(uri).close(), psycopg.OperationalError, server)
                yield uri
        finally:
            shutil.rmtree(data, ignore_errors=True)


@contextmanager
def s3() -> Iterator[str]:
    """An S3 server with the empty bucket of `ARTIFACTS`, which this process and its children use -> its
    endpoint.
    """
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as endpoint:
        yield endpoint


@contextmanager
def mlflow_server(folder: Path, backend: str, artifacts: str, port: int | None = None) -> Iterator[str]:
    """`mlflow server` on the data base `backend`, which alone reads and writes `artifacts` -> its URL.

    It says what it has to say in `folder`/mlflow.log.
    """
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--artifacts-destination", artifacts,
    ]  # fmt: skip
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": backend,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (
        (folder / "mlflow.log").open("a") as log,
        running(command, environment, log, cwd=folder) as server,
    ):
        until(lambda: urllib.request.urlopen(f"{url}/health").close(), OSError, server)
        yield url


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str | Path],
    environment: dict[str, str],
    log: IO[str],
    *,
    cwd: Path,
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, which ends with the block."""
    server = subprocess.Popen(
        command,
        env=environment,
        cwd=cwd,
        user=user,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        yield server
    finally:
        for number in (signal.SIGINT, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(server.pid, number)
            with suppress(subprocess.TimeoutExpired):
                server.wait(20)


def until(answers: Callable[[], None], refused: type[Exception], server: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers; RuntimeError where it has ended or takes too long."""
    deadline = time.monotonic() + WAIT
    while True:
        try:
            return answers()
        except refused as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{server.args!r}: no answer, exit code {server.returncode}") from error
            time.sleep(0.2)
