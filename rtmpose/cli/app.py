"""The command `rtmpose`. Everything slow is imported inside the commands, so that `--help` answers
at once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rtmpose.config import setup_environment
from rtmpose.files import UserError

app = typer.Typer(
    name="rtmpose",
    help="RTMPose: find people's keypoints in images, and move weights from training to deployment. "
    "Training itself is the workflow `make repro` (DVC stages in dvc.yaml).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

dataset_app = typer.Typer(
    help="The data sets: which there are, and what a raw folder holds.", no_args_is_help=True
)
app.add_typer(dataset_app, name="dataset")

SizeOption = Annotated[str, typer.Option("--size", help="Model size: t, s, m, l or x.")]
InputOption = Annotated[str, typer.Option("--input", help="Input width x height in pixels.")]
SkeletonOption = Annotated[
    str, typer.Option("--skeleton", help="A data set in datasets/ whose points the model has.")
]


def input_pair(text: str) -> tuple[int, int]:
    """`192x256` → (192, 256)."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise UserError(f"--input: {text!r} is not WIDTHxHEIGHT, such as 192x256")
    return int(parts[0]), int(parts[1])


@app.command()
def weights(
    file: Annotated[Path, typer.Argument(help="A checkpoint: ours, or an official MMPose .pth.")],
    size: SizeOption = "m",
    input_size: InputOption = "192x256",
    skeleton: SkeletonOption = "coco17",
    head: Annotated[str, typer.Option(help="simcc or heatmap.")] = "simcc",
    save: Annotated[
        Path | None, typer.Option(help="Write the loaded weights to this file, as a plain state dict.")
    ] = None,
) -> None:
    """Load a checkpoint safely, say what does not match the model, and optionally save it in plain form."""

    from rtmpose.descriptors import load_skeleton
    from rtmpose.models import build_pose_net, load_weights, save_tensors

    model = build_pose_net(size, head, load_skeleton(skeleton).num_keypoints, input_pair(input_size))
    mismatch = load_weights(model, file)
    typer.echo(f"{file}: {mismatch}")
    if save is not None:
        save_tensors(save, model.state_dict())
        typer.echo(f"saved {save}")


@app.command()
def export(
    file: Annotated[
        Path, typer.Argument(help="Weights: a SimCC checkpoint, ours or an official MMPose .pth.")
    ],
    out: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
    size: SizeOption = "m",
    input_size: InputOption = "192x256",
    skeleton: SkeletonOption = "coco17",
) -> None:
    """Export weights to one ONNX file (input, simcc_x, simcc_y; dynamic batch) and print its parity with
    PyTorch.
    """
    import numpy as np

    from rtmpose.deploy.card import ModelCard
    from rtmpose.deploy.export import export_onnx, parity
    from rtmpose.deploy.runtimes.pytorch import build
    from rtmpose.descriptors import load_skeleton
    from rtmpose.models import MEAN, STD
    from rtmpose.targets import SimCC

    width, height = input_pair(input_size)
    card = ModelCard.of(
        size=size, kernel=7, hidden=256, gau=True, input_size=(width, height), skeleton=skeleton,
        keypoint_names=load_skeleton(skeleton).names, mean=MEAN, std=STD, split_ratio=SimCC((width,
        height)).split_ratio,
    )  # fmt: skip
    model = build(card, file)
    export_onnx(model, card.input_size, out, card=card)
    noise = np.random.default_rng(0).standard_normal((8, 3, height, width), np.float32)
    typer.echo(json.dumps({"file": str(out)} | parity(model, out, card.input_size, noise)))


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="A photograph.")],
    model: Annotated[
        Path, typer.Option(help="An ONNX file that `rtmpose export` or the workflow wrote.")
    ] = Path("models/rtmpose.onnx"),
    box: Annotated[
        list[str] | None, typer.Option(help="A person's box x,y,w,h in pixels; repeatable.")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(help="Write the photograph with the skeletons to this PNG.")
    ] = None,
) -> None:
    """Predict the keypoints of the people in an image (without --box: of one person who fills it); prints
    JSON.
    """
    from rtmpose.inference.photo import predict_image

    boxes = [box_numbers(text) for text in box or []]
    for pose in predict_image(image, model, boxes, draw):
        typer.echo(json.dumps(pose))


