"""Memory of the training stream over many epochs: the proportional set size of the process and its loader
workers.

`python benchmarks/stream_memory.py [--quick] [--data FOLDER] [--epochs N] [--workers N]`, FOLDER being a raw
COCO (its val2017 is read); the last line is one JSON object: how much the total grew from the fifth epoch to
the last.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import cv2
import psutil

from rtmpose.config import AugmentConfig
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.write import write_train_shards
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.stream import TrainStream
from rtmpose.descriptors import load_dataset
from rtmpose.machine import cpu_line

DATA = Path(__file__).resolve().parent.parent.parent / "shared/realdata/coco"
SIZE = (192, 256)


def megabytes() -> tuple[float, float]:
    """Of this process, and of all below it."""
    this = psutil.Process()
    below = [child for child in this.children(recursive=True) if child.is_running()]
    return this.memory_full_info().pss / 1e6, sum(child.memory_full_info().pss for child in below) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8 epochs over 30 photographs")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    print(f"machine: {cpu_line()}", flush=True)
    cv2.setNumThreads(0)
    epochs, dataset = 8 if arguments.quick else arguments.epochs, load_dataset("coco17")
    images = list(read_images(dataset, arguments.data, "val"))[: 30 if arguments.quick else None]
    totals = []
    with tempfile.TemporaryDirectory() as folder:
        write_train_shards(
            images, Path(folder) / "cut", dataset=dataset, input_size=SIZE, shard_bytes=4_000_000, workers=1
        )
        stream = TrainStream(
            [MixEntry(Path(folder) / "cut", 1)],
            dataset.skeleton,
            SIZE,
            batch_size=64,
            seed=0,
            workers=arguments.workers,
            window=4,
        )
        for epoch in range(epochs):
            shown = sum(len(batch.images) for batch in stream.epoch(epoch, AugmentConfig()))
            own, below = megabytes()
            totals.append(own + below)
            if epoch in (0, 1, 4) or (epoch + 1) % 10 == 0:
                print(f"epoch {epoch + 1:3d}: {shown} samples, main {own:.1f} MB, workers {below:.1f} MB")
    grown = totals[-1] - totals[4]
    result = {
        "name": f"stream memory over {epochs} epochs, growth since the fifth", "ours": round(grown, 2),
        "peer": None, "ratio": None, "unit": "MB", "machine": cpu_line(),
        "fifth": round(totals[4], 1), "last": round(totals[-1], 1), "least": round(min(totals), 1),
        "most": round(max(totals), 1),
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
