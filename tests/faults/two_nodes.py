"""A Ray cluster of two nodes on this machine, each with one CPU: finetuning with a worker on each, as jobs.

    python -m tests.faults.two_nodes [--log FILE]

The stage command submits the job by REST and is interrupted, follows it again, has it stopped, and resumes
it. What comes out is compared with the run that the bare `ray job submit` makes, undisturbed. A job that
fails comes between. The last line is one JSON object; FILE takes what the commands print.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from rtmpose.cluster.submit import connect
from tests.faults.resume import begin_anew, differences, is_kind, prepared, reports_in, result, store_of
from tests.faults.sharding import MARK, clear_away, marked
from tests.support import ROOT
from tests.workspace import Workspace

PATIENCE = 600.0  # seconds until a command must have ended, or training must have come further


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job ignores it, and so would the stage
    with tempfile.TemporaryDirectory(prefix="rt-") as folder:  # short: Ray's sockets lie below it
        path = options.log or Path(folder) / "log.txt"
        with path.open("w") as log:
            line = two_nodes(Path(folder), log)
    print(json.dumps(line))
    sys.exit(0 if line["bit_identical"] and line["nodes"] == 2 else 1)


def two_nodes(folder: Path, log: IO[str]) -> dict[str, Any]:
    """Every step in turn; an AssertionError with the log's end where one fails."""
    workspace = prepared(folder / "w")
    shutil.copy(ROOT / ".rayignore", workspace.folder)
    workspace.set(finetune__epochs=5)
    begin_anew(workspace, 2)
    with cluster(workspace, folder / "ray", log) as server:
        workspace.environment["RAY_ADDRESS"] = server
        started = time.perf_counter()
        process = stage(workspace, log)
        wait_for_text(log, process, "Running entrypoint for job")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 2, text(log)
        client = connect(server)
        process = stage(workspace, log)
        wait_for_reports(workspace, process, 5)
        nodes = len({worker.ppid() for worker in workers(workspace)})
        (job,) = set(re.findall(r"following job (\S+),", text(log)))
        client.stop_job(job)
        assert process.wait(PATIENCE) == 2, text(log)
        assert f"job {job} was stopped; run the stage again to resume it" in text(log)
        at = reports_in(workspace)
        assert stage(workspace, log).wait(PATIENCE) == 0, text(log)
        seconds = time.perf_counter() - started
        resumed = [int(step) for step in re.findall(r"resuming run \w+ from step (\d+)", text(log))]
        outcome = result(workspace)
        receipt = json.loads((workspace.folder / "models/receipt.json").read_text())
        fails = failing_job(workspace, log)
        begin_anew(workspace, 2)
        words = (
            "job",
            "submit",
            "--address",
            server,
            "--working-dir",
            ".",
            "--",
            "python",
            "-m",
            "pipelines.finetune",
        )
        bare = ray(workspace, log, *words)
        assert bare == 0, text(log)
        found = differences(result(workspace), outcome)
    return {
        "nodes": nodes,
        "stopped_at_report": at,
        "resumed_from_step": resumed,
        "bit_identical": not found,
        "differences": found,
        "seconds": round(seconds),
        "receipt_steps": receipt["steps"],
        "failing_job": fails,
    }


@contextmanager
def cluster(workspace: Workspace, folder: Path, log: IO[str]) -> Iterator[str]:
    """A head and a second node with one CPU each; the job server's URL. Both end with their
    process groups.
    """
    port, dashboard, client = free_port(), free_port(), free_port()
    environment = workspace.environment
    environment |= {
        "RAY_AUTH_MODE": "token",
        "RTMPOSE_HOME": str(workspace.folder),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    common = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats", "--block"]
    # Each node's agent takes jobs on a port of its own: the default can be had once on a machine.
    agents = [f"--dashboard-agent-listen-port={free_port()}" for _ in range(2)]
    head = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    head += [f"--temp-dir={folder}"]
    nodes = []
    try:
        for words, agent in zip((head, [f"--address=127.0.0.1:{port}"]), agents, strict=True):
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *common, agent]
            nodes.append(
                subprocess.Popen(
                    command, cwd=workspace.folder, env=environment, stdout=log, stderr=log,
                    start_new_session=True,
                )
            )  # fmt: skip
            wait_for_port(dashboard if words is head else port, nodes[-1])
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        for node in nodes:
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        clear_away(environment[MARK])


def failing_job(workspace: Workspace, log: IO[str]) -> str:
    """The one line and the exit code of a stage whose job fails: there are no tuning shards where the mix
    says so.
    """
    path = workspace.folder / "data/mix.json"
    content = json.loads(path.read_text())
    moved = content | {"tune": [content["tune"][0] | {"dir": "data/shards/nowhere"}]}
    path.write_text(json.dumps(moved))
    done = workspace.stage("finetune")
    log.write(done.stdout + done.stderr)
    log.flush()
    path.write_text(json.dumps(content, indent=1) + "\n")
    return f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1]}"


def stage(workspace: Workspace, log: IO[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipelines.finetune"]
    environment = workspace.environment
    return subprocess.Popen(
        command, cwd=workspace.folder, env=environment, stdout=log, stderr=log, start_new_session=True
    )  # fmt: skip


def ray(workspace: Workspace, log: IO[str], *words: str) -> int:
    """The exit code of a `ray` command."""
    environment = workspace.environment | {"RAY_RUNTIME_ENV_IGNORE_GITIGNORE": "1"}
    command = [sys.executable, "-m", "ray.scripts.scripts", *words]
    return subprocess.run(
        command, cwd=workspace.folder, env=environment, stdout=log, stderr=log, check=False
    ).returncode


def workers(workspace: Workspace) -> list[psutil.Process]:
    return [process for process in marked(workspace.environment[MARK]) if is_kind(process, "worker", 0)]


def wait_for_text(log: IO[str], process: subprocess.Popen[bytes], wanted: str) -> None:
    """Until the commands have printed it."""
    deadline = time.monotonic() + PATIENCE
    while wanted not in text(log):
        assert process.poll() is None and time.monotonic() < deadline, text(log)
        time.sleep(0.1)


def wait_for_reports(workspace: Workspace, process: subprocess.Popen[bytes], count: int) -> None:
    """Until the run has reported `count` times."""
    deadline = time.monotonic() + PATIENCE
    while reports_in(workspace) < count:
        assert process.poll() is None and time.monotonic() < deadline, f"no progress in {store_of(workspace)}"
        time.sleep(0.1)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None and time.monotonic() < deadline, f"nothing listens on port {port}"
        time.sleep(0.2)


def free_port() -> int:
    """A port outside of the range that Ray gives to workers."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def text(log: IO[str]) -> str:
    return Path(log.name).read_text()


if __name__ == "__main__":
    main()