def box_numbers(text: str) -> tuple[float, float, float, float]:
    """`x,y,w,h` → numbers with a positive size."""
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--box: {text!r} is not x,y,w,h in pixels, such as 120,40,200,380") from None
    if w <= 0 or h <= 0:
        raise UserError(f"--box: {text!r} has no size; give x,y,w,h with w and h above 0")
    return x, y, w, h


@app.command()
def benchmark(
    model: Annotated[Path, typer.Argument(help="An ONNX file that `rtmpose export` or the workflow wrote.")],
    target: Annotated[
        str, typer.Option(help="A deploy target: a name in deploy_targets/ or a YAML file.")
    ] = "cpu-x86",
    weights: Annotated[Path | None, typer.Option(help="The PyTorch weights it was exported from.")] = None,
) -> None:
    """Measure latency p50 and p95 of every runtime, precision, batch size and thread count of a deploy
    target.
    """
    import numpy as np

    from rtmpose.deploy.benchmark import load_target, run, table
    from rtmpose.deploy.runtimes.base import ModelFiles
    from rtmpose.deploy.runtimes.onnxruntime import read_card

    width, height = read_card(model).input_size
    noise = np.random.default_rng(0).standard_normal((8, 3, height, width), np.float32)
    typer.echo(table(run(load_target(target), ModelFiles(model, weights), noise)))


@dataset_app.command("list")
def list_datasets() -> None:
    """The data sets that come with a descriptor: name, number of points, licence."""
    from rtmpose.descriptors import load_dataset, shipped_datasets

    for name in shipped_datasets():
        found = load_dataset(name)
        typer.echo(
            f"{name:<20} {found.skeleton.num_keypoints:>4} points  "
            f"{found.licence or 'a skeleton without data'}"
        )


@dataset_app.command("check")
def check_dataset(
    name: Annotated[
        str, typer.Argument(help="A data set in datasets/, or the path of your own descriptor (.yaml).")
    ],
    raw: Annotated[Path, typer.Option(help="The folder with the raw data.")] = Path("."),
    split: Annotated[str, typer.Option(help="Which split of the descriptor.")] = "train",
    annotations: Annotated[
        str | None, typer.Option(help="Another annotation file, relative to --raw.")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Another folder of images, relative to --raw.")] = None,
    input_size: InputOption = "192x256",
    draw: Annotated[int, typer.Option(min=0, help="Draw so many persons into a contact sheet.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="The sheet's file, .jpg or .png (default: NAME_SPLIT.jpg).")
    ] = None,
) -> None:
    """Read every annotation and image of a raw folder: counts, sizes, and every problem by file and id (exit
    code 2).
    """
    from rtmpose.data.raw.check import check_split, contact_sheet, report
    from rtmpose.descriptors import load_dataset

    chosen, size = load_dataset(name), input_pair(input_size)
    if annotations is not None or images is not None:
        chosen = chosen.with_files(split, annotations, images)
    found = check_split(chosen, raw, split)
    for line in report(found, size):
        typer.echo(line)
    if draw and found.persons:
        typer.echo(f"drawn: {contact_sheet(found, draw, out or Path(f'{chosen.name}_{split}.jpg'))}")
    if found.problems:
        raise UserError(
            f"{raw}: {len(found.problems)} problems in split {split} of {chosen.name}; they are listed above"
        )


def main() -> None:
    """Entry point: a user's mistake becomes one line on stderr and exit code 2."""
    setup_environment()
    try:
        app()
    except UserError as error:
        if os.environ.get("RTMPOSE_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
