"""From disk to loss a sample passes few files, none of them long: those whose functions run for a batch,
counted as it goes through.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import torch

import rtmpose
from rtmpose.config import AugmentConfig, OptimParams
from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.write import write_train_shards
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.stream import TrainStream
from rtmpose.descriptors import load_dataset
from rtmpose.models import build_pose_net
from rtmpose.targets import SimCC
from rtmpose.training.update import Updater, simcc_task

PACKAGE = Path(rtmpose.__file__).parent
FILES, LINES = 12, 250  # at most: on the way, and in each of them


def test_at_most_twelve_files_of_250_lines(tmp_path: Path) -> None:
    dataset = load_dataset("coco17")
    render_dataset(
        tmp_path / "raw", "coco17", level="easy", images={"train": 6}, size=(160, 120), seed=1, workers=1
    )
    images = list(read_images(dataset, tmp_path / "raw", "train"))
    write_train_shards(images, tmp_path / "shards", dataset=dataset, input_size=(96, 128), workers=1)
    stream = TrainStream(
        [MixEntry(tmp_path / "shards", 1)],
        dataset.skeleton,
        (96, 128),
        batch_size=4,
        seed=0,
        udp=False,
        workers=0,
    )
    task = simcc_task(build_pose_net("t", input_size=(96, 128)), SimCC((96, 128)), tau=0.1)
    updater = Updater(
        task,
        device=torch.device("cpu"),
        precision="fp32",
        global_batch=4,
        weight_decay=0,
        optim=OptimParams(),
        ema_momentum=0,
    )
    blur = {"name": "Blur", "p": 1.0}
    batches = stream.epoch(0, AugmentConfig.model_validate({"half_body": 1.0, "pixels": [blur]}))
    next(batches)  # builds the pixel transforms, once for all batches
    touched: set[Path] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        file = Path(frame.f_code.co_filename)
        if PACKAGE in file.parents:
            touched.add(file)

    sys.setprofile(note)
    try:
        batch = next(batches)
        loss = updater.batch_loss(batch)
    finally:
        sys.setprofile(None)
    assert torch.isfinite(loss)
    lines = {str(file.relative_to(PACKAGE)): len(file.read_text().splitlines()) for file in sorted(touched)}
    print(lines, sum(lines.values()))
    assert len(lines) <= FILES and max(lines.values()) <= LINES, lines
    # What every batch must pass: were one of these missing, the count would mean nothing.
    must = {"data/stream/stream.py", "data/stream/order.py", "data/stream/loader.py", "data/shards/sample.py"}
    assert must | {"data/stream/augment.py", "training/update.py", "losses.py"} <= set(lines)
