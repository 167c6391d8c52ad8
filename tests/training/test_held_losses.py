"""Losses under a fixed seed are what they were: a refactor of data, models or training changes no result.

The figures are those of commit 3b38900, in float64 and compared to one part in a million, since another CPU
adds in another order. `python -m tests.training.test_held_losses` prints them with all bits, for two commits
on one machine.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch

from rtmpose.config import AugmentConfig, OptimParams
from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.write import write_train_shards
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.stream import TrainStream
from rtmpose.descriptors import load_dataset
from rtmpose.models import build_pose_net
from rtmpose.models.pose_net import normalise
from rtmpose.targets import SimCC, UDPHeatmap
from rtmpose.training.update import Updater, heatmap_task, simcc_task

SIZE = (96, 128)
EXPECTED = {
    "simcc": [0.1911556051, 0.2176212163, 0.1811588869, 0.2247683884],
    "heatmap": [0.0936328666, 0.0956287143, 0.0811743121, 0.0949860497],
}


def losses(kind: str, folder: Path) -> list[float]:
    """The losses of four updates of a small network on rendered people."""
    dataset = load_dataset("coco17")
    render_dataset(
        folder / "raw", "coco17", level="easy", images={"train": 12}, size=(160, 120), seed=1, workers=1
    )
    images = list(read_images(dataset, folder / "raw", "train"))
    write_train_shards(images, folder / "shards", dataset=dataset, input_size=SIZE, workers=1)
    stream = TrainStream(
        [MixEntry(folder / "shards", 1)],
        dataset.skeleton,
        SIZE,
        batch_size=8,
        seed=0,
        udp=kind == "heatmap",
        workers=0,
    )
    torch.manual_seed(0)
    if kind == "simcc":
        task = simcc_task(build_pose_net("t", input_size=SIZE), SimCC(SIZE), tau=0.1)
    else:
        net = build_pose_net("t", input_size=SIZE, head="heatmap", hidden=32)
        task = heatmap_task(net, UDPHeatmap(SIZE, sigma=2.0))
    task.model.double()
    updater = Updater(
        task,
        device=torch.device("cpu"),
        precision="fp32",
        global_batch=8,
        weight_decay=0.05,
        optim=OptimParams(),
        ema_momentum=0.0002,
    )
    found: list[float] = []
    for epoch in range(4):
        for batch in stream.epoch(epoch, AugmentConfig(half_body=0.5)):
            pixels, keypoints = normalise(batch.images).double(), batch.keypoints.double()
            found.append(
                float(
                    updater.update(
                        [partial(updater.loss, pixels, keypoints, batch.weights.double())], 1e-3
                    ).loss
                )
            )
            if len(found) == len(EXPECTED[kind]):
                return found
    return found


@pytest.mark.parametrize("kind", ["simcc", "heatmap"])
def test_losses_are_those_recorded(tmp_path: Path, kind: str) -> None:
    assert losses(kind, tmp_path) == pytest.approx(EXPECTED[kind], rel=1e-6)


if __name__ == "__main__":
    for name in EXPECTED:
        with tempfile.TemporaryDirectory() as place:
            print(name, [value.hex() for value in losses(name, Path(place))])
