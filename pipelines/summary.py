"""What `make repro` says at its end: where the model, the figures and the registered version are.

The cache cannot know whether the registered version still exists where MLflow points now; this asks, and registers again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipelines import stage

RECEIPT = Path("metrics/register.json")


def read(path: str) -> dict[str, Any]:
    from rtmpose.config import UserError

    try:
        return json.loads(Path(path).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run `make repro` again") from None


def main(argv: list[str]) -> None:
    from rtmpose.registry import still_registered

    if not still_registered(read(str(RECEIPT))):
        print("the registered version is not where MLflow points now; registering again", flush=True)
        subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet", "-s", "-f", "register"], check=True)
    figures, receipt, training = read("metrics/evaluate.json"), read(str(RECEIPT)), read("models/receipt.json")
    sets = {key: value["AP"] for key, value in figures.items() if isinstance(value, dict) and "AP" in value}
    others = "".join(f", {key} set {ap:.3f}" for key, ap in sets.items())
    print(
        f"""
AP          {figures["AP"]:.3f} on held-out images (mean pose {figures["mean_pose_AP"]:.3f}{others})
model       models/rtmpose.onnx, weights models/rtmpose.pt ({training["samples"]} samples, best epoch {training["best_epoch"]})
metrics     dvc metrics show; files in metrics/
plots       dvc plots show
picture     reports/predictions.png
registered  {receipt["name"]} version {receipt["version"]} as '{receipt["alias"]}' in {receipt["tracking_uri"]}
MLflow      make ui"""
    )


if __name__ == "__main__":
    stage(main)
