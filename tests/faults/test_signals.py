"""SIGTERM and SIGINT while Ray starts: one line, the signal's exit code, and no process left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid

import pytest

from tests.faults.sharding import MARK, marked
from tests.support import ROOT

pytestmark = pytest.mark.slow

COMMAND = """
import signal, time
from rtmpose.ending import run_command

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background

def main():
    from rtmpose.cluster.session import ray_cluster
    print("starting", flush=True)
    with ray_cluster(1):
        print("started", flush=True)
        time.sleep(60)

run_command(main)
"""


@pytest.mark.parametrize(
    ("number", "after", "seconds"),
    [(signal.SIGTERM, "starting", 1.5), (signal.SIGTERM, "started", 0.2), (signal.SIGINT, "starting", 1.0)],
)
def test_a_signal_is_one_line_and_leaves_no_process(
    number: signal.Signals, after: str, seconds: float
) -> None:
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        env=os.environ | {MARK: mark}, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        while process.stdout.readline().strip() != after:
            assert process.poll() is None
        time.sleep(seconds)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    [line] = errors.strip().splitlines()
    assert line.startswith("error: ") and number.name in line and line.endswith("run the same command again")
    deadline = time.monotonic() + 10
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
