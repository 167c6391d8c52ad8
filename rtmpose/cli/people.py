"""`rtmpose predict` and `rtmpose track`: the keypoints of people in pictures and videos."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rtmpose.cli.options import box_numbers
from rtmpose.files import UserError

if TYPE_CHECKING:
    from rtmpose.inference.run import Asked

commands = typer.Typer()

Model = Annotated[
    str,
    typer.Option(help="An ONNX file of `rtmpose export`, models:/NAME@ALIAS, or a released model's name."),
]
FoundBy = Annotated[
    str | None,
    typer.Option("--detector", help="An ONNX file or a released name; without it one fills a picture."),
]
Points = Annotated[
    str | None, typer.Option("--skeleton", help="The data set whose points are wanted; others are refused.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads (default: all cores).")]
Sure = Annotated[
    float, typer.Option(min=0, max=1, help="The confidence from which a point is drawn and counted.")
]
Live = Annotated[
    bool | None,
    typer.Option(
        "--live/--no-live",
        help="Whether old frames give way rather than lag (default: of streams and cameras, not of files).",
    ),
]
Every = Annotated[int, typer.Option(min=1, help="Of a video: the detector runs on each so-manieth frame.")]
Kind = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Of models:/…: fp32, fp16 or int8 in ONNX Runtime (default: what was picked for this machine).",
    ),
]
Out = Annotated[Path, typer.Option(help="A file for the people, - for stdout, a folder for openpose.")]
Form = Annotated[
    Literal["lines", "coco", "json", "csv", "openpose"] | None,
    typer.Option("--format", help="Default: coco in a file, a line for each person on stdout."),
]


@commands.command()
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT…",
            help="Pictures, folders or patterns of them, videos, a stream's URL, or a camera's number.",
        ),
    ],
    model: Model = "models/rtmpose.onnx",
    detector: FoundBy = None,
    box: Annotated[
        list[str] | None, typer.Option(help="A person's box x,y,w,h in pixels; repeatable.")
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(help="Draw the skeletons into this file (PNG, MP4, …), or folder where there are many."),
    ] = None,
    out: Out = Path("-"),
    form: Form = None,
    sure: Sure = 0.5,
    skeleton: Points = None,
    every: Every = 5,
    threads: Threads = None,
    precision: Kind = None,
    live: Live = None,
    exif: Annotated[
        Literal["display", "stored"],
        typer.Option(
            help="Which way up, where a photograph's EXIF notes a turn: as viewers show it, or as stored."
        ),
    ] = "display",
) -> None:
    """Find the people in pictures and videos, and their keypoints (without --detector and --box: of one
    person who fills the picture).
    """
    from rtmpose.inference.run import Asked
    from rtmpose.motion.tracker import TrackOptions

    if box and detector is not None:
        raise UserError("--box: people are in given boxes, or found by --detector; leave out one")
    boxes = [box_numbers(text) for text in box or []]
    asked = Asked(_form(form, out), out, draw, sure, boxes, exif, TrackOptions(every=every).at(sure), live)
    wanted = _Wanted(model, detector, skeleton, threads, precision)
    _run(inputs, asked, wanted, video=False)


@commands.command()
def track(
    video: Annotated[str, typer.Argument(help="A video, an animation, a stream's URL, a camera's number.")],
    model: Model = "models/rtmpose.onnx",
    detector: FoundBy = None,
    draw: Annotated[Path | None, typer.Option(help="Draw the skeletons into this video (MP4, …).")] = None,
    out: Out = Path("-"),
    form: Form = None,
    sure: Sure = 0.5,
    skeleton: Points = None,
    every: Every = 5,
    smooth: Annotated[bool, typer.Option(help="Steady the points over time.")] = True,
    memory: Annotated[
        float, typer.Option(help="Seconds for which people out of sight are remembered.")
    ] = 2.0,
    threads: Threads = None,
    precision: Kind = None,
    live: Live = None,
) -> None:
    """Follow the people of a video: the same person has the same identity in all frames."""
    from rtmpose.inference.run import Asked
    from rtmpose.motion.tracker import TrackOptions

    options = TrackOptions(every=every, smooth=smooth, memory=memory).at(sure)
    asked = Asked(_form(form, out), out, draw, sure, options=options, live=live)
    _run([video], asked, _Wanted(model, detector, skeleton, threads, precision), video=True)


def _form(form: str | None, out: Path) -> str:
    return form or ("lines" if out == Path("-") else "coco")


@dataclass(frozen=True)
class _Wanted:
    """The pipeline that a command was asked for."""

    model: str
    detector: str | None
    skeleton: str | None
    threads: int | None
    precision: str | None


def _run(given: list[str], asked: Asked, wanted: _Wanted, *, video: bool) -> None:
    from rtmpose.inference.inputs import inputs_of
    from rtmpose.inference.pipeline import PosePipeline
    from rtmpose.inference.run import run

    inputs = inputs_of(given, video=video)
    pipeline = PosePipeline.load(**asdict(wanted))
    done = run(pipeline, inputs, asked, _say, _bar)
    if len(inputs) > 1 or inputs[0].kind == "video":
        _say(done.line(asked.sure))
    if done.refused:
        raise UserError(f"{len(done.refused)} of {len(inputs)} inputs were left out; the others are done")


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _bar(items: Iterable[Any], total: int | None, unit: str) -> Iterable[Any]:
    """Progress on stderr, where somebody looks at it."""
    if not sys.stderr.isatty():
        return items
    from tqdm import tqdm

    return tqdm(items, total=total, unit=f" {unit}", dynamic_ncols=True, leave=False)
