"""The commands of docs/tutorial.md, run in their order at a small size on rendered people."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
import torch

from rtmpose.config import load_params
from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.models import build_pose_net
from rtmpose.precision import choose_here
from rtmpose.released.catalogue import find
from tests.docs.commands import Command, commands_of
from tests.support import ROOT
from tests.test_workflow import compose
from tests.workspace import Workspace

pytestmark = pytest.mark.slow

# What a command of the tutorial becomes here: by its beginning, the commands that are run in its place.
# `SAME` is the command itself, with RENAMED's words in it; `ELSEWHERE` one that another test runs.
STAGES = ("raw own", "shard own", "mix", "pretrain", "search", "finetune", "evaluate", "export", "quantize",
          "benchmark cpu-x86", "pick", "compare", "register", "report")  # fmt: skip
SAME, ELSEWHERE = ["same"], list[str]()
RUN = {
    "rtmpose dataset check own": SAME,
    "rtmpose weights pull rtmpose-t": SAME,
    "rtmpose weights pull rtmpose-m": ELSEWHERE,  # as the small ones
    "rtmpose weights check": SAME,
    "rtmpose doctor": ELSEWHERE,  # tests/doctor
    "dvc exp run": [f"python -m pipelines.{stage}" for stage in STAGES],
    "dvc metrics show": ELSEWHERE,  # DVC's own
    "dvc plots show": ELSEWHERE,
    "rtmpose models list": SAME,
    "rtmpose promote rtmpose-own candidate --dry-run": ELSEWHERE,  # tests/promotion: it wants a commit
    "rtmpose promote rtmpose-own candidate --why": ELSEWHERE,
    "rtmpose predict photo.jpg --model models/": SAME,
    "rtmpose predict photo.jpg --model models:": SAME,
    "rtmpose serve": ELSEWHERE,  # tests/page
    "mlflow models serve": ELSEWHERE,  # tests/inference
}
RENAMED = {
    "/data/my_people": "my_people",
    "models:/rtmpose-own@champion": "models:/rtmpose-own@candidate",
    "120,40,200,380": "40,20,80,90",
    "24": "4",
}


def people(folder: Path) -> Path:
    """Rendered people in the layout that the tutorial asks for; one photograph beside them."""
    rendered = folder / "rendered"
    render_dataset(rendered, "coco17", images={"train": 30, "val": 6}, size=(160, 120), seed=3, workers=1)
    raw = folder / "my_people"
    (raw / "annotations").mkdir(parents=True)
    (raw / "images").mkdir()
    for split in ("train", "val"):
        shutil.copy(
            rendered / f"annotations/person_keypoints_{split}2017.json", raw / f"annotations/{split}.json"
        )
        for photograph in (rendered / f"{split}2017").iterdir():
            shutil.copy(photograph, raw / "images")
    shutil.copy(photograph, folder / "photo.jpg")
    return raw


def small(workspace: Workspace) -> None:
    """The recipe `own_data` as the tutorial composes it for a CPU, with a few seconds of training."""
    workspace.small()
    compose(
        workspace.folder, "recipe=own_data", "datasets.own.raw=my_people", "finetune.init=rtmpose-t.pth",
        "model=t", "hardware=cpu", "input_size=[96,128]",
    )  # fmt: skip
    workspace.set(
        finetune__epochs=1, finetune__weak_epochs=0, finetune__batch_size=16, finetune__picture_every=None,
        finetune__evaluate_every=1, hardware__loader_workers=0, shard__tune_share=0.2,
        quantize__sensitivity_seconds=0, evaluate__flip_test=False, shard__workers=1,
    )  # fmt: skip


def released(workspace: Workspace) -> None:
    """A mirror with small weights under the publisher's name, a cache, and the tutorial's link into it."""
    folder, name = workspace.folder, "rtmpose-t-body17-coco.pth"
    torch.manual_seed(1)
    (folder / "mirror").mkdir()
    net = build_pose_net("t", input_size=(192, 256))
    torch.save({"state_dict": net.state_dict()}, folder / "mirror" / find(name).published.file)
    workspace.environment |= {"RTMPOSE_MIRRORS": f"{folder}/mirror", "RTMPOSE_CACHE": f"{folder}/cache"}
    (folder / "rtmpose-t.pth").symlink_to(folder / "cache/weights" / name)


def beginning_of(command: Command) -> str:
    """The line of the table that the command has."""
    (found,) = [known for known in RUN if str(command).startswith(known)]
    return found


def planned() -> list[list[str]]:
    """What is run for the tutorial's commands; every one of them stands in the table."""
    found: list[list[str]] = []
    for command in commands_of(ROOT / "docs/tutorial.md"):
        if not command.whole:
            continue
        beginning = beginning_of(command)
        if RUN[beginning] == SAME:
            found.append([RENAMED.get(word, word) for word in command.words])
        else:
            found += [words for each in RUN[beginning] if (words := each.split()) not in found]
    return found


def test_the_tutorial_from_annotation_to_prediction(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    small(workspace)
    people(tmp_path)
    released(workspace)
    (tmp_path / "plan.json").write_text(json.dumps(planned()))
    workspace.environment["PYTHONPATH"] = f"{tmp_path}:{ROOT}"
    done = workspace.run(sys.executable, "-m", "tests.docs.walk", "plan.json", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All weights of the model were loaded" in done.stdout
    assert "data: rtmpose-t-body17-coco (initial weights): Apache-2.0" in done.stdout
    assert "persons are there, 80 asked for: calibrates on" in done.stdout
    assert (tmp_path / "drawn.png").is_file() and (tmp_path / "own_train.jpg").is_file()
    assert json.loads((tmp_path / "metrics/register.json").read_text())["name"] == "rtmpose-own"
    assert "rtmpose-own" in (tmp_path / "reports/report.html").read_text()
    assert "rtmpose-own" in done.stdout.partition("$ rtmpose models list")[2]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        said = database.execute("select value from model_version_tags where key = 'precision'").fetchall()
    assert said == [(choose_here(load_params(tmp_path / "params.yaml"), on_gpu=False).precision,)]
