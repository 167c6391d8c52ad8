"""`rtmpose export`: from checkpoints to files that run elsewhere.

The shapes of a checkpoint's weights say nearly all about its network. Options say the rest, then the file's
own note (`rtmpose convert` writes it) or its name, if it is a released one, then `params.yaml`. An option
counts more than the shapes, so that a file can be tried in another network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtmpose.cli.options import input_pair
from rtmpose.config import Architecture, Params, load_params
from rtmpose.files import UserError

if TYPE_CHECKING:
    from rtmpose.models import PoseNet
    from rtmpose.models.shapes import Shapes

commands = typer.Typer()

PARAMS = Path("params.yaml")
DEFAULT_SKELETON, DEFAULT_INPUT = "coco17", (192, 256)

FileArgument = Annotated[Path, typer.Argument(help="A checkpoint: ours, or an official MMPose .pth.")]
SizeOption = Annotated[
    str | None, typer.Option("--size", help="Model size: t, s, m, l or x (default: the weights').")
]
HeadOption = Annotated[
    str | None,
    typer.Option("--head", help="simcc, simcc_plain, simcc_deconv or heatmap (default: the weights')."),
]
InputOption = Annotated[
    str | None,
    typer.Option("--input", help="Input width x height in pixels (default: the weights', 192x256)."),
]
SkeletonOption = Annotated[
    str | None,
    typer.Option("--skeleton", help="A data set in datasets/ (or your own .yaml) whose points it has."),
]
ParamsOption = Annotated[
    Path | None,
    typer.Option("--params", help="The parameters it was trained with (default: ./params.yaml if it fits)."),
]


@dataclass(frozen=True)
class Asked:
    """The network that a checkpoint is to be loaded into."""

    architecture: Architecture
    input_size: tuple[int, int]
    skeleton: str

    def network(self) -> PoseNet:
        """With fresh weights."""
        from rtmpose.descriptors import load_skeleton
        from rtmpose.models import build_model

        points = load_skeleton(self.skeleton).num_keypoints
        return build_model(self.architecture, points, self.input_size)


@commands.command()
def export(
    file: FileArgument,
    out: Annotated[Path, typer.Argument(help="The ONNX file to write; NAME.e2e.onnx comes beside it.")],
    size: SizeOption = None,
    input_size: InputOption = None,
    skeleton: SkeletonOption = None,
    head: HeadOption = None,
    params: ParamsOption = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Write NAME.fp16.onnx, too.")] = False,
) -> None:
    """Export weights to ONNX, plain and end-to-end; print the plain file's parity with PyTorch.

    The file takes `input` and gives `simcc_x` and `simcc_y` (`heatmaps`, where the network makes those), for
    any number of images at once. Its end-to-end form beside it, `NAME.e2e.onnx`, takes `crops` as they are
    (uint8, RGB) and gives `keypoints` and `scores`. With `--fp16` both are written in float16 besides.
    """
    from rtmpose.deploy.card import ModelCard
    from rtmpose.deploy.e2e import export_e2e
    from rtmpose.deploy.export import export_onnx, parity
    from rtmpose.deploy.runtimes.base import ModelFiles
    from rtmpose.deploy.samples import noise
    from rtmpose.models import load_exactly
    from rtmpose.released.checkpoint import sources_or_itself

    chosen = asked(file, size, head, input_size, skeleton, params)
    card = ModelCard.of(chosen.architecture, chosen.input_size, chosen.skeleton)
    card = card.with_more(data=[source.model_dump() for source in sources_or_itself(file)])
    model = card.network()
    load_exactly(
        model, file, "give --size, --head, --input and --skeleton as it was trained, or none of them"
    )
    export_onnx(model, card.input_size, out, card=card)
    figures = parity(model, out, card.codec(), noise(card.input_size, 8))
    files = {"file": str(out), "end_to_end": str(export_e2e(out))}
    if fp16:
        half = ModelFiles(out).form("fp16")
        crops = noise(card.input_size, 8)
        export_onnx(model, card.input_size, half, card=card, crops=crops, precision="fp16", exported=out)
        files |= {"fp16": str(half), "fp16_end_to_end": str(export_e2e(half))}
    typer.echo(json.dumps(files | {"skeleton": card.skeleton} | figures))


def asked(
    file: Path,
    size: str | None,
    head: str | None,
    input_size: str | None,
    skeleton: str | None,
    params: Path | None,
) -> Asked:
    """The network of a checkpoint: as its weights' shapes and its own note show it, but for what the options
    say.
    """
    given_input = input_pair(input_size) if input_size is not None else None
    written = load_params(params) if params is not None else _params_here()

    from rtmpose.models import check_names
    from rtmpose.models.shapes import shapes_of
    from rtmpose.released.checkpoint import read_with_note

    check_names(size or "t", head or "simcc")
    weights, note = read_with_note(file)
    shapes = shapes_of(weights)
    changes = {name: value for name, value in (("size", size), ("head", head)) if value is not None}
    told = note.skeleton if params is None else None
    chosen = skeleton or told or _skeleton(file, shapes, written, params)
    fallback = note.input_size or (written.input_size if written is not None else DEFAULT_INPUT)
    return Asked(
        shapes.architecture.model_copy(update=changes), given_input or shapes.input_size or fallback, chosen
    )


def _params_here() -> Params | None:
    """The folder's params.yaml. It only fills gaps, so one that is not ours, or broken, is left aside."""
    if not PARAMS.exists():
        return None
    try:
        return load_params(PARAMS)
    except UserError as error:
        typer.echo(f"note: not used: {error}", err=True)
        return None


def _skeleton(file: Path, shapes: Shapes, written: Params | None, params: Path | None) -> str:
    """The data set whose points the weights have: that of the parameters, else COCO's, else the only one with
    as many points.
    """
    from rtmpose.descriptors import load_skeleton, shipped_datasets

    points = shapes.num_keypoints
    if written is not None:
        count = load_skeleton(written.skeleton).num_keypoints
        if points in (count, None):
            return written.skeleton
        if params is not None:
            theirs = f"{params}: skeleton {written.skeleton} has {count}"
            raise UserError(f"{file}: has {points} points, {theirs}; give --skeleton")
    skeletons = {load_skeleton(name).name for name in shipped_datasets()}
    fitting = sorted(name for name in skeletons if points in (load_skeleton(name).num_keypoints, None))
    if DEFAULT_SKELETON in fitting:
        return DEFAULT_SKELETON
    if len(fitting) == 1:
        return fitting[0]
    which = f"one of {', '.join(fitting)}" if fitting else "your own descriptor (a .yaml file)"
    raise UserError(f"{file}: has {points} points; give --skeleton: {which}")
