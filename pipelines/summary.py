"""What `make repro` says at its end: where the model, the figures and the registered version are.

The cache cannot know whether the registered version still exists where MLflow points now; this asks, and
registers again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipelines import stage
from rtmpose.config import Record, load_params, read_record

RECEIPT, FIGURES, TRAINING = (
    Path("metrics/register.json"),
    Path("metrics/evaluate.json"),
    Path("models/receipt.json"),
)


class Measured(Record):
    AP: float
    mean_pose_AP: float


class Registered(Record):
    name: str
    version: int
    alias: str
    tracking_uri: str
    sha256: str


class Trained(Record):
    samples: int
    best_epoch: int


def register_again() -> None:
    """The register stage once more, and the page that goes with a version, through DVC, so that its lock file
    knows the new receipt.
    """
    from rtmpose.files import UserError

    print("the registered version is not where MLflow points now; registering again", flush=True)
    command = [sys.executable, "-m", "dvc", "repro", "--quiet", "-s", "-f", "register", "report"]
    if (code := subprocess.run(command, check=False).returncode) != 0:
        raise UserError(
            f"`dvc repro -s -f register report` ended with exit code {code}, for the reason above; mend it, "
            "run it again"
        )


def main(argv: list[str]) -> None:
    from rtmpose.tracking.models import still_registered

    again = "run `make repro` again"
    if not still_registered(read_record(Registered, RECEIPT, again)):
        register_again()
    figures = read_record(Measured, FIGURES, again)
    receipt, training = read_record(Registered, RECEIPT, again), read_record(Trained, TRAINING, again)
    sets = {key: value["AP"] for key, value in figures.items() if isinstance(value, dict) and "AP" in value}
    others = "".join(f", {key} set {ap:.3f}" for key, ap in sets.items())
    trained = f"{training['samples']} samples, best epoch {training['best_epoch']}"
    where, asked = " and ".join(training["devices"]), training["precision_asked"]
    computed = f"in {training['precision']} on {where} (hardware.precision: {asked})"
    registered = f"{receipt['name']} version {receipt['version']}"
    print(
        f"""
AP          {figures["AP"]:.3f} on held-out images (mean pose {figures["mean_pose_AP"]:.3f}{others})
trained     {trained}; {computed}
model       models/rtmpose.onnx, weights models/rtmpose.pt
metrics     dvc metrics show; files in metrics/
plots       dvc plots show
report      reports/report.html: all of this on one page
registered  {registered} as '{receipt["alias"]}' in {receipt["tracking_uri"]}
promotion   {promotion(receipt["name"], str(receipt["version"]))}
MLflow      make ui"""
    )


def promotion(name: str, version: str) -> str:
    """What `rtmpose promote` would say of the registered version, and the command."""
    from rtmpose.promotion.decide import Asked, judge
    from rtmpose.promotion.report import advice

    return advice(judge(name, version, Asked.of(load_params())))


if __name__ == "__main__":
    stage(main)
