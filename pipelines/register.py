"""Stage `register`: the exported model as a new version in MLflow, with its metrics, figures and lineage."""

from __future__ import annotations

import json
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import rtmpose
from pipelines import stage
from rtmpose.config import Params, load_params
from rtmpose.files import UserError, read_json, write_atomic
from rtmpose.fingerprint import lineage_tags
from rtmpose.promotion.evidence import attach
from rtmpose.promotion.gathered import gather
from rtmpose.provenance import sources as provenance
from rtmpose.tracking import models, runs

ONNX = Path("models/rtmpose.onnx")
TRAINING = Path("models/receipt.json")
MIX = Path("data/mix.json")
LOCK = Path("dvc.lock")
METRICS = Path("metrics")
RECEIPT = Path("metrics/register.json")
FIGURES = (Path("reports/predictions.png"),)
# What there is of it goes with the version.
DEPLOYED = tuple(
    ONNX.parent / name
    for name in (
        "rtmpose.onnx", "rtmpose.fp16.onnx", "rtmpose.e2e.onnx", "rtmpose.int8.onnx",
        "rtmpose.int8.e2e.onnx", "rtmpose.int8.xml", "rtmpose.int8.bin", "rtmpose.int8.pte",
        "rtmpose.int8.executorch.json", "rtmpose.int8.tflite", "rtmpose.int8.litert.json",
        "rtmpose.int8.symmetric.onnx", "rtmpose.pt",
    )
)  # fmt: skip
PROGRAM = Path(rtmpose.__file__).parent / "inference" / "served_program.py"
SERVED_BY = ("rtmpose", "onnxruntime", "onnx", "numpy", "opencv-python-headless", "torch")


def main(argv: list[str]) -> None:
    params = load_params()
    measured = gather(params.targets)  # first: what is missing is no fault of the training run
    training = read_object(TRAINING) if TRAINING.exists() else {}
    tags = lineage_tags(LOCK, MIX, str(training.get("fingerprint", "unknown")))
    tags["precision"] = str(training.get("precision", "unknown"))
    targets = measured.comparison.targets
    tags |= models.picked_tags({name: accuracy.picked for name, accuracy in targets.items()})
    tags |= provenance.tags(measured.comparison.data)
    # The training run itself, when MLflow still points where it was logged: curves and model then stand
    # together.
    run_id = runs.start_or_resume_run(f"register {params.recipe}", training.get("run_id"), tags)
    with runs.finished(run_id):
        log_evidence(run_id, params)
        receipt = models.register(
            [ONNX, *(path for path in DEPLOYED if path != ONNX and path.is_file())],
            program=PROGRAM,
            name=params.register_as.name,
            run_id=run_id,
            tags=tags,
            requirements=[requirement(package) for package in SERVED_BY],
        )
        attach(measured, name=receipt["name"], version=str(receipt["version"]), run_id=run_id)
        write_atomic(RECEIPT, json.dumps(receipt, indent=2) + "\n")
    print(
        f"register  {receipt['name']} version {receipt['version']} is '{receipt['alias']}', run {run_id}, "
        f"in {receipt['tracking_uri']}"
    )


def requirement(package: str) -> str:
    """A package as it is installed here, such as onnxruntime==1.31.1; its build for GPUs stands for it."""
    for name in (package, f"{package}-gpu"):
        with suppress(PackageNotFoundError):
            return f"{name}=={version(name)}"
    raise UserError(f"{package}: is not installed; pip install {package}")


def log_evidence(run_id: str, params: Params) -> None:
    """Parameters, every stage's metrics and the figures, into the run that the version will link to."""
    runs.log_params_flat(run_id, params.model_dump(mode="json"))
    for path in metric_files(params.targets):
        runs.log_metrics(run_id, {path.stem: read_object(path)})
        runs.log_file(run_id, path, "metrics")
    if LOCK.exists():
        runs.log_file(run_id, LOCK, "lineage")
    pictures = [METRICS / "benchmark" / f"{target}.png" for target in params.targets]
    for figure in [*FIGURES, *pictures]:
        if figure.exists():
            runs.log_file(run_id, figure, "figures")


def metric_files(targets: list[str]) -> list[Path]:
    """Every stage's metrics but this one's own receipt; benchmarks of these targets only, not what others
    left behind.
    """
    benchmarks = [METRICS / "benchmark" / f"{target}.json" for target in targets]
    return sorted(
        path for path in [*METRICS.glob("*.json"), *benchmarks] if path != RECEIPT and path.exists()
    )


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; UserError when the file is cut short or holds something else."""
    fix = "run the stage that writes it again"
    content = read_json(path, fix)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not an object; {fix}")
    return content


if __name__ == "__main__":
    stage(main)
