"""Training samples/s of RTMPose-m 256x192: our update beside MMPose's own training step.

    python benchmarks/train_step.py --with-peer [--quick] [--profile] [--compile] [--data COCO_FOLDER]

Both sides begin with the same weights, see the same random images and keypoints and run at the same rate;
their first losses are printed, which shows that they do the same. Data loading is left out. Ours trains as
the product does: bf16 autocast where the device has the instructions and float32 elsewhere, channels-last,
fused AdamW, targets encoded in the step; a second figure is ours in float32. What would be emulated is left
out, and said. MMPose trains as its own configuration and runner do: its model, data preprocessor, loss,
AdamW with its groups and the EMA hook, eager, float32 on a CPU and AMP on a GPU; its targets are encoded
beforehand, as its loader does. Each side is a process of its own; short slices alternate in one run and the
ratio is the median over neighbouring slices, so that whatever else the machine does meets all of them.

On a CPU: batch 16, one thread and two; with two MMPose runs with the OpenMP settings it leaves alone and with
ours, and the ratio is against the faster. On a GPU: batch 256, ours also compiled (`finetune.compile`), which
is the figure; where MMPose cannot be set up, `eager` stands for it: the same network trained its way. The
share of the peak is the network's multiply-adds against those of a large matrix product or convolution in the
same precision here, both per second of processor time on a CPU, by the clock on a GPU. Then the real stream:
how much of the time updates wait for loader workers. `--with-peer` sets MMPose up in `.peers/mmpose`, once;
`--profile` prints where the time of our step goes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from peers.environment import MMPOSE_STEPS, ROOT, Peer, peer_python

from rtmpose.config import setup_environment
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.write import write_train_shards
from rtmpose.deploy.machine import machine
from rtmpose.descriptors import load_dataset
from rtmpose.machine import cpu_line, training_device
from rtmpose.models import build_pose_net

SIZE, POINTS, BATCHES = (192, 256), 17, 4
LR = 1e-4  # a rate of the warm-up: random weights and random labels stay finite
PEERS = Path(__file__).resolve().parent / "peers"
TITLES = {
    "bf16": "ours, bf16",
    "fp32": "ours, float32",
    "compiled": "ours, compiled",
    "eager": "the same network, eager as MMPose trains",
    "peer": "MMPose",
    "peer_passive": "MMPose, its threads waiting as ours do",
}
Slices = dict[str, list[dict[str, Any]]]


class Sides:
    """Our process and, if wanted, MMPose's; `ways` are the figures, each a way to train, `head` is the
    product's own.

    How threads wait for each other is up to environment variables that we set and MMPose does not: on a CPU
    it runs both ways.
    """

    def __init__(self, folder: Path, device: str, options: argparse.Namespace, stack: ExitStack) -> None:
        self.device, self.quick = device, options.quick
        on_gpu, arguments = device != "cpu", (str(folder), device)
        self.ours = stack.enter_context(Peer(Path(sys.executable), PEERS / "own_step.py", *arguments))
        self.peers: dict[str, Peer] = {}
        self.has_bf16 = training_device(on_gpu).bf16
        product = "bf16" if self.has_bf16 else "fp32"
        self.head = "compiled" if on_gpu else product
        self.own = [*dict.fromkeys([product, "fp32"]), *(["compiled"] if options.compile or on_gpu else [])]
        if options.with_peer:
            python = peer_python("mmpose", MMPOSE_STEPS)
            for way in ["peer"] if on_gpu else ["peer_passive", "peer"]:
                if way == "peer":
                    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):  # ours has started
                        os.environ.pop(name, None)
                self.peers[way] = stack.enter_context(Peer(python, PEERS / "mmpose_step.py", *arguments))
        self.others = [*(["eager"] if on_gpu else []), *(["peer"] if self.peers else [])]

    def ways(self, threads: int) -> list[str]:
        return [
            *self.own,
            *self.others,
            *(["peer_passive"] if threads > 1 and "peer_passive" in self.peers else []),
        ]

    def steps(self, way: str, threads: int, steps: int) -> dict[str, Any]:
        if way in self.peers:
            return self.peers[way].ask(threads=threads, steps=steps, lr=LR)
        return self.ours.ask(what="steps", way=way, threads=threads, steps=steps, lr=LR)

    def against(self, slices: Slices) -> str | None:
        """What ours is compared with: MMPose as it is fastest, else the same network its way."""
        peers = [way for way in slices if way in self.peers]
        return (
            min(peers, key=lambda way: time_per_sample(slices[way], "wall"))
            if peers
            else next(iter(self.others), None)
        )


def time_per_sample(slices: list[dict[str, Any]], clock: str) -> float:
    return float(median(one[clock] / one["samples"] for one in slices))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--with-peer", action="store_true", help="set up MMPose in .peers/ (once) and run it too"
    )
    parser.add_argument("--quick", action="store_true", help="two slices of one update each")
    parser.add_argument(
        "--profile", action="store_true", help="print the operators that our step spends its time in"
    )
    parser.add_argument("--compile", action="store_true", help="on a CPU too: ours with torch.compile")
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "realdata" / "coco", help="a raw COCO folder"
    )
    options = parser.parse_args()
    setup_environment()  # before any process of ours starts
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = training_device(device == "cuda")
    print(f"machine: {cpu_line()}; load average before: {os.getloadavg()[0]:.2f}; on {where}", flush=True)
    if not where.bf16:
        print(f"left out: bf16, which {where} would emulate, {where.emulated}", flush=True)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        rows = 256 if device == "cuda" else 16
        write_inputs(folder, rows)
        line = measured(Sides(folder, device, options, stack), options, folder, rows)
    print(f"\nload average after: {os.getloadavg()[0]:.2f}")
    left_out = [] if where.bf16 else ["bf16"]
    print(json.dumps({"name": "train_step", **line, "left_out": left_out, "machine": machine()}))


def write_inputs(folder: Path, rows: int) -> None:
    """The weights and the random batches that every side reads."""
    torch.manual_seed(0)
    torch.save(build_pose_net("m", "simcc", POINTS, SIZE).state_dict(), folder / "weights.pt")
    chance = np.random.default_rng(0)
    np.savez(
        folder / "batches.npz",
        images=chance.integers(0, 256, (BATCHES, rows, SIZE[1], SIZE[0], 3), dtype=np.uint8),
        keypoints=(chance.random((BATCHES, rows, POINTS, 2)) * SIZE).astype(np.float32),
        weights=(chance.random((BATCHES, rows, POINTS)) < 0.9).astype(np.float32),
    )


def measured(sides: Sides, options: argparse.Namespace, folder: Path, rows: int) -> dict[str, Any]:
    """Everything, printed as it is found -> the figures of the JSON line; its head is the first thread
    count's.
    """
    counts = [1, 2] if sides.device == "cpu" and len(os.sched_getaffinity(0)) > 1 else [1]
    macs = sides.ours.ask(what="macs")["macs"]
    print(
        f"forward: {macs / 1e6:,.1f} M multiply-adds per image; a training step counts as three times that\n"
    )
    same_work(sides)
    by_threads = {str(threads): one_count(sides, threads, macs) for threads in counts}
    head = by_threads[str(counts[0])]
    if options.data.is_dir():
        threads = counts[-1]
        by_threads[str(threads)]["stream"] = streamed(sides, options.data.resolve(), folder, threads)
    else:
        print(f"{options.data}: no such folder, so no figure with the real stream")
    if options.profile:
        for way in sides.own:
            print(f"\n## {TITLES[way]}, one thread\n")
            print(sides.ours.ask(what="profile", way=way, threads=1, steps=3, lr=LR)["table"])
    against = head["against"]
    return {
        "ours": head[sides.head]["rate"],
        "peer": head[against]["rate"] if against else None,
        "ratio": head[sides.head].get("ratio"),
        "ratio_fp32": head["fp32"].get("ratio"),
        "unit": f"training samples/s, RTMPose-m {SIZE[1]}x{SIZE[0]}, batch {rows}, {sides.device}",
        "threads": by_threads,
    }


def same_work(sides: Sides) -> None:
    """Print every way's first losses, which also warms it up."""
    print("| loss of update | 1 | 2 | 3 |\n|---|---|---|---|", flush=True)
    for way in sides.ways(1):
        cells = " | ".join(f"{loss:.5f}" for loss in sides.steps(way, 1, 3)["losses"])
        print(f"| {TITLES[way]} | {cells} |", flush=True)


