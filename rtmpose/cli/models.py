"""`rtmpose weights` and `rtmpose export`: from checkpoints to files that run elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rtmpose.cli.options import InputOption, input_pair

commands = typer.Typer()

SizeOption = Annotated[str, typer.Option("--size", help="Model size: t, s, m, l or x.")]
SkeletonOption = Annotated[
    str, typer.Option("--skeleton", help="A data set in datasets/ whose points the model has.")
]


@commands.command()
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


@commands.command()
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
    from rtmpose.deploy.card import ModelCard
    from rtmpose.deploy.export import export_onnx, parity
    from rtmpose.deploy.runtimes.pytorch import build
    from rtmpose.deploy.samples import noise
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
    typer.echo(
        json.dumps({"file": str(out)} | parity(model, out, card.input_size, noise(card.input_size, 8)))
    )
