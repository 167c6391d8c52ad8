"""How fast photographs become training shards: persons/s beside what decoding and encoding alone would allow.

    python benchmarks/sharding.py [--quick] [--data COCO_FOLDER]

The ceiling is OpenCV's two calls on the same inputs: every photograph decoded once, every crop encoded once
at the shards' quality and full chroma, nothing else. `write_train_shards` and the ceiling alternate in one
process; the share is the median over neighbouring runs. Then, on the larger set, two processes against one,
with the start of the processes and without it (from a quarter of the shards to the last but one, as they are
reported). Last, what the other steps take when they run alone. The peer of the JSON line is the ceiling, its
ratio our share of it on photographs of COCO's own size (`val2017`).
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import io
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from webdataset import TarWriter

from rtmpose.config import setup_environment
from rtmpose.data.raw.annotations import RawImage, read_images
from rtmpose.data.raw.photograph import decode, read_photograph
from rtmpose.data.shards.crops import CutFor, crop_region, cut_crop
from rtmpose.data.shards.sample import encode_jpeg
from rtmpose.data.shards.write import SHARD_BYTES, write_train_shards
from rtmpose.deploy.machine import machine
from rtmpose.descriptors import load_dataset
from rtmpose.machine import cpu_line

ROOT = Path(__file__).resolve().parent.parent
SIZE = (192, 256)
SPLITS = {"val": "val2017, photographs of 640 px", "train": "train2017, photographs of 384 px"}
DATASET = load_dataset("coco17")
QUALITY: int = inspect.signature(write_train_shards).parameters["quality"].default
SHARDS = 40  # about: enough that two processes end together


@dataclass(frozen=True)
class Run:
    """One call of `write_train_shards`: seconds by the clock and of this process, persons/s from a quarter of
    the shards to the last but one.
    """

    seconds: float
    cpu: float
    steady: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--with-peer", action="store_true", help="accepted like everywhere; the peer is the ceiling"
    )
    parser.add_argument("--quick", action="store_true", help="40 photographs, one run of each, one process")
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "realdata" / "coco", help="a raw COCO folder"
    )
    options = parser.parse_args()
    setup_environment()
    cv2.setNumThreads(0)
    print(f"machine: {cpu_line()}; load average before: {os.getloadavg()[0]:.2f}", flush=True)
    lines = {}
    for split, title in SPLITS.items():
        raws = [raw for raw in read_images(DATASET, options.data, split) if raw.persons][
            : 40 if options.quick else None
        ]
        print(f"\n## {title}: {len(raws)}, with {persons_of(raws)} persons\n", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            lines[split] = one_split(raws, Path(folder) / split, options.quick)
    print(f"\nload average after: {os.getloadavg()[0]:.2f}")
    head = {name: lines["val"][name] for name in ("ours", "peer", "ratio")}
    line = {
        "name": "sharding",
        **head,
        "unit": "persons/s of one core; the peer is decoding and encoding alone",
    }
    print(json.dumps({**line, "splits": lines, "machine": machine()}))


def one_split(raws: list[RawImage], folder: Path, quick: bool) -> dict[str, Any]:
    """Run everything on one split and print it -> its figures."""
    persons = persons_of(raws)
    cut(raws, folder, 1, 10**9)
    shard_bytes = sum(path.stat().st_size for path in (folder / "shards").glob("*.tar")) // SHARDS
    triples = []
    for _ in range(1 if quick else 5):
        run = cut(raws, folder, 1, SHARD_BYTES)
        triples.append((run, sum(ceiling(raws, time.perf_counter)), sum(ceiling(raws, time.process_time))))
    ours, bare = (
        persons / median(run.seconds for run, *_ in triples),
        persons / median(wall for _, wall, _ in triples),
    )
    share = median(wall / run.seconds for run, wall, _ in triples)
    by_cpu = median(cpu / run.cpu for run, _, cpu in triples)
    print("| | persons/s | share | by processor time |\n|---|---|---|---|")
    print(f"| decoding and encoding alone | {bare:.0f} | 100 % | 100 % |")
    print(f"| ours, one process | {ours:.0f} | {100 * share:.0f} % | {100 * by_cpu:.0f} % |")
    line: dict[str, Any] = {
        "ours": round(ours, 1),
        "peer": round(bare, 1),
        "ratio": round(share, 3),
        "ratio_cpu": round(by_cpu, 3),
    }
    if not quick and persons > 2000:  # fewer are cut before the processes have started
        line |= two_processes(raws, folder, shard_bytes)
    steps(raws, folder / "shards", 1000 * median(run.cpu for run, *_ in triples) / persons, quick)
    return line


def persons_of(raws: Iterable[RawImage]) -> int:
    return sum(len(raw.persons) for raw in raws)


def cut(raws: Sequence[RawImage], folder: Path, workers: int, shard_bytes: int) -> Run:
    """Write the shards of all photographs, from nothing."""
    reports: list[tuple[float, int]] = []
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    start, cpu = time.perf_counter(), time.process_time()
    write_train_shards(
        raws, folder / "shards", dataset=DATASET, input_size=SIZE, shard_bytes=shard_bytes, workers=workers,
        progress=lambda done, total: reports.append((time.perf_counter(), done)),
    )  # fmt: skip
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    if len(reports) < 8:
        return Run(seconds, cpu, persons_of(raws) / seconds)
    (began, before), (ended, after) = reports[len(reports) // 4], reports[-2]
    return Run(seconds, cpu, (after - before) / (ended - began))


def two_processes(raws: Sequence[RawImage], folder: Path, shard_bytes: int) -> dict[str, float]:
    """Print two processes against one -> the ratios."""
    pairs = [(cut(raws, folder, 1, shard_bytes), cut(raws, folder, 2, shard_bytes)) for _ in range(3)]
    whole = median(one.seconds / two.seconds for one, two in pairs)
    steady = median(two.steady / one.steady for one, two in pairs)
    rate = median(two.steady for _, two in pairs)
    print(f"| ours, two processes, once they have started | {rate:.0f} | {steady:.2f} × one | |")
    started = median(two.seconds for _, two in pairs)
    print(
        f"| ours, two processes, their start included | {persons_of(raws) / started:.0f} | {whole:.2f} × one "
        "| |"
    )
    return {"two_processes": round(steady, 3), "two_processes_with_start": round(whole, 3)}


def ceiling(raws: Iterable[RawImage], clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds of decoding every photograph, and of encoding every crop; reading and cutting are
    not counted.
    """
    decoding = encoding = 0.0
    parameters = [
        cv2.IMWRITE_JPEG_QUALITY,
        QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    for raw in raws:
        content = raw.path.read_bytes()
        start = clock()
        photograph = decode(content)
        decoding += clock() - start
        assert photograph is not None
        for crop in crops_of(raw, photograph):
            bgr = np.ascontiguousarray(crop[..., ::-1])
            start = clock()
            cv2.imencode(".jpg", bgr, parameters)
            encoding += clock() - start
    return decoding, encoding


def crops_of(raw: RawImage, photograph: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    height, width = photograph.shape[:2]
    regions = [crop_region(person, DATASET.skeleton, CutFor(SIZE), width, height) for person in raw.persons]
    return [cut_crop(photograph, *region).pixels for region in regions]


def steps(raws: Sequence[RawImage], shards: Path, ours: float, quick: bool) -> None:
    """Print ms per person of every step alone, on the first photographs and the shards that were written."""
    raws = raws[: 20 if quick else 200]
    persons = persons_of(raws)
    decoding, encoding = ceiling(raws, time.process_time)
    opened = [read_photograph(raw) for raw in raws]
    photographs = [(raw, pixels) for raw, (_, pixels) in zip(raws, opened, strict=True)]
    crops = [crop for raw, pixels in photographs for crop in crops_of(raw, pixels)]
    samples, size = read_back(shards, persons)

    def regions() -> None:
        for raw, pixels in photographs:
            for person in raw.persons:
                crop_region(person, DATASET.skeleton, CutFor(SIZE), pixels.shape[1], pixels.shape[0])

    def write_tar() -> None:
        writer = TarWriter(io.BytesIO(), encoder=False, mtime=0)
        for sample in samples:
            writer.write(sample)
        writer.close()

    texts = [json.loads(sample["json"]) for sample in samples]
    zeros = bytes(size)
    alone: dict[str, Callable[[], object]] = {
        "read and check the photograph": lambda: [read_photograph(raw) for raw in raws],
        "region of the crop": regions,
        "region, cut and reduce": lambda: [crops_of(raw, pixels) for raw, pixels in photographs],
        "encode, with the channels turned": lambda: [encode_jpeg(crop, QUALITY) for crop in crops],
        "JSON": lambda: [json.dumps(text, separators=(",", ":")) for text in texts],
        "tar": write_tar,
        "SHA-256 of the shards": lambda: hashlib.sha256(zeros),
    }
    spent = {
        "decode the photograph alone": 1000 * decoding / persons,
        "encode alone": 1000 * encoding / persons,
    }
    spent |= {name: 1000 * seconds(call) / persons for name, call in alone.items()}
    print("\n| one person, processor time | ms | share of ours |\n|---|---|---|")
    for name, ms in {**spent, "ours": ours}.items():
        print(f"| {name} | {ms:.4f} | {100 * ms / ours:.1f} % |")


def read_back(shards: Path, persons: int) -> tuple[list[dict[str, Any]], int]:
    """`persons` samples as a WebDataset writer takes them, and their bytes in the tar."""
    samples: dict[str, dict[str, Any]] = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.rpartition(".")
                content = tar.extractfile(member)
                assert content is not None
                samples.setdefault(key, {"__key__": key})[suffix] = content.read()
    chosen = list(samples.values())[:persons]
    return chosen, sum(
        1024 + sum(-(-len(part) // 512) * 512 for part in (s["jpg"], s["json"])) for s in chosen
    )


def seconds(call: Callable[[], object]) -> float:
    """Of this process's time: the median of three calls."""
    times = []
    for _ in range(3):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return median(times)


if __name__ == "__main__":
    main()
