"""Our exported files in ONNX Runtime for 64-bit ARM, emulated, beside the same files on this x86-64 machine.

    python benchmarks/arm64_parity.py [--onnx FILE [--int8 FILE]] [--images 8] [--cpu max] [--out data/arm64]

Without a board: qemu translates an ARM process instruction by instruction. This shows what ARM's own code
computes, not how fast. Nothing is installed: `--out` gets qemu, Debian's arm64 Python and aarch64 wheels of
numpy and ONNX Runtime in the versions that run here, and keeps them. Debian 12 and its mirrors are needed,
and some 550 MB. `--cpu` is one of qemu's: `max` has all instructions,
`cortex-a72`, of a Raspberry Pi 4, none of float16.

Files: RTMPose-t at 96x128 with the reference vectors' weights, in fp32, in fp16 and end to end (uint8 crops
in, points out); or `--onnx`, a file of ours, with its end-to-end form, its fp16 form where `<stem>.fp16.onnx`
lies beside it, and `--int8`. Images: rendered persons, one at a time.

The last line is one JSON object. Exit code 1: fp32 differs by more than 1e-4 of the largest output, an output
is no number, or the emulated process failed. Exit code 2: something is missing here. Either says so in one
line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.arm64_debian import Emulated, set_up

from rtmpose.config import setup_environment
from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.e2e import export_e2e
from rtmpose.deploy.export import export_onnx
from rtmpose.deploy.machine import machine
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.descriptors import load_dataset
from rtmpose.evaluation.evaluator import raw_images
from rtmpose.files import UserError
from rtmpose.machine import cpu_line
from rtmpose.topdown import Crop, Crops, crop_box, planes_of

ROOT = Path(__file__).resolve().parent.parent
RUNNER = ROOT / "benchmarks" / "peers" / "arm64_runner.py"
END_TO_END = "end to end"
MOST = 1e-4  # of the largest output, in fp32
Outputs = Mapping[str, np.ndarray]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--onnx", type=Path, help="an exported file, instead of the reference vectors'")
    parser.add_argument("--int8", type=Path, help="the quantised file of the same model")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--cpu", default="max", help="the CPU that qemu emulates")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "arm64", help="where the ARM Python lies")
    options = parser.parse_args(argv)
    if options.int8 is not None and options.onnx is None:
        parser.error("--int8 goes with --onnx, the file that it was quantised from")
    if options.images < 1:
        parser.error("--images must be at least 1")
    setup_environment()
    try:
        refuse_machine(platform.machine())
        emulated = set_up(options.out, options.cpu)
        with tempfile.TemporaryDirectory() as folder:
            result = compare(emulated, options, Path(folder))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        last = (error.stderr.splitlines() or ["no reason given"])[-1]
        print(f"error: {error.cmd[0]} ended with {error.returncode}: {last}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    found = faults(result["rows"])
    if found:
        print(f"error: {'; '.join(found)}", file=sys.stderr)
    return 1 if found else 0


def refuse_machine(name: str) -> None:
    """UserError where there is nothing to emulate, or no package of the emulator is named here."""
    if name == "aarch64":
        raise UserError("this machine is 64-bit ARM: `rtmpose benchmark --target cpu-arm64` measures on it")
    if name != "x86_64":
        raise UserError(f"this machine is {name}; run this on x86-64")


def compare(emulated: Emulated, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All files on both machines."""
    print(f"machine: {cpu_line()}; {emulated.emulator()}", flush=True)
    card, files = networks(options, folder)
    inputs = folder / "inputs"
    inputs.mkdir()
    crops = persons(folder, card, options.images)
    np.save(inputs / "crops.npy", crops.pixels)
    np.save(inputs / "input.npy", planes_of(crops.pixels, card.mean, card.std))
    said_here, here = run([sys.executable], os.environ, list(files.values()), folder / "here")
    print(f"emulated: {len(files)} files, {len(crops)} images each: some minutes", flush=True)
    said_there, there = run(emulated.command, emulated.environment, list(files.values()), folder / "there")
    fp32 = here[files["fp32"].name]
    rows = [row(name, card, fp32, here[at.name], there[at.name]) for name, at in files.items()]
    for found in rows:
        print(line(found), flush=True)
    return {
        "name": "arm64_parity",
        "unit": "difference from x86-64, as a share of the largest output",
        "images": len(crops),
        "rows": rows,
        "emulated": said_there | {"cpu": emulated.cpu, "emulator": emulated.emulator()},
        "here": said_here,
        "machine": machine(),
    }


def networks(options: argparse.Namespace, folder: Path) -> tuple[ModelCard, dict[str, Path]]:
    """The files to run by their precision, and what the model says of itself."""
    if options.onnx is None:
        sys.path.insert(0, str(ROOT))
        from tests.deploy.support import card as formula_card
        from tests.deploy.support import formula_net

        card, model, fp32 = formula_card(), formula_net(), folder / "formula.onnx"
        export_onnx(model, card.input_size, fp32, card=card)
        half = ModelFiles(fp32).form("fp16")
        export_onnx(model, card.input_size, half, card=card, precision="fp16", exported=fp32)
    else:
        fp32 = options.onnx
        card = read_card(fp32)
    files = {"fp32": fp32}
    if (half := ModelFiles(fp32).form("fp16")).is_file():
        files["fp16"] = half
    if options.int8 is not None:
        if read_card(options.int8).input_size != card.input_size:
            raise UserError(f"{options.int8}: its input is not that of {fp32}; give files of one model")
        files["int8"] = options.int8
    return card, files | {END_TO_END: export_e2e(fp32, folder / f"{fp32.stem}.e2e.onnx")}


