"""`kill -9` at random moments of the shard stage: what comes out in the end is what an undisturbed run
writes.

    python -m tests.faults.sharding [--kills 20] [--seed 1]

Every fifth kill hits Ray tasks. The last line is one JSON object: kills tried; kills after which the output
was complete or not there, and the stage went on; whether the end result is byte for byte the undisturbed one;
shards kept over all runs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.workspace import Workspace

MARK = "RTMPOSE_FAULTS"  # in the environment of all that a run starts, Ray's processes too
IMAGES = {"train": 400, "val": 40}
SHARDS = Path("data/shards/coco17")
WORK = Path("runs/sharding")
RAY_SECONDS = 14.0  # about what the stage takes when Ray is started for each of its three parts


class Outcome(NamedTuple):
    """One run of the stage: whether it was killed, its exit code else, and what it printed."""

    killed: bool
    code: int | None
    output: str


def main() -> None:
    options = kill_options(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        line = faults(Path(folder), options.kills, random.Random(options.seed))
    print(json.dumps(line))
    sys.exit(0 if line["survived"] == line["tried"] and line["identical"] else 1)


def kill_options(description: str | None) -> argparse.Namespace:
    """How many kills, and the seed of their moments, which is printed."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    return options


def faults(folder: Path, kills: int, rng: random.Random) -> dict[str, object]:
    """Kill the stage `kills` times in one workspace, let it finish, and compare with an undisturbed one."""
    calm = prepared(folder / "calm")
    spoilt = prepared(folder / "spoilt", calm)
    start = time.perf_counter()
    undisturbed = run(calm, 1)
    longest = {1: time.perf_counter() - start, 2: RAY_SECONDS}
    assert undisturbed.code == 0, undisturbed.output
    print(f"undisturbed: {longest[1]:.1f} s", flush=True)
    wanted = files(calm)
    tried = survived = kept = 0
    while tried < kills:
        workers = 2 if tried % 5 == 4 else 1
        moment = rng.uniform(0.2, 1.0) * longest[workers]
        outcome = run(spoilt, workers, moment)
        kept += shards_kept(outcome.output)
        if not outcome.killed:  # it was done before its time had come: begin again, as DVC does
            assert outcome.code == 0, outcome.output
            print("ended by itself", flush=True)
            shutil.rmtree(spoilt.folder / SHARDS)
            continue
        tried += 1
        whole = not (spoilt.folder / SHARDS).exists() or files(spoilt) == wanted
        survived += whole
        done = len(list((spoilt.folder / WORK).rglob("*.tar.json")))
        state = "whole or absent" if whole else "HALF WRITTEN"
        print(
            f"kill {tried} after {moment:.2f} s, {workers} workers, {done} shards finished: output {state}",
            flush=True,
        )
    last = run(spoilt, 1)
    kept += shards_kept(last.output)
    identical = (
        last.code == 0 and files(spoilt) == wanted and not (spoilt.folder / WORK / "coco17/shards").exists()
    )
    return {"tried": tried, "survived": survived, "identical": identical, "shards_kept": kept}


def prepared(folder: Path, like: Workspace | None = None) -> Workspace:
    """A workspace with rendered and indexed raw data, cut into many small shards."""
    folder.mkdir()
    workspace = Workspace(folder).small()
    workspace.environment[MARK] = uuid.uuid4().hex
    render = {"level": "easy", "images": IMAGES, "size": [160, 120], "seed": 3}
    workspace.set(datasets__coco17__render=render, shard__shard_mb=0.001)  # one image in a shard
    if like is not None:
        shutil.copytree(like.folder / "data/mannequins", folder / "data/mannequins")
    done = workspace.stage("raw", "coco17")
    assert done.returncode == 0, done.stderr
    return workspace


def run(workspace: Workspace, workers: int, kill_after: float | None = None) -> Outcome:
    """Run the stage; with `kill_after` seconds, kill it and all that it started then, unless it has ended."""
    workspace.set(shard__workers=workers)
    log = workspace.folder / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.shard", "coco17"], cwd=workspace.folder,
            env=workspace.environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
    clear_away(workspace.environment[MARK])
    return Outcome(code is None, code, log.read_text())


def clear_away(mark: str) -> None:
    """Ray's own processes lie in other groups and end by themselves when their driver is gone; wait, then
    help.
    """
    deadline = time.monotonic() + 10
    while left := marked(mark):
        if time.monotonic() > deadline:
            for process in left:
                process.kill()
        time.sleep(0.1)


def marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


def files(workspace: Workspace) -> dict[str, bytes]:
    root = workspace.folder / SHARDS
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def shards_kept(output: str) -> int:
    return sum(
        int(number) for number in re.findall(r"(\d+) of \d+ shards of an earlier run are whole", output)
    )


if __name__ == "__main__":
    main()
