"""`rtmpose dataset …`: which data sets there are, and what a raw folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rtmpose.cli.options import InputOption, input_pair
from rtmpose.files import UserError

BARE = "a skeleton without data"

commands = typer.Typer(
    help="The data sets: which there are, and what a raw folder holds.", no_args_is_help=True
)


@commands.command("list")
def list_datasets(
    name: Annotated[
        str | None,
        typer.Argument(help="Show where to get this one, and how it lies; without it, all of them."),
    ] = None,
) -> None:
    """The data sets that come with a descriptor: name, number of points, licence; of one also its source,
    what to download, and the files that are read.
    """
    from rtmpose.descriptors import load_dataset, shipped_datasets

    if name is not None:
        typer.echo(json.dumps(_details(name), indent=2))
        return
    names = shipped_datasets()
    width = max(map(len, names))
    for each in names:
        found = load_dataset(each)
        typer.echo(f"{each:<{width}} {found.skeleton.num_keypoints:>4} points  {found.licence or BARE}")


def _details(name: str) -> dict[str, object]:
    """What a descriptor says of where its data comes from and lies."""
    from rtmpose.descriptors import load_dataset

    found = load_dataset(name)
    said = {
        "name": found.name,
        "points": found.skeleton.num_keypoints,
        "licence": found.licence or BARE,
        "source": found.source,
        "download": found.download,
        "splits": {split: one.model_dump(exclude_none=True) for split, one in found.splits.items()},
    }
    return {key: value for key, value in said.items() if value}


@commands.command("check")
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
    strict: Annotated[bool, typer.Option("--strict", help="Fail on what is implausible, too.")] = False,
) -> None:
    """Read every annotation and image of a raw folder: counts, sizes, every problem by file and id (exit
    code 2), and what is implausible (with --strict exit code 2, too).
    """
    from rtmpose.data.raw.check import check_split, report
    from rtmpose.data.raw.sheet import contact_sheet
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
    if strict and found.doubts:
        raise UserError(
            f"{raw}: {len(found.doubts)} implausible findings in split {split} of {chosen.name}; they are "
            "listed above"
        )
