"""What float16 does to a network's values and points: with the paper's head, as it trains, as it is exported.

    python benchmarks/fp16_ranges.py [--weights models/rtmpose.pt] [--shards data/shards/…/val] [--quick]

Networks with the reference vectors' formula weights (t at 96x128, m and l at 192x256, x at 288x384) see
seeded noise; a trained one (`--weights`) sees persons of the evaluation shards. The trained one, t and m are
also changed so that they leave float16 in one place: features ×30 and ×3000, attention scores ×300, maps
×0.001 where subnormals are flushed.

For each head stands the 99th percentile of how far its points lie from those of the trained network in
float64, in input px: in an emulation that rounds each operation, and by PyTorch's own float16 on this CPU
(`.half()`). The second figure leaves out near-ties: points whose maximum leads by less than four times what
rounding to 11 digits alone changes. A point whose logits are no numbers counts as a whole side of the input.

Then come the range of each part of the form, and the latency of the form beside the network as it trains,
both float32 in ONNX Runtime with one thread, in turns. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtmpose.config import setup_environment
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.export import write_onnx
from rtmpose.deploy.form import deploy_form, in_half
from rtmpose.deploy.machine import machine
from rtmpose.deploy.ranges import LARGEST, Range, emulated, rounded_alone
from rtmpose.deploy.runtimes.onnxruntime import open_file
from rtmpose.deploy.samples import person_crops
from rtmpose.machine import cpu_line
from rtmpose.models import PoseNet, build_model, build_pose_net, load_exactly, read_weights
from rtmpose.models.heads.simcc import QUERY_DIM, GatedAttention, ScaleNorm
from rtmpose.models.shapes import shapes_of

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.deploy.half import (
    decided,
    features_times,
    maps_times,
    moved,
    p99,
    reference,
    scores_times,
)
from tests.models.support import fill
from tests.support import det_input

FORMULA: dict[str, tuple[int, int]] = {"t": (96, 128), "m": (192, 256), "l": (192, 256), "x": (288, 384)}
IMAGES = {"t": 16, "m": 4, "l": 4, "x": 2}
NATIVE = {"t": 8, "m": 1, "l": 1, "x": 0}  # of these, for PyTorch's own float16, which is slow on CPUs
CHANGES: dict[str, tuple[Callable[[PoseNet], PoseNet], bool]] = {  # and whether subnormals are flushed
    "as it is": (copy.deepcopy, False),
    "features ×30": (lambda model: features_times(model, 30), False),
    "features ×3000": (lambda model: features_times(model, 3000), False),
    "scores ×300": (lambda model: scores_times(model, 300), False),
    "maps ×0.001, flushed": (lambda model: maps_times(model, 1e-3), True),
}
HEADS = ("paper", "trained", "form")
ROUNDS, CALLS = 30, 5


class PaperNorm(nn.Module):
    """x / max(‖x‖·d^-½, eps)·g, written as it stands."""

    def __init__(self, norm: ScaleNorm) -> None:
        super().__init__()
        self.g = norm.g

    def forward(self, x: Tensor) -> Tensor:
        rms = torch.sqrt((x * x).sum(-1, keepdim=True)) * x.shape[-1] ** -0.5
        return x / rms.clamp(min=ScaleNorm.EPS) * self.g


class PaperAttention(nn.Module):
    """res·x + (u ⊙ relu(q kᵀ/√s)² v) W, written as it stands."""

    def __init__(self, unit: GatedAttention) -> None:
        super().__init__()
        self.unit = unit
        self.ln = PaperNorm(unit.ln)

    def forward(self, x: Tensor) -> Tensor:
        unit = self.unit
        sides = [unit.expanded, unit.expanded, QUERY_DIM]
        u, v, base = torch.split(F.silu(unit.uv(self.ln(x))), sides, dim=-1)
        query, key = (base * unit.gamma[i] + unit.beta[i] for i in (0, 1))
        attention = F.relu(query @ key.transpose(1, 2) * QUERY_DIM**-0.5).square()
        return unit.res_scale(x) + unit.o(u * (attention @ v))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, help="a trained SimCC network's weights")
    parser.add_argument(
        "--shards", type=Path, help="evaluation shards whose persons the trained network sees"
    )
    parser.add_argument("--quick", action="store_true", help="the t and m networks alone, few images")
    options = parser.parse_args()
    setup_environment()
    torch.set_num_threads(1)
    print(f"machine: {cpu_line()}", flush=True)
    rows, ranges = [], {}
    with torch.no_grad():
        for name, model, images, native in networks(options):
            for change, (make, flush) in CHANGES.items() if name in ("trained", "t", "m") else ONLY:
                rows.append(row(f"{name}, {change}", make(model), images, native, flush))
                print(line(rows[-1]), flush=True)
            ranges[name] = report_ranges(name, model, images)
        latency = {size: latency_ratio(size, 3 if options.quick else ROUNDS) for size in ("t", "m")}
    result = {"name": "fp16_ranges", "unit": "p99 px from float64", "rows": rows, "ranges": ranges}
    print(json.dumps(result | {"latency_ratio": latency, "machine": machine()}))


ONLY = [("as it is", CHANGES["as it is"])]  # for networks that need no change to leave float16


def networks(options: argparse.Namespace) -> Iterator[tuple[str, PoseNet, Tensor, int]]:
    """Name, network, normalised images (N, 3, H, W), and how many of them PyTorch's own float16 sees."""
    if options.weights is not None:
        yield trained(options.weights, options.shards, 20 if options.quick else 100)
    for size in ("t", "m") if options.quick else FORMULA:
        width, height = FORMULA[size]
        model = fill(build_pose_net(size, input_size=(width, height)))
        count = 2 if options.quick else IMAGES[size]
        images = torch.from_numpy(det_input((count, 3, height, width)))
        yield size, model, images, min(count, NATIVE[size])


