"""`rtmpose detector train|export|eval`: the detector that finds people's boxes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rtmpose.cli.options import input_pair
from rtmpose.files import UserError

commands = typer.Typer(help="Train, export and judge a detector of people.", no_args_is_help=True)

AnnotationsOption = Annotated[Path, typer.Option(help="A COCO annotation file with boxes of people.")]
ImagesOption = Annotated[Path, typer.Option(help="The folder of its images.")]
InputOption = Annotated[str, typer.Option("--input", help="Input width x height in pixels.")]


@commands.command("eval")
def evaluate(
    detector: Annotated[Path, typer.Argument(help="An ONNX file of RTMDet's or YOLOX's form.")],
    annotations: AnnotationsOption,
    images: ImagesOption,
    runtime: Annotated[str, typer.Option(help="onnxruntime or openvino.")] = "onnxruntime",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Box AP of a detector with its 95 % interval, and the time an image takes; prints JSON."""
    from rtmpose.detection.detector import open_detector
    from rtmpose.detection.evaluate import LEAST_SCORE, judge, read_people

    photographs = read_people(annotations, images)
    opened = open_detector(detector, threshold=LEAST_SCORE, runtime=runtime, threads=threads)
    typer.echo(json.dumps(asdict(judge(opened, photographs))))


@commands.command()
def export(
    weights: Annotated[Path, typer.Argument(help="A checkpoint of RTMDet: ours, or an official .pth.")],
    output: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
    size: Annotated[
        str | None, typer.Option(help="nano, tiny, s, m, l or x (default: the weights').")
    ] = None,
    input_size: InputOption = "320x320",
) -> None:
    """Write a detector as an ONNX file for every runtime: boxes and scores, suppression outside; say whose
    data is in it.
    """
    from rtmpose.detection.conversion import export_detector
    from rtmpose.detection.network import load_rtmdet
    from rtmpose.provenance.sources import lines
    from rtmpose.released.checkpoint import sources_or_itself

    network, data = load_rtmdet(weights, size), sources_or_itself(weights)
    export_detector(network, output, input_pair(input_size), data)
    typer.echo(f"{output}: RTMDet-{network.size}, {input_size}, {network.classes} class(es)")
    typer.echo("\n".join(lines(data)))


@commands.command()
def train(
    annotations: AnnotationsOption,
    images: ImagesOption,
    weights: Annotated[Path, typer.Option(help="Where the best weights are written.")],
    tune_annotations: Annotated[Path, typer.Option(help="As --annotations, of the set that chooses.")],
    tune_images: Annotated[Path, typer.Option(help="The folder of its images.")],
    init: Annotated[
        Path | None, typer.Option(help="A checkpoint, or an ONNX file of RTMDet-nano, to start from.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Without --init: nano, tiny, s, m, l or x (default: nano).")
    ] = None,
    input_size: InputOption = "320x320",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Images in an update.")] = 16,
    lr: Annotated[float | None, typer.Option(help="Learning rate (default: 0.004 x batch / 256).")] = None,
    weak_epochs: Annotated[
        int, typer.Option(min=0, help="How many epochs at the end are without scaling and colours.")
    ] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    licence: Annotated[str, typer.Option(help="The terms of the photographs; the weights note them.")] = (
        "not known"
    ),
    storage: Annotated[Path, typer.Option(help="The folder of runs, which go on where they ended.")] = Path(
        "runs"
    ),
) -> None:
    """Train a detector on boxes of people; a run that was killed goes on when it is started again."""
    from rtmpose.detection.evaluate import read_people
    from rtmpose.detection.train import Training, train_detector

    if init is not None and size is not None:
        raise UserError(f"--size {size}: the network is that of --init {init}; leave --size out")
    training = Training(
        input_pair(input_size), epochs, batch_size=batch, lr=lr, weak_epochs=weak_epochs, threads=threads
    )
    people, tuning = read_people(annotations, images), read_people(tune_annotations, tune_images)

    def report(line: dict[str, Any]) -> None:
        shown = {key: line[key] for key in ("step", "loss", "lr", "AP", "AP50") if key in line}
        typer.echo(json.dumps(shown))

    best = train_detector(
        training, init or size or "nano", people, tuning, root=storage, weights=weights, report=report,
        licence=licence,
    )  # fmt: skip
    typer.echo(f"{weights}: AP {best.best_ap:.3f} after epoch {best.best_epoch}")
