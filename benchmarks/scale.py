"""What the data path needs at 0.83 million, 100 million and 10 billion crops an epoch, from rates measured
here and now.

Prints, as Markdown: (1) how near the windowed shuffle comes to a full one, (2) what a manifest of a million
shards costs, (3) bytes, seconds and cores at three sizes. `python benchmarks/scale.py [--quick] [--data
FOLDER]`, FOLDER being a raw COCO; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from rtmpose.config import AugmentConfig
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.cache import ShardCache
from rtmpose.data.shards.crops import CutFor
from rtmpose.data.shards.manifest import FORMAT, MANIFEST
from rtmpose.data.shards.write import write_train_shards
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.order import EpochOrder, SetSize
from rtmpose.data.stream.stream import TrainStream
from rtmpose.descriptors import load_dataset, load_skeleton
from rtmpose.machine import cpu_line

DATA = Path(__file__).resolve().parent.parent.parent / "shared/realdata/coco"
SIZE = (192, 256)
SHARD_BYTES = 200e6
EPOCHS = {"COCO ×3 + AIC": 0.83e6, "100 M persons": 100e6, "10 B persons": 10e9}
GPUS = {"COCO ×3 + AIC": 8, "100 M persons": 64, "10 B persons": 1024}
PER_GPU = 2000.0  # training samples a second that one GPU is assumed to take: no GPU was measured


def batch_spread(shards: int, samples: int, window: int, batch: int, draws: int) -> tuple[float, float]:
    """Of batches at `draws` places of an epoch: how much more the mean of a property varies that all samples
    of a shard share than in a full shuffle (what shards in the raw files' order would risk; ours are dealt at
    random), and how many pairs of neighbours in a shard, such as persons of one photograph, meet in one
    batch, against a full shuffle's.
    """
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(shards)
    shared = (shared - shared.mean()) / shared.std()
    order = EpochOrder([SetSize(np.full(shards, samples), 1)], 0, 0, window)
    places = rng.integers(0, shards * samples - batch, draws)
    means, pairs = [], 0
    for place in places.tolist():
        rows = order.rows(place, place + batch)
        means.append(shared[rows["shard"]].mean())
        keys = np.sort(rows["shard"] * (samples + 1) + rows["row"])
        pairs += int((np.diff(keys) == 1).sum())
    by_chance = batch * (batch - 1) / (shards * samples)
    return float(np.var(means) * batch), pairs / draws / by_chance


def shuffle_table(draws: int) -> list[dict[str, Any]]:
    rows = []
    for name, shards, samples in (
        ("75 shards of 2,000", 75, 2_000),
        ("a million shards of 10,000", 1_000_000, 10_000),
    ):
        for window in (1, 8, 32, 128, 1024):
            if window > 2 * shards:
                continue
            for batch in (256, 2048):
                spread, pairs = batch_spread(
                    shards, samples, window, batch, draws if window < 128 else draws // 4
                )
                rows.append(
                    {"set": name, "window": window, "batch": batch, "variance": spread, "neighbours": pairs}
                )
    return rows


def paper_manifest(folder: Path, shards: int) -> float:
    """Write the manifest of `shards` shards that exist on paper only -> its bytes."""
    digest = "0123456789abcdef" * 4
    entry = {"samples": 10_000, "bytes": int(SHARD_BYTES), "sha256": digest, "idx_sha256": digest}
    manifest = {
        "format": FORMAT, "kind": "train", "url": "s3://bucket/prefix",
        "skeleton": load_skeleton("coco17").to_dict(), "cut_for": CutFor(SIZE).to_dict(),
        "shards": [{"name": f"train-{i:06d}.tar", **entry} for i in range(shards)],
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return (folder / MANIFEST).stat().st_size


def open_manifest(folder: Path) -> dict[str, float]:
    """What a rank pays for a manifest, in this process: seconds to open, to plan the first step in the middle
    of the epoch and each further one (global batch 2,048, one rank of 8), and the memory it takes.
    """

    def memory() -> float:
        return psutil.Process().memory_info().rss / 1e6

    before, start = memory(), time.perf_counter()
    cache = ShardCache(folder / "cache", 10**15)
    stream = TrainStream(
        [MixEntry(folder, 1)],
        load_skeleton("coco17"),
        SIZE,
        batch_size=2048,
        seed=0,
        rank=3,
        world=8,
        cache=cache,
    )
    opened = time.perf_counter()
    order = EpochOrder(stream.sets, 0, 0, stream.window)
    middle = stream.samples_per_epoch // 2
    order.rows(middle, middle + 2048)
    first = time.perf_counter()
    for step in range(1, 101):
        order.rows(middle + 2048 * step, middle + 2048 * (step + 1))
    done = time.perf_counter()
    return {
        "open": opened - start,
        "first": first - opened,
        "step": (done - first) / 100,
        "MB": memory() - before,
    }


def measured_rates(data: Path, folder: Path, quick: bool) -> dict[str, float]:
    """On one core: persons cut a second, bytes a person, samples streamed a second."""
    dataset, config = load_dataset("coco17"), AugmentConfig()
    images = list(read_images(dataset, data, "val"))[: 40 if quick else None]
    start = time.process_time()
    manifest = write_train_shards(images, folder / "cut", dataset=dataset, input_size=SIZE, workers=1)
    cut = time.process_time() - start
    stream = TrainStream([MixEntry(folder / "cut", 1)], dataset.skeleton, SIZE, batch_size=32, seed=0)
    list(stream.epoch(0, config))  # imports, page cache
    start, shown = time.process_time(), 0
    for epoch in range(1, 2 if quick else 4):
        shown += sum(len(batch.images) for batch in stream.epoch(epoch, config))
    streamed = time.process_time() - start
    count = manifest["samples"]
    return {"cut": count / cut, "bytes": manifest["bytes"] / count, "stream": shown / streamed}


def sizes_table(rates: dict[str, float]) -> list[str]:
    lines = [
        "| | crops an epoch | stored | shards of 200 MB | manifest | cutting, core-hours | GPUs assumed | a "
        "node of 8 reads | "
        "if every node read every shard | loader cores a node | an epoch takes |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, crops in EPOCHS.items():
        stored = (
            crops * rates["bytes"] * (0.64 if "COCO" in name else 1)
        )  # COCO's 150 k persons are shown three times
        shards, need = stored / SHARD_BYTES, GPUS[name] * PER_GPU
        node = min(GPUS[name], 8) * PER_GPU
        lines.append(
            f"| {name} | {crops:.3g} | {stored / 1e12:.3g} TB | {shards:,.0f} | {shards * 228 / 1e6:,.2f} MB "
            "| "
            f"{crops / rates['cut'] / 3600:,.1f} | {GPUS[name]} | {node * rates['bytes'] / 1e9:.1f} GB/s | "
            f"{need * rates['bytes'] / 1e9:.1f} GB/s | {node / rates['stream']:.0f} | "
            f"{crops / need / 60:.1f} min |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument(
        "--open", type=Path, help=argparse.SUPPRESS
    )  # in a process of its own, for its memory
    arguments = parser.parse_args()
    if arguments.open:
        print(json.dumps(open_manifest(arguments.open)))
        return
    print(f"machine: {cpu_line()}", flush=True)
    cv2.setNumThreads(0)
    print(
        "| set | window, shards | batch | variance of batch means, full shuffle = 1 | neighbours that meet, "
        "full shuffle = 1 |"
    )
    print("|---|---|---|---|---|")
    table = shuffle_table(50 if arguments.quick else 400)
    for row in table:
        print(
            f"| {row['set']} | {row['window']} | {row['batch']} | {row['variance']:.2f} | "
            f"{row['neighbours']:.2f} |"
        )
    with tempfile.TemporaryDirectory() as name:
        folder, shards = Path(name), 10_000 if arguments.quick else 1_000_000
        size = paper_manifest(folder, shards)
        command = [sys.executable, __file__, "--open", str(folder)]
        opened = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(
            f"\nManifest of {shards:,} shards: {size / 1e6:.0f} MB of JSON, opened in {opened['open']:.1f} "
            "s, "
            f"{opened['MB']:.0f} MB a rank; first step in the middle of the epoch planned in "
            f"{opened['first'] * 1e3:.0f} ms, "
            f"each further one {opened['step'] * 1e3:.1f} ms.\n"
        )
        rates = measured_rates(arguments.data, folder, arguments.quick)
    per_person = f"{rates['bytes'] / 1e3:.0f} kB"
    print(
        f"One core cuts {rates['cut']:.0f} persons/s of {per_person}, streams {rates['stream']:.0f} "
        "samples/s.\n"
    )
    print("\n".join(sizes_table(rates)))
    spread = next(row["variance"] for row in table if row["window"] == 32 and row["batch"] == 256)
    result = {
        "name": "windowed shuffle, 75 shards in the files' order, window 32, batch 256: variance of batch "
                "means",
        "ours": round(spread, 3), "peer": 1.0, "ratio": round(spread, 3), "unit": "of a full shuffle's",
        "machine": cpu_line(), "manifest": opened, "rates": rates,
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
