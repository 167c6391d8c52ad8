"""From boxes in a photograph to keypoints: RTMPose t, s, m, l at 256x192 beside rtmlib on the same ONNX file.

    python benchmarks/inference.py --with-peer [--quick] [--sizes t,s,m,l] [--models FOLDER]

Both sides get the same photographs of ../shared/realdata/coco (rendered mannequins elsewhere) in memory and
the same boxes, of one person and of eight, on one core and on all. rtmlib is the last version on PyPI with
the same ONNX Runtime, in its default way, in an environment of its own. Each of our ways is a row: a runtime
and precision as `PosePipeline` opens it, where this CPU and the files beside the model allow it (`--models`:
`t.onnx`, `t.int8.onnx`, `t.int8.xml`, …; without it networks with seeded random weights are exported, which
costs no accuracy, as none is measured; `--int8` writes int8 of those, too, and `--activation hardswish` gives
both sides networks with hard-swish). Sides and ways take turns; a ratio is the median over rounds with its
95 % bootstrap interval. `before and after` is the share of the time that is not needed when the same threads
compute the network alone, from the plain file, on inputs that lie ready. The share of the peak is the
network's multiply-adds per second beside those of a large matrix product or convolution in float32 here. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from peers.environment import Peer, peer_python
from rtmlib_parity import photographs

from rtmpose.config import Activation, Architecture, setup_environment
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.e2e import e2e_path, export_e2e
from rtmpose.deploy.export import export_onnx
from rtmpose.deploy.machine import machine
from rtmpose.deploy.quantize import run
from rtmpose.deploy.quantize.calibration import Calibration
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.evaluation.bootstrap import percentile_interval
from rtmpose.files import UserError
from rtmpose.machine import cores, cpu_line
from rtmpose.models.zoo import ACTIVATIONS
from rtmpose.topdown import crop_boxes

PEERS = Path(__file__).resolve().parent / "peers"
RTMLIB_STEPS = (
    # rtmlib asks for two OpenCV packages with windows, which need a desktop's libraries: one without does.
    ("rtmlib==0.0.16", "--no-deps"),
    ("numpy", "tqdm", "onnxruntime==1.31.1", "opencv-contrib-python-headless"),
)
SIZE, PERSONS = (192, 256), (1, 8)
FP32 = ("onnxruntime_fp32", "openvino_fp32")
OTHERS = ("openvino_bf16", "onnxruntime_int8", "openvino_int8")
PEER = "rtmlib"
EQUAL = 0.01  # px
SLICE = 0.7  # seconds of a turn, or one call where that takes longer


@dataclass
class Cell:
    """What was measured of one size, number of persons and number of cores: medians of every round."""

    size: str
    persons: int
    cores: int
    wall: dict[str, list[float]] = field(default_factory=dict)  # s per photograph, by way
    network: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, way: str, against: str = PEER) -> tuple[float, float, float]:
        """How many times as fast a way is, and its interval."""
        ratios = np.array(self.wall[against]) / np.array(self.wall[way])
        draws = np.random.default_rng(0).integers(0, len(ratios), (2000, len(ratios)))
        return (float(np.median(ratios)), *percentile_interval(np.median(ratios[draws], axis=1)))

    def around(self, way: str) -> float:
        """The share of the time before and after the network."""
        both = zip(self.network[way], self.wall[way], strict=True)
        return float(median(1 - network / wall for network, wall in both))

    def fastest(self, ways: tuple[str, ...]) -> str:
        return min((way for way in ways if way in self.wall), key=lambda way: median(self.wall[way]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--with-peer", action="store_true", help="set up rtmlib in .peers/ (once) and run it")
    parser.add_argument("--quick", action="store_true", help="t only, two rounds of single calls")
    parser.add_argument("--sizes", default="t,s,m,l")
    parser.add_argument("--models", type=Path, help="a folder with <size>.onnx and, beside them, other forms")
    parser.add_argument("--int8", action="store_true", help="int8 of the networks with random weights, too")
    parser.add_argument("--activation", default="silu", choices=ACTIVATIONS, help="of networks made here")
    options = parser.parse_args()
    if options.models and options.activation != "silu":
        parser.error("--activation is of networks made here; those of --models have their own")
    setup_environment()
    print(f"machine: {cpu_line()}; load average before: {os.getloadavg()[0]:.2f}", flush=True)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        write_inputs(folder)
        sizes = ["t"] if options.quick else options.sizes.split(",")
        models = {size: model_of(size, options.activation, options.models, folder) for size in sizes}
        if options.int8 and options.models is None:
            for onnx in models.values():
                write_int8(onnx, folder)
        cells = [
            cell for count in sorted({1, cores()}) for cell in measure(folder, models, count, options, stack)
        ]
    print(f"\nload average after: {os.getloadavg()[0]:.2f}")
    print(json.dumps(summary(cells)))


def write_inputs(folder: Path) -> None:
    """Photographs with eight persons each: those of its own, then again from the first."""
    found = photographs(folder, 200)
    found.sort(key=lambda one: -len(one[1]))
    chosen = found[:8]
    boxes = np.stack([np.resize(boxes, (max(PERSONS), 4)) for _, boxes in chosen])
    arrays: dict[str, Any] = {f"image{number}": image for number, (image, _) in enumerate(chosen)}
    np.savez(folder / "inputs.npz", count=len(chosen), boxes=boxes, **arrays)


def model_of(size: str, activation: Activation, given: Path | None, folder: Path) -> Path:
    """The ONNX file of a size, with its end-to-end form beside it."""
    if given is not None:
        path = given / f"{size}.onnx"
        if not path.exists():
            raise UserError(f"{path}: no such file; give --sizes that are there")
    else:
        torch.manual_seed(0)
        card = ModelCard.of(Architecture(size=size, activation=activation), SIZE, "coco17")
        model = card.network()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=1.5 / math.sqrt(parameter[0].numel()))
        path = export_onnx(model, SIZE, folder / f"{size}.onnx", card=card)
    if not e2e_path(path).exists():
        export_e2e(path)
    return path


def write_int8(onnx: Path, folder: Path) -> None:
    """int8 files of a network for ONNX Runtime and OpenVINO, calibrated on persons of the inputs."""
    card = read_card(onnx)
    with np.load(folder / "inputs.npz") as file:
        found = [
            crop_boxes(file[f"image{number}"], boxes, card.input_size, udp=card.codec().udp).pixels
            for number, boxes in enumerate(file["boxes"])
        ]
    crops = Calibration(np.concatenate(found), "persons of the inputs")
    trial = run.Trial(ModelFiles(onnx), card, None)
    run.quantize_for_onnxruntime(trial, crops, crops.inputs(card)[:1], seconds=0)
    run.quantize_for_openvino(trial, crops)


def measure(
    folder: Path, models: dict[str, Path], count: int, options: argparse.Namespace, stack: ExitStack
) -> list[Cell]:
    """All cells of a number of cores, printed."""
    with on_cores(count):
        ours = stack.enter_context(Peer(Path(sys.executable), PEERS / "own_pose.py", str(folder)))
        peer = None
        if options.with_peer:
            python = peer_python("rtmlib", RTMLIB_STEPS)
            peer = stack.enter_context(Peer(python, PEERS / "rtmlib_pose.py", str(folder)))
    peak = ours.ask(what="peak", rounds=2 if options.quick else 10)["peak"]
    cells = []
    for size, onnx in models.items():
        macs = ours.ask(what="macs", onnx=str(onnx))["macs"]
        for persons in PERSONS:
            cell = Cell(size, persons, count)
            turns(cell, ours, peer, str(onnx), options.quick)
            show(cell, macs * persons / peak)
            cells.append(cell)
    return cells


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """What is started in the block may use so many cores; this process may use all of them afterwards."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(allowed)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def turns(cell: Cell, ours: Peer, peer: Peer | None, onnx: str, quick: bool) -> None:
    """Rounds in which every way has its turn."""
    asked = {"onnx": onnx, "persons": cell.persons}
    ways = []
    for way in (*FP32, *OTHERS):
        reason = ours.ask(what="open", way=way, **asked)["reason"]
        if reason is None:
            ways.append(way)
        else:
            print(f"left out: {way}, {cell.size}: {reason}", flush=True)

    def turn(way: str, calls: int) -> dict[str, Any]:
        if way == PEER:
            assert peer is not None
            return peer.ask(what="time", size=cell.size, calls=calls, **asked)
        return ours.ask(what="time", way=way, calls=calls, **asked)

    if peer is not None:
        same_points(cell, ours, peer, asked)
        ways = [PEER, *ways]
    first = {way: sum(one[-1] for one in turn(way, 2).values()) for way in ways}  # warms up
    calls = {way: 1 if quick else max(1, round(SLICE / seconds)) for way, seconds in first.items()}
    for _ in range(2 if quick else 9):
        for way in ways:
            found = turn(way, calls[way])
            cell.wall.setdefault(way, []).append(median(found["wall"]))
            if way != PEER:
                cell.network.setdefault(way, []).append(median(found["network"]))