def trained(path: Path, shards: Path | None, count: int) -> tuple[str, PoseNet, Tensor, int]:
    """The network that a file of weights belongs to, and persons for it."""
    shapes = shapes_of(read_weights(path))
    assert shapes.num_keypoints and shapes.input_size, "--weights must be those of a SimCC network"
    model = build_model(shapes.architecture, shapes.num_keypoints, shapes.input_size).eval()
    load_exactly(model, path)
    if shards is None:
        width, height = shapes.input_size
        return "trained", model, torch.from_numpy(det_input((count, 3, height, width))), 16
    card = ModelCard.of(shapes.architecture, shapes.input_size, "coco17")
    return "trained", model, torch.from_numpy(person_crops(shards, card, count)), 16


def paper(model: PoseNet) -> PoseNet:
    """A copy with the head as the paper writes it."""
    model = copy.deepcopy(model)
    mlp = model.get_submodule("head.mlp")
    setattr(mlp, "0", PaperNorm(mlp.get_submodule("0")))  # type: ignore[arg-type]
    model.head.gau = PaperAttention(model.head.gau)  # type: ignore[arg-type]
    return model


def row(name: str, model: PoseNet, images: Tensor, native: int, flush: bool) -> dict[str, Any]:
    """p99 of each head and each way to compute in float16; `alone` is rounding without float16's limits."""
    expected = reference(model, images)
    clear = decided(model, images, expected)
    form = deploy_form(model)
    found: dict[str, Any] = {
        "case": name,
        "points": clear.numel(),
        "decided": round(float(clear.float().mean()), 3),
        "float32_difference": relative(form(images), model(images)),
        "powers": {part: power for part, power in form.powers.items() if power != 1},
        "alone": p99(moved(rounded_alone(model, images), expected, model.input_size)),
    }
    for head in HEADS:
        half = (
            in_half(form) if head == "form" else (paper if head == "paper" else copy.deepcopy)(model).half()
        )
        inputs = images if head == "form" else images.half()
        output, _ = emulated(half, inputs, flush=flush)
        distance = moved(output, expected, model.input_size)
        found[head] = {"emulated": p99(distance), "emulated_decided": p99_if_any(distance[clear])}
        if native and not flush:  # a CPU flushes float32's subnormals alone
            some = tuple(axis[:native] for axis in expected)
            distance = moved(half(inputs[:native]), some, model.input_size)  # type: ignore[arg-type]
            found[head] |= {"half": p99(distance), "half_decided": p99_if_any(distance[clear[:native]])}
    return found


def p99_if_any(distances: Tensor) -> float | None:
    """None where there are no points, such as where all of a few are near-ties."""
    return p99(distances) if distances.numel() else None


def relative(output: Any, expected: Any) -> float:
    """The largest difference of two outputs, as a share of the largest value."""
    pairs = list(zip(output, expected, strict=True))
    return max(float((a - b).abs().max()) for a, b in pairs) / max(float(b.abs().max()) for _, b in pairs)


def line(found: dict[str, Any]) -> str:
    """One row of the table: p99 of all / of decided points, emulated and by `.half()`."""
    cells = []
    for head in HEADS:
        for way in ("emulated", "half"):
            values = (found[head].get(way), found[head].get(f"{way}_decided"))
            cells.append(" / ".join("–" if value is None else f"{value:.2f}" for value in values))
    start = f"{found['case']} | {found['points']}, {found['decided']:.0%} | {found['alone']:.2f}"
    return f"| {start} | {' | '.join(cells)} | {found['float32_difference']:.1e} |"


def report_ranges(name: str, model: PoseNet, images: Tensor) -> dict[str, Any]:
    """The largest value of each part of the form in float16, and of the network as it trains."""
    _, ours = emulated(in_half(deploy_form(model)), images)
    _, theirs = emulated(copy.deepcopy(model).half(), images.half())
    print(f"\n{name}: part | largest, share of {LARGEST:.0f}, subnormal | the same as it trains")
    for part, found in ours.items():
        print(f"| {part} | {cell(found)} | {cell(theirs.get(part))} |")
    print(flush=True)
    return {part: {"largest": found.largest, "small": found.small_share} for part, found in ours.items()}


def cell(found: Range | None) -> str:
    if found is None:
        return "–"
    return f"{found.largest:.3g}, {found.largest / LARGEST:.2%}, {found.small_share:.2%}"


def latency_ratio(size: str, rounds: int) -> dict[str, float]:
    """Median time of the form over that of the network as it trains, of pairs of calls in random order."""
    width, height = (96, 128) if size == "t" else (192, 256)
    model = fill(build_pose_net(size, input_size=(width, height)))
    image = {"input": det_input((1, 3, height, width))}
    with tempfile.TemporaryDirectory() as folder:
        files = [write_onnx(network, (width, height), Path(folder) / f"{index}.onnx")
                 for index, network in enumerate((model, deploy_form(model)))]  # fmt: skip
        sessions = [open_file(path, threads=1) for path in files]
    for session in sessions:
        session.run(None, image)
    pairs = []
    for _ in range(rounds):
        times = [0.0, 0.0]
        for index in random.sample((0, 1), 2):
            start = time.perf_counter()
            for _ in range(CALLS):
                sessions[index].run(None, image)
            times[index] = (time.perf_counter() - start) / CALLS
        pairs.append(times)
    plain, ours = np.array(pairs).T
    ratio = float(np.median(ours / plain))
    print(f"latency {size}: {np.median(plain) * 1e3:.2f} ms as it trains, the form ×{ratio:.3f}")
    return {"ratio": ratio, "plain_ms": float(np.median(plain) * 1e3)}


if __name__ == "__main__":
    main()