def persons(folder: Path, card: ModelCard, count: int) -> Crops:
    """Crops of one rendered person of each of `count` images, always the same."""
    root = folder / "persons"
    render_dataset(root, "coco17", level="easy", images={"train": 0, "val": 2 * count}, seed=7, workers=1)
    found: list[Crop] = []
    for image in raw_images(load_dataset("coco17"), root, "val"):
        boxes = [a["bbox"] for a in image.annotations if a.get("num_keypoints") and min(a["bbox"][2:]) > 0]
        if boxes and len(found) < count:
            found.append(crop_box(image.image, boxes[0], card.input_size, udp=card.codec().udp))
    assert len(found) == count, "rendered images hold a person in more than one of two"
    return Crops.of(found)


def run(
    python: Sequence[str], environment: Mapping[str, str], files: Sequence[Path], outputs: Path
) -> tuple[dict[str, Any], dict[str, Outputs]]:
    """What a process of an interpreter says of itself, and the outputs of each file, by the file's name."""
    outputs.mkdir()
    command = [*python, str(RUNNER), str(outputs.parent / "inputs"), str(outputs), *map(str, files)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Outputs] = {}
    for path in files:
        with np.load(outputs / f"{path.name}.npz") as arrays:
            found[path.name] = dict(arrays)
    return json.loads(done.stdout.splitlines()[-1]), found


def row(name: str, card: ModelCard, fp32: Outputs, here: Outputs, there: Outputs) -> dict[str, Any]:
    """How far a file's emulated outputs are from those here: the values, their maxima, and points, input px;
    and how far the points of either side are from those of `fp32`, which are the fp32 file's outputs here.
    """
    emulated, native = values(there, card), values(here, card)
    finite = all(np.isfinite(part).all() for part in (*there.values(), *here.values()))
    found: dict[str, Any] = {"file": name, "finite": finite}
    if not found["finite"]:
        return found
    pairs = list(zip(emulated, native, strict=True))
    found["max_diff"] = max(float(np.abs(a - b).max()) for a, b in pairs)
    found["difference"] = found["max_diff"] / max(float(np.abs(b).max()) for _, b in pairs)
    if name != END_TO_END:  # which gives points, not the values that they are maxima of
        found["same_argmax"] = float(np.mean([(maxima(a) == maxima(b)).mean() for a, b in pairs]))
    moved = np.linalg.norm(points(there, card) - points(here, card), axis=-1)  # (N, K)
    found |= {"points": moved.size, "p99_px": p99(moved), "max_px": float(moved.max())}
    for side, outputs in (("emulated", there), ("here", here)):
        distance = np.linalg.norm(points(outputs, card) - points(fp32, card), axis=-1)
        found[f"{side}_from_fp32_p99_px"] = p99(distance)
    return found


def values(outputs: Outputs, card: ModelCard) -> list[np.ndarray]:
    """The network's own outputs; of an end-to-end file the points' scores."""
    return [outputs["scores"]] if "scores" in outputs else [outputs[name] for name in card.outputs]


def points(outputs: Outputs, card: ModelCard) -> np.ndarray:
    """Points (N, K, 2) in input px, as the file gives them or the codec decodes them."""
    if "keypoints" in outputs:
        return outputs["keypoints"]
    tensors = tuple(map(torch.from_numpy, values(outputs, card)))
    decode: Any = card.codec().decode  # each codec takes the outputs of its own kind of head
    found: np.ndarray = decode(tensors if len(tensors) > 1 else tensors[0])[0].numpy()
    return found


def maxima(output: np.ndarray) -> np.ndarray:
    """(N, K): where the largest value of each point lies."""
    where: np.ndarray = output.reshape(*output.shape[:2], -1).argmax(-1)
    return where


def p99(pixels: np.ndarray) -> float:
    return float(np.quantile(pixels, 0.99))


def line(found: dict[str, Any]) -> str:
    """One row of the table."""
    if not found["finite"]:
        return f"| {found['file']} | no numbers |"
    same = f"{found['same_argmax']:.2%}" if "same_argmax" in found else "–"
    moved = f"{found['p99_px']:.2f} / {found['max_px']:.2f}"
    fp32 = f"{found['emulated_from_fp32_p99_px']:.2f} / {found['here_from_fp32_p99_px']:.2f}"
    return f"| {found['file']} | {found['difference']:.1e} | {same} | {moved} | {fp32} |"


def faults(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What must not be: outputs that are no numbers, and a float32 that is not that of the other machine."""
    found = [f"{row['file']}: outputs are no numbers" for row in rows if not row["finite"]]
    return found + [
        f"fp32: outputs differ by {row['difference']:.1e} of the largest, more than {MOST:.0e}"
        for row in rows
        if row["file"] == "fp32" and row["finite"] and not row["difference"] <= MOST
    ]


if __name__ == "__main__":
    sys.exit(main())