def same_points(cell: Cell, ours: Peer, peer: Peer, asked: dict[str, Any]) -> None:
    """Print how many keypoints of the first photograph both sides agree on."""
    theirs = np.array(peer.ask(what="points", size=cell.size, number=0, **asked)["points"])
    shares = []
    for way in FP32:
        mine = np.array(ours.ask(what="points", way=way, number=0, **asked)["points"])
        distance = np.linalg.norm(mine - theirs, axis=-1)
        shares.append(f"{way} {int((distance <= EQUAL).sum())}/{distance.size}")
    print(f"\nsame keypoints as rtmlib's within {EQUAL} px: {', '.join(shares)}")


def show(cell: Cell, ideal: float) -> None:
    """One table; `ideal` is the seconds that the network would take at the machine's peak in float32."""
    title = f"RTMPose-{cell.size}, {cell.persons} in a photograph, {cell.cores} core{'s'[: cell.cores - 1]}"
    print(f"| {title} | ms | persons/s | × rtmlib | before and after | of the peak |")
    print("|---|---|---|---|---|---|")
    for way, wall in cell.wall.items():
        ratio, around, share = "", "", ""
        if way != PEER:
            if PEER in cell.wall:
                ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*cell.ratio(way))
            around = f"{100 * cell.around(way):.1f} %"
            network = median(cell.network[way])
            share = f"{100 * ideal / network:.0f} %" if way in FP32 else ""
        seconds = median(wall)
        print(
            f"| {way} | {1000 * seconds:.1f} | {cell.persons / seconds:.1f} | {ratio} | {around} | {share} |",
            flush=True,
        )


