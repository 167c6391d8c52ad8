"""`rtmpose benchmark`: how fast an exported model is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer()


@commands.command()
def benchmark(
    model: Annotated[Path, typer.Argument(help="An ONNX file that `rtmpose export` or the workflow wrote.")],
    target: Annotated[
        str, typer.Option(help="A deploy target: a name in deploy_targets/ or a YAML file.")
    ] = "cpu-x86",
    weights: Annotated[Path | None, typer.Option(help="The PyTorch weights it was exported from.")] = None,
) -> None:
    """Measure latency, throughput, memory and start-up of every runtime, precision, batch size and thread
    count of a deploy target.
    """
    from rtmpose.deploy.benchmark import run
    from rtmpose.deploy.report import table
    from rtmpose.deploy.runtimes.base import ModelFiles
    from rtmpose.deploy.runtimes.onnxruntime import read_card
    from rtmpose.deploy.samples import noise
    from rtmpose.deploy.targets import load_target

    images = noise(read_card(model).input_size, 8)
    typer.echo(table(run(load_target(target), ModelFiles(model, weights), images)))
