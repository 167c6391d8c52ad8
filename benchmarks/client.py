"""A program that others wrote runs on our exported file: Sports2D, which measures movement from videos.

`python benchmarks/client.py MODEL.onnx [--detector ONNX] [--video VIDEO] [--start S] [--seconds S] [--keep
FOLDER]`

Sports2D (its own environment, `.peers/sports2d`) finds people and poses by rtmlib, and takes the files from
its `mode` setting: here the plain ONNX file that `rtmpose export` writes (17 points of COCO) and a person
detector of RTMDet's form. From the poses it writes coordinates (.trc) and joint angles (.mot), and the video
with skeletons. Printed: what it wrote, how many people and frames, and how much of it is filled. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from peers.environment import peer_python

from rtmpose.files import UserError

SPORTS2D_STEPS = (("sports2d==0.8.34",),)
SHARED = Path(__file__).resolve().parents[2] / "shared" / "realdata"
RUN = "import json, sys; from Sports2D import Sports2D; Sports2D.process(json.load(open(sys.argv[1])))"


def settings(arguments: argparse.Namespace, results: Path) -> dict[str, Any]:
    """Sports2D's settings that differ from its defaults: our files, nothing that wants a screen or a net."""
    mode = {
        "det_class": "RTMDet",
        "det_model": str(arguments.detector.resolve()),
        "det_input_size": [320, 320],
        "pose_class": "RTMPose",
        "pose_model": str(arguments.model.resolve()),
        "pose_input_size": list(input_size(arguments.model)),
    }
    return {
        "base": {
            "video_input": arguments.video.name,
            "video_dir": str(arguments.video.parent.resolve()),
            "time_range": [arguments.start, arguments.start + arguments.seconds],
            "result_dir": str(results),
            "person_ordering_method": "largest_size",
            "show_realtime_results": False,
            "save_img": False,
        },
        "pose": {
            "pose_model": "Body",
            "mode": str(mode),
            "backend": "onnxruntime",
            "device": "cpu",
            # its own 0.3 and 0.5 are meant for scores of fully trained models
            "keypoint_likelihood_threshold": arguments.likelihood,
            "average_likelihood_threshold": arguments.likelihood,
        },
        "px_to_meters_conversion": {"make_c3d": False},
        "post-processing": {"show_graphs": False, "save_graphs": False},
    }


def input_size(model: Path) -> tuple[int, int]:
    """Width and height px that an ONNX file wants; UserError where it says none."""
    shape = onnx.load(str(model), load_external_data=False).graph.input[0].type.tensor_type.shape.dim
    if len(shape) != 4 or not shape[2].dim_value or not shape[3].dim_value:
        raise UserError(f"{model}: its input has no fixed height and width; give the plain exported file")
    return shape[3].dim_value, shape[2].dim_value


def table(path: Path) -> tuple[list[str], np.ndarray]:
    """Names of the columns and numbers (rows, columns) of a .trc or .mot file; an empty cell is NaN."""
    lines = path.read_text().splitlines()
    if path.suffix == ".trc":
        names, body = [name for name in lines[3].split("\t") if name.strip()][2:], lines[5:]
    else:
        start = next(index for index, line in enumerate(lines) if line.strip() == "endheader")
        names, body = lines[start + 1].split("\t")[1:], lines[start + 2 :]
    rows = [[float(cell) if cell.strip() else np.nan for cell in line.split("\t")] for line in body if line]
    width = max(map(len, rows))
    return names, np.array([row + [np.nan] * (width - len(row)) for row in rows])


def described(path: Path) -> dict[str, Any]:
    """What one file of results holds."""
    if path.suffix in (".trc", ".mot"):
        names, values = table(path)
        numbers = values[:, 2:] if path.suffix == ".trc" else values[:, 1:]
        return {
            "rows": len(values),
            "columns": len(names),
            "filled": round(float(np.isfinite(numbers).mean()), 4),
            "least": round(float(np.nanmin(numbers)), 2),
            "greatest": round(float(np.nanmax(numbers)), 2),
        }
    video = cv2.VideoCapture(str(path))
    size = [int(video.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
    return {"frames": int(video.get(cv2.CAP_PROP_FRAME_COUNT)), "size": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--detector", type=Path, default=SHARED / "detectors" / "rtmdet-nano_320_person.onnx")
    parser.add_argument("--video", type=Path, default=SHARED / "video" / "sports2d_demo.mp4")
    parser.add_argument(
        "--start", type=float, default=2.3, help="s; from there on somebody is seen as a whole"
    )
    parser.add_argument("--seconds", type=float, default=1.8)
    parser.add_argument(
        "--likelihood", type=float, default=0.1, help="score from which points and people count"
    )
    parser.add_argument("--keep", type=Path, help="where its results stay (default: nowhere)")
    arguments = parser.parse_args()
    python = peer_python("sports2d", SPORTS2D_STEPS)
    with tempfile.TemporaryDirectory() as scratch:
        results = (arguments.keep or Path(scratch) / "results").resolve()
        results.mkdir(parents=True, exist_ok=True)
        asked = Path(scratch) / "settings.json"
        asked.write_text(json.dumps(settings(arguments, results)))
        done = subprocess.run(
            [str(python), "-c", RUN, str(asked)], cwd=scratch, capture_output=True, text=True, check=False
        )
        print(done.stdout[-4000:], done.stderr[-4000:], file=sys.stderr)
        if done.returncode:
            raise UserError(f"Sports2D ended with status {done.returncode}; its last words are above")
        kinds = (".trc", ".mot", ".mp4", ".avi")
        found = {path.name: described(path) for path in sorted(results.rglob("*")) if path.suffix in kinds}
    for name, what in found.items():
        print(f"{name}: {', '.join(f'{key} {value}' for key, value in what.items())}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