def summary(cells: list[Cell]) -> dict[str, Any]:
    """The figures of the JSON line; its head is the last size with eight persons on all cores."""
    rows = []
    for cell in cells:
        best, exact = cell.fastest((*FP32, *OTHERS)), cell.fastest(FP32)
        row: dict[str, Any] = {
            "size": cell.size,
            "persons": cell.persons,
            "cores": cell.cores,
            "fastest": best,
        }
        row["persons_per_s"] = {way: round(cell.persons / median(wall), 2) for way, wall in cell.wall.items()}
        row["around"] = {way: round(cell.around(way), 4) for way in cell.network}
        if PEER in cell.wall:
            row["ratio"] = [round(value, 3) for value in cell.ratio(best)]
            row["ratio_fp32"] = [round(value, 3) for value in cell.ratio(exact)]
        rows.append(row)
    head = rows[-1]
    return {
        "name": "inference",
        "ours": head["persons_per_s"][head["fastest"]],
        "peer": head["persons_per_s"].get(PEER),
        "ratio": head.get("ratio", [None])[0],
        "unit": f"persons/s, RTMPose-{head['size']} 256x192, {head['persons']} in a photograph, "
        f"{head['cores']} cores",
        "cells": rows,
        "machine": machine(),
    }


if __name__ == "__main__":
    main()
