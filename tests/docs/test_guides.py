"""Every command in a block of the documentation is run by a test; those that need no more than a few files
are run here, on small files under the names that the pages give them.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.radiographs.dataset import draw_dataset
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.write import write_train_shards
from rtmpose.descriptors import load_dataset
from rtmpose.models import build_pose_net
from rtmpose.released.catalogue import find
from tests.docs.commands import Command, commands_of, pages
from tests.docs.places import GUIDES, NOWHERE, PLACES, TUTORIAL
from tests.docs.test_tutorial import ELSEWHERE, RUN, beginning_of
from tests.inference.clips import clip
from tests.released.conftest import network
from tests.support import ROOT, realdata
from tests.workspace import Workspace

PULLED = "rtmpose-t-body17-coco.pth"
# What stands for a word of the pages: smaller files, fewer people, less work.
RENAMED = {
    "/data/coco": "coco",
    "data/raw/coco": "coco",
    "data/raw/cl_detection2023": "radiographs",
    "data/shards/coco17/train": "shards",
    "120,40,200,380": "40,20,80,90",
    "~/.cache/rtmpose/weights/rtmpose-m-body17.onnx": "m.onnx",
    "~/.cache/rtmpose/weights/rtmpose-m-animal17.pth": f"cache/weights/{PULLED}",
    "rtmpose-m-body17-coco.pth": PULLED,
    "rtmpose-m-body17.onnx": PULLED,
    "rtmdet-nano-person.onnx": PULLED,
    "rtmpose-m-animal17.pth": PULLED,
    "cspnext-m-udp-coco.pth": PULLED,
    "FOLDER": "film",
    "8": "2",
    "10": "0.4",
    "960x540": "128x72",
    "/data/my_people": "coco",
}


def whole_commands() -> list[Command]:
    """Every command in a block."""
    return [command for page in pages() for command in commands_of(page) if command.whole]


def place_of(command: Command) -> str:
    """Where it is run; KeyError for one that is run nowhere."""
    if command.place == "tutorial.md" and RUN[beginning_of(command)] != ELSEWHERE:
        return TUTORIAL
    known = PLACES | dict.fromkeys(NOWHERE, "nowhere")
    fitting = [beginning for beginning in known if str(command).startswith(beginning)]
    if not fitting:
        raise KeyError(f"{command.place}: {command}: no test runs it; see tests/docs/places.py")
    return known[max(fitting, key=len)]


def test_every_command_is_run_somewhere() -> None:
    commands = whole_commands()
    for command in commands:
        file, _, name = place_of(command).partition("::")
        if file not in (GUIDES, TUTORIAL, "nowhere"):
            assert f"def {name}" in (ROOT / file).read_text() or not name, f"{command}: {place_of(command)}"
    said = [str(command) for command in commands]
    unused = [known for known in {*PLACES, *NOWHERE} if not any(line.startswith(known) for line in said)]
    assert not unused


def test_a_command_that_no_test_runs_is_named() -> None:
    with pytest.raises(KeyError, match=r"guide\.md: rtmpose fly away: no test runs it"):
        place_of(Command(("rtmpose", "fly", "away"), True, "guide.md"))


def stand_ins(workspace: Workspace) -> None:
    """Small files under the pages' names; what a command writes, a later one reads."""
    folder = workspace.folder
    render_dataset(
        folder / "coco", "coco17", images={"train": 4, "val": 3}, size=(160, 120), seed=3, workers=1
    )
    draw_dataset(folder / "radiographs", images=8, size=(128, 160), seed=23)
    photographs = sorted((folder / "coco/val2017").iterdir())
    for name in ("photo.jpg", "photos/a.jpg", "photos/b.jpg", "more/c.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(photographs[0], folder / name)
    clip(folder / "walk.mp4", [0.0, 0.04, 0.08], [(160, 120)])
    for name in ("rtmdet-nano.onnx", "rtmdet.onnx"):
        (folder / name).symlink_to(realdata("detectors/rtmdet-nano_320_person.onnx"))
    for name, size, points in (
        ("rtmpose-m.pth", "t", 17),
        ("theirs.pth", "t", 14),
        ("models/rtmpose.pt", "s", 17),
    ):
        torch.manual_seed(1)
        (folder / name).parent.mkdir(exist_ok=True)
        torch.save({"state_dict": build_pose_net(size, num_keypoints=points).state_dict()}, folder / name)
    (folder / "mirror").mkdir()
    shutil.copy(folder / "rtmpose-m.pth", folder / "mirror" / find(PULLED).published.file)
    workspace.environment |= {"RTMPOSE_MIRRORS": f"{folder}/mirror", "RTMPOSE_CACHE": f"{folder}/cache"}
    (folder / "end2end.onnx").write_bytes(network().SerializeToString())
    for name in ("s.onnx", "models/rtmpose.onnx"):
        (folder / name).symlink_to(folder / "m.onnx")
    coco = load_dataset("coco17")
    write_train_shards(
        read_images(coco, folder / "coco", "train"),
        folder / "shards",
        dataset=coco,
        input_size=(192, 256),
        workers=1,
    )


@pytest.mark.slow
def test_the_commands_of_the_guides(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.set(input_size=[192, 256])
    stand_ins(workspace)
    found = [command.words for command in whole_commands() if place_of(command) == GUIDES]
    found.sort(key=lambda words: words[1] != "film")  # which others read
    plan = [[RENAMED.get(word, word) for word in words] for words in dict.fromkeys(found)]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    workspace.environment["PYTHONPATH"] = f"{tmp_path}:{ROOT}"
    done = workspace.run(sys.executable, "-m", "tests.docs.walk", "plan.json", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.split("\n$ ")) >= len(plan) > 20
