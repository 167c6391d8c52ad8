"""Our exported file in rtmlib, unchanged: the same keypoints as our own crop, ONNX Runtime and decode give.

    python benchmarks/rtmlib_parity.py --with-peer [--converted] [--quick]

With `--converted` our side runs the file as others would have written it, without a card, after
`rtmpose convert`.

rtmlib lives in an environment of its own, `.peers/rtmlib`, which `--with-peer` sets up. It does not convert
BGR to RGB, so it is fed RGB. Photographs of ../shared/realdata/coco where present, rendered mannequins
elsewhere; `models/rtmpose.onnx` where present, else a network with seeded random weights (parity needs no
accuracy). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import load

from rtmpose.config import Architecture, setup_environment
from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.export import export_onnx
from rtmpose.deploy.machine import machine
from rtmpose.deploy.runtimes.base import Infer, ModelFiles
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.runtimes.session import open_session
from rtmpose.descriptors import load_dataset, load_skeleton
from rtmpose.evaluation.evaluator import raw_images
from rtmpose.files import UserError
from rtmpose.machine import cpu_line
from rtmpose.released.adopt import adopt
from rtmpose.topdown import ThroughArrays, TopDown

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / ".peers" / "rtmlib"
PEER_PACKAGES = ["numpy", "tqdm", "onnxruntime==1.31.1", "opencv-contrib-python-headless"]
EQUAL = 0.01  # px in the image

# Runs in the peer's environment: one call of rtmlib's own class per photograph, with all its boxes.
PEER_PROGRAM = """
import json, sys
import numpy as np
from rtmlib import RTMPose
folder, onnx, width, height = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
model = RTMPose(onnx, model_input_size=(width, height), backend="onnxruntime", device="cpu")
inputs = np.load(folder + "/inputs.npz")
found = {}
for i in range(int(inputs["count"])):
    found[f"points{i}"], found[f"scores{i}"] = model(inputs[f"image{i}"], inputs[f"boxes{i}"].tolist())
np.savez(folder + "/peer.npz", **found)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--with-peer", action="store_true", help="set up rtmlib in .peers/ (once) and compare with it"
    )
    parser.add_argument("--quick", action="store_true", help="few images")
    parser.add_argument(
        "--converted", action="store_true", help="take the card away, and convert the file for our side"
    )
    options = parser.parse_args()
    setup_environment()
    print(f"machine: {cpu_line()}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx = exported(folder)
        if options.converted:
            onnx = converted(onnx, folder)
        card = read_card(onnx)
        samples = photographs(folder, 4 if options.quick else 40)
        infer = open_session("onnxruntime", ModelFiles(onnx))
        ours = [keypoints(infer, image, boxes, card) for image, boxes in samples]
        theirs = run_peer(folder, onnx, card.input_size, samples) if options.with_peer else None
    report(ours, theirs)


def exported(folder: Path) -> Path:
    """The trained model's file, else one with seeded random weights, large enough for decided maxima."""
    trained = ROOT / "models" / "rtmpose.onnx"
    if trained.exists():
        print(f"model: {trained.relative_to(ROOT)}")
        return trained
    print(
        "model: there is no models/rtmpose.onnx; a t network with seeded random weights stands in, for "
        "parity only"
    )
    torch.manual_seed(0)
    card = ModelCard.of(Architecture(size="t"), (192, 256), "coco17")
    model = card.network()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 / math.sqrt(parameter[0].numel()))
    return export_onnx(model, card.input_size, folder / "random.onnx", card=card)


def converted(source: Path, folder: Path) -> Path:
    """The file without its card, with the one that a file of others gets."""
    model = load(str(source))
    del model.metadata_props[:]
    bare = folder / "bare.onnx"
    bare.write_bytes(model.SerializeToString())
    adopt(bare, folder / "converted.onnx", read_card(source).skeleton)
    return folder / "converted.onnx"


