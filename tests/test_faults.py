"""The finetune stage under `kill -9`, and what makes it go on, start anew, or leave alone.

What `dvc repro -f` does is tested in `tests/training/test_checkpoint.py`.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.workspace import Workspace

pytestmark = pytest.mark.slow


def kill_finetune_after(workspace: Workspace, steps: int) -> Path:
    """Start `dvc repro finetune`, `kill -9` the finetune process and its workers once its new run has
    checkpointed `steps` (0: once it is there); its folder.
    """
    known = set(runs_of(workspace))
    process = workspace.start("dvc", "repro", "finetune")
    deadline = time.monotonic() + 180
    while True:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline, "the run never came so far"
        new = [path for path in runs_of(workspace) if path not in known]
        if new and newest_step(new[0]) >= steps:
            break
        time.sleep(0.05)
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # Ray's own come and go
            if "pipelines.finetune" in child.cmdline():
                child.kill()
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0, said
    wait_for_workers(workspace)
    return new[0]


def newest_step(run: Path) -> int:
    latest = run / "latest.json"
    return int(json.loads(latest.read_text())["checkpoints"][0]["step"]) if latest.exists() else 0


def runs_of(workspace: Workspace) -> list[Path]:
    return [path for path in (workspace.folder / "runs").glob("finetune-*") if path.is_dir()]


def wait_for_workers(workspace: Workspace) -> None:
    """Ray ends the workers of a dead driver by itself, within seconds; none may outlive it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [
            p.info for p in psutil.process_iter(["cwd", "cmdline"]) if p.info["cwd"] == str(workspace.folder)
        ]
        workers = [info["cmdline"][0] for info in found if info["cmdline"] and "Train" in info["cmdline"][0]]
        if not workers:
            return
        time.sleep(0.2)
    pytest.fail(f"left behind: {workers}")


def receipt(workspace: Workspace) -> dict[str, object]:
    return json.loads((workspace.folder / "models/receipt.json").read_text())


def test_killed_run_resumes_and_changed_one_starts_anew(tmp_path: Path) -> None:
    """Also: all that leads to a model runs twice over a raw folder with a file of the user's in it, which is
    still there.
    """
    workspace = Workspace(tmp_path).small()
    workspace.set(input_size=[64, 64], shard__input_size=[64, 64])
    prepared = workspace.run("dvc", "repro", "mix", "pretrain", "search")
    assert prepared.returncode == 0, prepared.stdout + prepared.stderr
    users = workspace.folder / "data/mannequins/coco17/notes.txt"
    users.write_text("mine")

    workspace.set(finetune__optim__lr=0.001)
    killed = kill_finetune_after(workspace, 3)
    assert newest_step(killed) >= 3 and not (workspace.folder / "models/receipt.json").exists()
    workspace.set(finetune__optim__lr=0.0015)
    other = kill_finetune_after(workspace, 0)
    assert newest_step(killed) >= 3, "the first run is left alone"

    workspace.set(finetune__optim__lr=0.001)
    resumed = workspace.run("dvc", "repro", "finetune")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    started = re.search(r"resuming run \w+ from step (\d+)", resumed.stdout)
    assert started and int(started.group(1)) >= 3, resumed.stdout
    first = receipt(workspace)
    assert first["steps"] == steps_of(workspace) and (killed / "finished.json").exists()
    assert not (other / "finished.json").exists()

    again = workspace.run("dvc", "repro", "finetune")
    assert again.returncode == 0 and "Running stage" not in again.stdout, again.stdout + again.stderr
    assert users.read_text() == "mine"


def steps_of(workspace: Workspace) -> int:
    """Updates of the whole run, from the shards' own count."""
    samples = json.loads((workspace.folder / "data/mix.json").read_text())["train"][0]["samples"]
    return 6 * -(-samples // 8)
