"""What is done with an exported model: its speed here, int8, its operators, and other runtimes' formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rtmpose.files import UserError, write_atomic

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


@commands.command()
def operators(
    model: Annotated[Path, typer.Argument(help="An ONNX file.")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="A consumer of ONNX files: pplnn, tensorrt, rknn or mnn; all of them without it."),
    ] = None,
) -> None:
    """Which operators an ONNX file is made of, and which of them its consumers do not document."""
    from rtmpose.deploy.operators import report

    typer.echo(report(model, runtime or ()))


@commands.command("convert-runtime")
def convert_runtime(
    model: Annotated[Path, typer.Argument(help="An ONNX file that `rtmpose export` or the workflow wrote.")],
    runtime: Annotated[str, typer.Option(help="ncnn, mnn, litert, executorch, rknn or coreml.")],
    precision: Annotated[str, typer.Option(help="fp32 or fp16, as the runtime has it.")] = "fp32",
    weights: Annotated[Path | None, typer.Option(help="The PyTorch weights it was exported from.")] = None,
) -> None:
    """Write a model in a runtime's own format beside the ONNX file."""
    from rtmpose.deploy.runtimes.base import ModelFiles
    from rtmpose.deploy.runtimes.session import convert_model

    for path in convert_model(runtime, ModelFiles(model, weights), precision):
        typer.echo(path)


@commands.command("setup-runtime")
def setup_runtime(
    name: Annotated[str, typer.Argument(help="litert, executorch or rknn.")],
) -> None:
    """Install a runtime that pins other packages into an environment of its own, `.runtimes/NAME`."""
    from rtmpose.deploy.environments import set_up

    typer.echo(set_up(name))


@commands.command()
def quantize(
    model: Annotated[Path, typer.Argument(help="An ONNX file that `rtmpose export` or the workflow wrote.")],
    calibration: Annotated[
        Path, typer.Option(help="A folder of training or evaluation shards that look like your data.")
    ],
    evaluate: Annotated[
        Path | None, typer.Option(help="A folder of evaluation shards: AP beside fp32 decides what passes.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="The PyTorch weights it was exported from.")] = None,
    crops: Annotated[int, typer.Option(min=32, help="Persons to calibrate on, at most.")] = 128,
    openvino: Annotated[bool, typer.Option(help="Write a file for OpenVINO, too (needs NNCF).")] = True,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="executorch (.int8.pte) or litert (.int8.tflite), set up by `setup-runtime`; or tensorrt "
            "(.int8.symmetric.onnx)."
        ),
    ] = None,
) -> None:
    """Write int8 files beside the model, for ONNX Runtime (.int8.onnx) and OpenVINO (.int8.xml), and say what
    they cost in AP. Every attempt is recorded in NAME.quantize.json.
    """
    from rtmpose.config import EvaluateParams
    from rtmpose.deploy.quantize import calibration as crops_of
    from rtmpose.deploy.quantize import run
    from rtmpose.deploy.quantize.apart import APART
    from rtmpose.deploy.quantize.gate import Judge
    from rtmpose.deploy.runtimes.base import ModelFiles
    from rtmpose.deploy.runtimes.onnxruntime import read_card

    if unknown := set(also or ()) - {*APART, "tensorrt"}:
        raise UserError(f"--also {min(unknown)}: give {', '.join(APART)} or tensorrt")
    card, files = read_card(model), ModelFiles(model, weights)
    probe = max(crops // 2, 1)
    found = crops_of.from_folder(calibration, card, crops + probe)
    crops_of.refuse_unlike(
        found, card, crops_of.evaluation_crops(evaluate, card, crops) if evaluate else None
    )
    used, others = found.shared_out(crops, probe)
    reference = None
    if evaluate is not None:
        reference = Judge(card, {evaluate.name: evaluate}, EvaluateParams()).reference(run.network_of(files))
    trial = run.Trial(files, card, reference, tell=typer.echo)
    attempts, sensitivity = run.quantize_for_onnxruntime(trial, used, others.inputs(card))
    kept = sensitivity.sensitive()
    if openvino:
        attempts += run.quantize_for_openvino(trial, used, kept)
    for runtime in APART:
        if runtime in (also or ()):
            attempts += run.quantize_for_apart(trial, used, runtime, kept)
    if "tensorrt" in (also or ()):
        attempts += run.quantize_for_tensorrt(trial, used, [("tensorrt", "int8", "gpu")], kept)
    record = model.with_suffix(".quantize.json")
    write_atomic(record, json.dumps(run.report(trial, used, attempts, sensitivity), indent=1) + "\n")
    if reference is None:
        typer.echo("AP was not measured: give --evaluate to know what int8 costs")
    elif all(attempt.refused for attempt in attempts):
        raise UserError(f"{model}: no int8 file of it passes; {record} has each reason. Use the float file")
