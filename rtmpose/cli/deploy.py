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
