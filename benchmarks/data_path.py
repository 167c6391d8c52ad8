"""Training samples/s of one core: our shards and stream beside MMPose's own pipeline, and where our time
goes.

    python benchmarks/data_path.py --with-peer [--quick] [--data COCO_FOLDER]

Ours: shards of one crop per person, then `TrainStream` to batches of 64 (uint8 images, keypoints, weights).
MMPose 1.3.2: the data set and the training pipeline of its RTMPose-m 256x192 configuration, from the
photographs, collated to lists of 64. The same persons, the same augmentation settings, one process and one
thread each, files in the page cache. Slices of both alternate in one run and the ratio is the median over
neighbouring slices, so that whatever else the machine does meets both. MMPose encodes the targets in the
loader, ours on the batch's device: ratios are also given with our encoding and normalisation added, and with
MMPose's encoding left out.

Two sets: photographs of COCO's own size (`val2017`, long side 640, the ratio of the JSON line) and of long
side 384 (`train2017`). `--with-peer` sets MMPose up in `.peers/mmpose` and simplejpeg in `.peers/simplejpeg`,
once. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import cv2
import torch
from peers.bare_calls import WHOLE, calls, milliseconds, samples_of
from peers.environment import (
    MMPOSE_STEPS,
    ROOT,
    SIMPLEJPEG_STEPS,
    Peer,
    peer_python,
    published_augmentation,
)

from rtmpose.config import setup_environment
from rtmpose.data.raw.annotations import RawImage, read_images
from rtmpose.data.raw.photograph import decode
from rtmpose.data.shards.write import write_train_shards
from rtmpose.data.stream.batch import Batch
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.stream import TrainStream
from rtmpose.deploy.machine import machine
from rtmpose.descriptors import load_dataset
from rtmpose.files import UserError
from rtmpose.machine import cpu_line
from rtmpose.models import normalise
from rtmpose.targets import SimCC

SIZE, BATCH = (192, 256), 64
PEERS = Path(__file__).resolve().parent / "peers"
SPLITS = {"val": "val2017, photographs of 640 px", "train": "train2017, photographs of 384 px"}
DATASET = load_dataset("coco17")


class Slice(NamedTuple):
    """A stretch of samples: ms per sample by the clock, and of processor time."""

    wall: float
    cpu: float


@dataclass(frozen=True, eq=False)
class Ours:
    """Our stream; each slice goes on where the last one ended."""

    batches: Iterator[Batch]
    codec: SimCC

    @classmethod
    def open(cls, shards: Path, workers: int = 0) -> Ours:
        entries = [MixEntry(shards, 1)]
        stream = TrainStream(entries, DATASET.skeleton, SIZE, batch_size=BATCH, seed=0, workers=workers)
        return cls(
            (batch for epoch in count() for batch in stream.epoch(epoch, published_augmentation())),
            SimCC(SIZE),
        )

    def slice(self, samples: int, encode: bool = False) -> Slice:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(samples // BATCH):
            batch = next(self.batches)
            if encode:
                self.codec.encode(batch.keypoints, batch.weights)
                normalise(batch.images)
        done = samples // BATCH * BATCH / 1000
        return Slice((time.perf_counter() - wall) / done, (time.process_time() - cpu) / done)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--with-peer", action="store_true", help="set up the peers in .peers/ (once) and run them too"
    )
    parser.add_argument("--quick", action="store_true", help="two short slices of each")
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "realdata" / "coco", help="a raw COCO folder"
    )
    options = parser.parse_args()
    setup_environment()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    print(f"machine: {cpu_line()}; load average before: {os.getloadavg()[0]:.2f}", flush=True)
    lines = {}
    for split, title in SPLITS.items():
        print(f"\n## {title}\n", flush=True)
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            lines[split] = one_split(
                options.data.resolve(), split, Path(folder), options.with_peer, options.quick, stack
            )
    print(f"\nload average after: {os.getloadavg()[0]:.2f}")
    head = {name: lines["val"].get(name) for name in ("ours", "peer", "ratio")}
    line = {
        "name": "data_path",
        **head,
        "unit": "training samples/s of one core",
        "splits": lines,
        "machine": machine(),
    }
    print(json.dumps(line))


def one_split(
    root: Path, split: str, folder: Path, with_peer: bool, quick: bool, stack: ExitStack
) -> dict[str, Any]:
    """Cut the shards, run everything on one split and print it -> its figures."""
    raws = [raw for raw in read_images(DATASET, root, split) if raw.persons]
    shards = folder / "shards"
    write_train_shards(raws, shards, dataset=DATASET, input_size=SIZE, workers=1)
    peer = None
    if with_peer:
        program, arguments = PEERS / "mmpose_pipeline.py", (str(root), split)
        peer = stack.enter_context(Peer(peer_python("mmpose", MMPOSE_STEPS), program, *arguments))
        same_persons(raws, peer.greeting["ids"])
    found = alternate(Ours.open(shards), peer, quick)
    line = rates(found)
    if not quick:
        line["two_workers"] = two_workers(shards)
        both = line["two_workers"]
        print(
            f"| ours, 2 loader workers on 2 cores: {both['speedup']:.2f} × ours | {both['rate']:.0f} | | | |"
        )
    line["where"] = where(shards, median(one.cpu for one in found["ours"]), quick)
    if peer is not None:
        peer_steps(peer, quick)
        line["jpeg"] = jpeg(folder, shards, raws, quick, stack)
    return line


def same_persons(raws: list[RawImage], theirs: list[int]) -> None:
    """Say whether both sides show the same persons, and which not."""
    ours = {person.annotation_id for raw in raws for person in raw.persons}
    only = {"ours": sorted(ours - set(theirs)), "MMPose": sorted(set(theirs) - ours)}
    said = "the same on both sides" if not any(only.values()) else f"only here: {only}"
    print(f"{len(ours)} persons in our shards, {len(theirs)} in MMPose's data set: {said}\n")


def alternate(ours: Ours, peer: Peer | None, quick: bool) -> dict[str, list[Slice]]:
    """Slices of ours and the peer's in turn, with and without the target encoding."""

    def theirs(what: str, samples: int) -> Slice:
        assert peer is not None
        answer = peer.ask(what=what, samples=samples)
        return Slice(*(1000 * answer[clock] / answer["samples"] for clock in ("wall", "cpu")))

    found: dict[str, list[Slice]] = {name: [] for name in ("ours", "peer", "ours_encoded", "peer_no_targets")}
    samples = 128 if quick else 512
    ours.slice(samples)  # warms the page cache, as it does the peer's
    if peer is not None:
        theirs("full", samples)
    for _ in range(2 if quick else 11):
        found["ours"].append(ours.slice(samples))
        if peer is not None:
            found["peer"].append(theirs("full", samples // 2))
        found["ours_encoded"].append(ours.slice(samples, encode=True))
        if peer is not None:
            found["peer_no_targets"].append(theirs("no_targets", samples // 2))
    return found


def rates(found: dict[str, list[Slice]]) -> dict[str, Any]:
    """Print the table of samples/s and ratios -> them."""
    titles = {
        "ours": "ours",
        "peer": "MMPose",
        "ours_encoded": "ours, with target encoding and normalisation",
        "peer_no_targets": "MMPose, without target encoding",
    }
    print("| one core | samples/s | ms | ratio, ours / MMPose | by processor time |\n|---|---|---|---|---|")
    line: dict[str, Any] = {}
    against = {"ours": "peer", "ours_encoded": "peer", "peer_no_targets": "peer_no_targets", "peer": None}
    for name, title in titles.items():
        if not found[name]:
            continue
        wall = median(one.wall for one in found[name])
        line[name] = round(1000 / wall, 1)
        cells = ["", ""]
        if against[name] and found["peer"]:
            mine = found["ours" if name == "peer_no_targets" else name]
            pairs = list(zip(mine, found[str(against[name])], strict=True))
            values = median(b.wall / a.wall for a, b in pairs), median(b.cpu / a.cpu for a, b in pairs)
            cells = [f"{value:.2f}" for value in values]
            suffix = {"ours": "", "ours_encoded": "_encoded", "peer_no_targets": "_no_targets"}[name]
            line |= {f"ratio{suffix}": round(values[0], 3), f"ratio_cpu{suffix}": round(values[1], 3)}
        print(f"| {title} | {1000 / wall:.0f} | {wall:.3f} | {cells[0]} | {cells[1]} |")
    return line


def two_workers(shards: Path) -> dict[str, float]:
    """Samples/s with two loader workers against none, in alternating slices."""
    none, two = Ours.open(shards), Ours.open(shards, workers=2)
    prefetched = 6 * BATCH  # what the workers made while they were not asked
    two.slice(prefetched)
    pairs = []
    for _ in range(5):
        alone = none.slice(512).wall
        two.slice(prefetched)
        pairs.append((alone, two.slice(1536).wall))
    return {
        "rate": round(1000 / median(both for _, both in pairs), 1),
        "speedup": round(median(alone / both for alone, both in pairs), 3),
    }


def where(shards: Path, ours: float, quick: bool) -> dict[str, float]:
    """Print what the bare calls take on the same samples, beside our time per sample -> ms of each."""
    samples = samples_of(shards, DATASET.skeleton, SIZE, 64 if quick else 480)
    rounds = 1 if quick else 5
    spent = {
        name: milliseconds(samples, call, rounds) for name, call in calls(DATASET.skeleton, SIZE).items()
    }
    floor = sum(ms for name, ms in spent.items() if name != WHOLE)
    print("\n| one sample, processor time | ms | share of ours |\n|---|---|---|")
    rows = {**spent, "all that is done": floor, "ours": ours, "ours beyond the bare calls": ours - floor}
    for name, ms in rows.items():
        print(f"| {name} | {ms:.4f} | {100 * ms / ours:.1f} % |")
    pixels = sum(sample.part.shape[0] * sample.part.shape[1] for sample in samples) / len(samples)
    size = sum(len(sample.content) for sample in samples) / len(samples)
    print(
        f"\nOn average {size / 1000:.1f} kB are read and {pixels / 1000:.0f} thousand pixels decoded for a "
        "sample; nothing but"
    )
    print(f"decoding the whole crops would give {1000 / spent[WHOLE]:.0f} samples/s.")
    return {name: round(ms, 4) for name, ms in rows.items()}


def peer_steps(peer: Peer, quick: bool) -> None:
    """Print what MMPose's transforms take."""
    spent = peer.ask(what="steps", samples=64 if quick else 640)["ms"]
    print("\n| MMPose's transforms | ms |\n|---|---|")
    for name, ms in spent.items():
        print(f"| {name} | {ms:.3f} |")


def jpeg(folder: Path, shards: Path, raws: list[RawImage], quick: bool, stack: ExitStack) -> dict[str, Any]:
    """Print OpenCV's decoder beside simplejpeg's, on crops and photographs, and a checksum's cost."""
    number = 32 if quick else 200
    crops = [sample.image for sample in samples_of(shards, DATASET.skeleton, SIZE, number)]
    figures = {}
    heads = ["JPEG", "kB", "OpenCV ms", "simplejpeg ms", "ratio", "same pixels", "CRC-32 ms", "XXH3 ms"]
    print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name, contents in {
        "crops": crops,
        "photographs": [raw.path.read_bytes() for raw in raws[:number]],
    }.items():
        files = folder / name
        files.mkdir()
        for i, content in enumerate(contents):
            (files / f"{i:06d}.jpg").write_bytes(content)
        peer = stack.enter_context(
            Peer(peer_python("simplejpeg", SIMPLEJPEG_STEPS), PEERS / "jpeg_decode.py", str(files))
        )
        pairs = [(milliseconds(contents, decode, 1), peer.ask()) for _ in range(2 if quick else 7)]
        same = sum(
            zlib.crc32(_pixels(content)) == crc
            for content, crc in zip(contents, peer.greeting["pixels"], strict=True)
        )
        mine, other = median(ms for ms, _ in pairs), median(answer["decode"] for _, answer in pairs)
        crc, xxh = milliseconds(contents, zlib.crc32, 5), median(answer["xxh3_64"] for _, answer in pairs)
        ratio = median(answer["decode"] / ms for ms, answer in pairs)
        cells = [
            name,
            f"{sum(map(len, contents)) / len(contents) / 1000:.1f}",
            f"{mine:.3f}",
            f"{other:.3f}",
            f"{ratio:.2f}",
        ]
        print(f"| {' | '.join(cells)} | {same} of {len(contents)} | {crc:.4f} | {xxh:.4f} |")
        figures[name] = {
            "opencv_ms": round(mine, 4),
            "simplejpeg_ms": round(other, 4),
            "same_pixels": same == len(contents),
        }
    return figures


def _pixels(content: bytes) -> bytes:
    pixels = decode(content)
    if pixels is None:
        raise UserError("an image of the raw folder cannot be decoded")
    return pixels.tobytes()


if __name__ == "__main__":
    main()