def photographs(folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Up to `count` images uint8 RGB with their persons' boxes (n, 4) xywh px."""
    root = ROOT.parent / "shared" / "realdata" / "coco"
    if not root.exists():
        root = folder / "mannequins"
        render_dataset(root, "coco17", level="easy", images={"train": 0, "val": count}, seed=7)
    print("images: photographs of COCO" if root.name == "coco" else "images: rendered mannequins")
    found = []
    for sample in raw_images(load_dataset("coco17"), root, "val"):
        boxes = [a["bbox"] for a in sample.annotations if a.get("num_keypoints") and min(a["bbox"][2:]) > 0]
        if boxes:
            found.append((sample.image, np.array(boxes, np.float64)))
        if len(found) == count:
            break
    return found


@dataclass(frozen=True)
class Ours:
    """What our way gives for one image: keypoints (n, K, 2) image px, and what they were decoded from."""

    points: np.ndarray
    simcc: tuple[np.ndarray, ...]
    center: np.ndarray
    scale: np.ndarray
    size: tuple[int, int]

    def undecided(self, theirs: np.ndarray) -> np.ndarray:
        """(n, K): by how much of its range the SimCC value at the peer's bin is below our maximum, the worse
        axis.
        """
        inputs = (theirs - (self.center - self.scale / 2)[:, None]) / self.scale[:, None] * self.size
        bins = np.rint(inputs * 2).astype(int)  # (n, K, 2)
        gaps = []
        for axis, values in enumerate(self.simcc):
            chosen = np.take_along_axis(values, bins[..., axis, None].clip(0, values.shape[-1] - 1), -1)[
                ..., 0
            ]
            gaps.append((values.max(-1) - chosen) / np.ptp(values, -1))
        return np.maximum(*gaps)


def keypoints(infer: Infer, image: np.ndarray, boxes: np.ndarray, card: ModelCard) -> Ours:
    """Our way: crop, normalise, ONNX Runtime, decode."""
    seen: list[tuple[np.ndarray, ...]] = []

    def remembered(images: np.ndarray) -> tuple[np.ndarray, ...]:
        seen.append(infer(images))
        return seen[-1]

    skeleton = load_skeleton(card.skeleton)
    way = TopDown(ThroughArrays(remembered), card.codec(), skeleton, mean=card.mean, std=card.std)
    crops = [way.crop(image, box) for box in boxes]
    points, scores = way.points(crops)
    assert (scores > 0).any(), "no keypoint has a positive score: equal keypoints would show nothing"
    center, scale = (np.stack([getattr(crop, name) for crop in crops]) for name in ("center", "scale"))
    return Ours(points, seen[0], center, scale, card.input_size)


def run_peer(
    folder: Path, onnx: Path, size: tuple[int, int], samples: list[tuple[np.ndarray, np.ndarray]]
) -> list[np.ndarray]:
    """rtmlib's keypoints of the same images and boxes, from its own process and environment."""
    python = peer_python()
    arrays: dict[str, Any] = {"count": len(samples)}
    for i, (image, boxes) in enumerate(samples):
        arrays[f"image{i}"] = image  # RGB: rtmlib passes the channels on as they are
        arrays[f"boxes{i}"] = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    np.savez(folder / "inputs.npz", **arrays)
    command = [str(python), "-c", PEER_PROGRAM, str(folder), str(onnx), str(size[0]), str(size[1])]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with np.load(folder / "peer.npz") as peer:
        return [peer[f"points{i}"] for i in range(len(samples))]


def peer_python() -> Path:
    """The interpreter of `.peers/rtmlib`, set up on first use; a set-up cut short is begun again."""
    python, finished = PEER / "bin" / "python", PEER / "finished"
    if not finished.exists():
        print(f"setting up {PEER.relative_to(ROOT)}", flush=True)
        venv.create(PEER, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # rtmlib asks for two OpenCV packages with windows, which need a desktop's libraries: one without
        # does.
        for packages in (["rtmlib==0.0.16", "--no-deps"], PEER_PACKAGES):
            done = subprocess.run([*pip, *packages], capture_output=True, text=True, check=False)
            if done.returncode:
                raise UserError(f"{PEER}: pip could not install {' '.join(packages)}: {done.stderr.strip()}")
        finished.touch()
    return python


def report(ours: list[Ours], theirs: list[np.ndarray] | None) -> None:
    """The figures as text, then as one JSON line."""
    count = sum(one.points.shape[0] * one.points.shape[1] for one in ours)
    line: dict[str, Any] = {"name": "rtmlib_parity", "ours": count, "peer": None, "ratio": None}
    print(f"ours: {len(ours)} images, {sum(len(one.points) for one in ours)} persons, {count} keypoints")
    if theirs is not None:
        pairs = list(zip(ours, theirs, strict=True))
        distance = np.concatenate([np.linalg.norm(one.points - peer, axis=-1).ravel() for one, peer in pairs])
        gap = np.concatenate([one.undecided(peer).ravel() for one, peer in pairs])
        equal = int((distance <= EQUAL).sum())
        line |= {
            "peer": equal,
            "ratio": round(equal / count, 5),
            "max_diff_px": round(float(distance.max()), 3),
        }
        print(
            f"rtmlib: {equal} of {count} keypoints within {EQUAL} px of ours, largest difference "
            f"{distance.max():.3f} px"
        )
        for px, share in zip(distance[distance > EQUAL], gap[distance > EQUAL], strict=True):
            print(
                f"  differs by {px:.3f} px: rtmlib's bin is within {share:.1e} of our maximum (share of the "
                "range)"
            )
    else:
        print("rtmlib: not run; --with-peer sets it up and compares")
    print(json.dumps(line | {"unit": f"keypoints within {EQUAL} px", "machine": machine()}))


if __name__ == "__main__":
    main()