def one_count(sides: Sides, threads: int, macs: float) -> dict[str, Any]:
    """Alternating slices on so many threads, printed -> rate, ratio and share of the peak of each way."""
    number = 1 if sides.quick else (20 if sides.device == "cuda" else 2)
    peak = sides.ours.ask(what="peak", threads=threads, rounds=2 if sides.quick else 8)
    slices: Slices = {way: [] for way in sides.ways(threads)}
    for way in slices:
        sides.steps(way, threads, 1)
    for _ in range(2 if sides.quick else 7):
        for way in slices:
            slices[way].append(sides.steps(way, threads, number))
    again = sides.ours.ask(what="peak", threads=threads, rounds=2 if sides.quick else 8)
    peak = {name: max(value, again[name]) for name, value in peak.items()}
    return table(slices, sides, threads, macs, peak)


def table(slices: Slices, sides: Sides, threads: int, macs: float, peak: dict[str, float]) -> dict[str, Any]:
    against, clock = sides.against(slices), "cpu" if sides.device == "cpu" else "wall"
    title = "one thread" if threads == 1 else f"{threads} threads"
    other = "" if against is None else f" / {TITLES[against]}"
    print(
        f"\n| {title} | samples/s | ms per sample | ratio{other} | by processor time | cores | share of peak "
        "|"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    line: dict[str, Any] = {
        "peak_gmacs": {name: round(value / 1e9, 1) for name, value in peak.items()},
        "against": against,
    }
    for way, found in slices.items():
        wall = time_per_sample(found, "wall")
        figures = {
            "rate": round(1 / wall, 2),
            "cores": round(median(one["cpu"] / one["wall"] for one in found), 2),
        }
        if against is not None and way in sides.own:
            figures |= ratios(found, slices[against])
        in_half = way != "fp32" and (sides.device != "cpu" or way in sides.own)
        # The peak of float16 is that of bfloat16; without bf16 of its own a GPU's is not known.
        precision = "bf16" if in_half and sides.has_bf16 else "fp32"
        figures["share_of_peak"] = round(3 * macs / time_per_sample(found, clock) / peak[precision], 3)
        cells = [f"{figures[name]:.2f}" if name in figures else "" for name in ("ratio", "ratio_cpu")]
        print(
            f"| {TITLES[way]} | {figures['rate']:.2f} | {1000 * wall:.1f} | {cells[0]} | {cells[1]} | "
            f"{figures['cores']:.2f} "
            f"| {100 * figures['share_of_peak']:.0f} % of {peak[precision] / 1e9:.0f} G multiply-adds/s |"
        )
        line[way] = figures
    return line


def ratios(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, float]:
    """How many times as fast ours is, by the clock and by processor time: medians over
    neighbouring slices.
    """
    found = {}
    for name, clock in {"ratio": "wall", "ratio_cpu": "cpu"}.items():
        pairs = zip(mine, theirs, strict=True)
        found[name] = round(
            median((b[clock] / b["samples"]) / (a[clock] / a["samples"]) for a, b in pairs), 3
        )
    return found


def streamed(sides: Sides, data: Path, folder: Path, threads: int) -> dict[str, Any]:
    """Slices of updates on the real stream, with random batches between them, printed."""
    shards = folder / "shards"
    dataset = load_dataset("coco17")
    raws = [
        raw for raw in read_images(dataset, data, "val" if sides.device == "cpu" else "train") if raw.persons
    ]
    write_train_shards(raws, shards, dataset=dataset, input_size=SIZE, workers=1)
    workers = 1 if sides.device == "cpu" else min(10, len(os.sched_getaffinity(0)))
    number = 4 if sides.device == "cpu" else 60
    question = {
        "what": "stream",
        "shards": str(shards),
        "way": sides.head,
        "threads": threads,
        "workers": workers,
        "lr": LR,
    }
    pairs = []
    for _ in range(1 if sides.quick else 4):
        pairs.append((sides.ours.ask(**question, steps=number), sides.steps(sides.head, threads, number)))
    line = {
        "rate": round(median(real["samples"] / real["wall"] for real, _ in pairs), 2),
        "of_random_batches": round(
            median(
                real["samples"] / real["wall"] / (other["samples"] / other["wall"]) for real, other in pairs
            ),
            3,
        ),
        "data_wait": round(median(real["waited"] / real["wall"] for real, _ in pairs), 4),
        "loader_workers": workers,
    }
    print(
        f"\nFrom shards, {workers} loader workers, {threads} threads: {line['rate']:.2f} samples/s, "
        f"{line['of_random_batches']:.2f} × the rate on random batches; "
        f"{100 * line['data_wait']:.1f} % of the time waiting for data."
    )
    return line


if __name__ == "__main__":
    main()
