"""`rtmpose predict`: the keypoints of people in a photograph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from rtmpose.cli.options import box_numbers

commands = typer.Typer()


@commands.command()
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
    exif: Annotated[
        Literal["display", "stored"],
        typer.Option(
            help="Which way up, where the photograph's EXIF notes a turn: as viewers show it, or as stored."
        ),
    ] = "display",
) -> None:
    """Predict the keypoints of the people in an image (without --box: of one person who fills it); prints
    JSON.
    """
    from rtmpose.inference.photo import predict_image, turn_of

    boxes = [box_numbers(text) for text in box or []]
    for pose in predict_image(image, model, boxes, draw, exif):
        typer.echo(json.dumps(pose))
    if turn := turn_of(image):
        told = "is done: boxes and points are in the picture as viewers show it"
        if exif == "stored":
            told = "is not done: boxes and points are in the pixels as stored"
        typer.echo(f"{image}: its EXIF says {turn}, which {told} (--exif {exif})", err=True)
