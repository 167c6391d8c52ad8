"""`rtmpose evaluate-pipeline` and `rtmpose film`: a whole pipeline judged, and films with known truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtmpose.cli.options import input_pair
from rtmpose.files import UserError, write_atomic

if TYPE_CHECKING:
    from rtmpose.judging.calibrated import Reliability
    from rtmpose.judging.film import FilmRow
    from rtmpose.judging.poses import Row

commands = typer.Typer()


@commands.command("evaluate-pipeline")
def evaluate_pipeline(
    model: Annotated[str, typer.Argument(help="A pose model: an ONNX file, or as `predict` has it.")],
    detector: Annotated[
        str | None, typer.Option(help="A person detector's ONNX file; without it each picture is one person.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A folder of COCO's layout: its val split.")] = None,
    film: Annotated[
        list[Path] | None, typer.Option(help="A film that `rtmpose film` wrote; repeatable.")
    ] = None,
    every: Annotated[
        list[int] | None, typer.Option(help="Frames from one detection to the next; repeatable (1 and 5).")
    ] = None,
    movenet: Annotated[Path | None, typer.Option(help="MoveNet's single-pose file, ONNX or TFLite.")] = None,
    blazepose: Annotated[Path | None, typer.Option(help="BlazePose's landmark file, ONNX or TFLite.")] = None,
    tinypose: Annotated[Path | None, typer.Option(help="TinyPose's ONNX file.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many photographs.", min=1)] = None,
    threads: Annotated[int, typer.Option(help="CPU threads of each model.", min=1)] = 1,
    precision: Annotated[
        str | None,
        typer.Option(help="Of models:/…: fp32, fp16 or int8 (default: what was picked for this machine)."),
    ] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="Write the model with a calibration fitted on --data to this file.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the figures to this JSON file, and a reliability diagram beside it (.png)."),
    ] = None,
) -> None:
    """Judge detector and pose model together: AP with 95 % intervals on photographs, on those of one person
    beside other models, and on films of mannequins.
    """
    from rtmpose.inference.pipeline import PosePipeline
    from rtmpose.judging.calibrated import write_calibrated
    from rtmpose.judging.film import film_table, judge_film
    from rtmpose.judging.poses import table
    from rtmpose.judging.run import Others, judge_photographs

    _refuse_unfit(data, film or [], calibrate, every or [])
    pipeline = PosePipeline.load(model, detector, threads=threads, precision=precision)
    rows: list[Row] = []
    films: list[FilmRow] = []
    confidence = None
    if data is not None:
        others = Others(movenet, blazepose, tinypose)
        rows, confidence = judge_photographs(pipeline, data, others, limit=limit, threads=threads)
    for folder in film or []:
        films += judge_film(pipeline, folder, every or [1, 5])
    typer.echo(table([*rows, *(one.row for one in films)]))
    if films:
        typer.echo("\n" + film_table(films))
    if confidence is not None:
        typer.echo("\n" + confidence.line())
    if confidence is not None and calibrate is not None:
        typer.echo(f"{write_calibrated(pipeline, confidence, calibrate)}: the model with that calibration")
    if out is not None:
        _write(out, rows, films, confidence)


def _refuse_unfit(data: Path | None, films: list[Path], calibrate: Path | None, every: list[int]) -> None:
    """UserError for options that do not go together."""
    if data is None and not films:
        raise UserError("evaluate-pipeline: nothing to judge on; give --data, --film, or both")
    if calibrate is not None and data is None:
        raise UserError("--calibrate: is fitted on photographs; give --data")
    if any(count < 1 for count in every):
        raise UserError("--every: give numbers of 1 or more")


def _write(out: Path, rows: list[Row], films: list[FilmRow], confidence: Reliability | None) -> None:
    """The figures as JSON, and where points were judged their reliability as a picture beside it."""
    figures = {
        "rows": [*(row.as_json() for row in rows), *(one.as_json() for one in films)],
        "confidence": None if confidence is None else confidence.as_json(),
    }
    write_atomic(out, json.dumps(figures, indent=1, allow_nan=False))
    if confidence is not None and confidence.points:
        write_atomic(out.with_suffix(".png"), confidence.picture())


@commands.command()
def film(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    people: Annotated[int, typer.Option(help="How many people take part.")] = 8,
    seconds: Annotated[float, typer.Option(help="Its length.")] = 10.0,
    fps: Annotated[float, typer.Option(help="Frames a second.")] = 30.0,
    size: Annotated[str, typer.Option(help="Width x height in pixels, both even.")] = "960x540",
    seed: Annotated[int, typer.Option(help="The same seed gives the same film.")] = 0,
    level: Annotated[str, typer.Option(help="easy or hard: clothes and background.")] = "easy",
) -> None:
    """Draw a film of mannequins who walk, cross and stand still: film.mp4, its truth as COCO annotations with
    track ids (film.json), and as MOT Challenge's text (gt/gt.txt).
    """
    from rtmpose.data.mannequins.film import FilmOptions
    from rtmpose.data.mannequins.film_files import write_film

    width, height = input_pair(size)
    typer.echo(
        json.dumps(write_film(folder, FilmOptions(people, seconds, fps, (width, height), seed, level)))
    )
