"""`make ui`: MLflow's web interface on the store that runs are logged to."""

from __future__ import annotations

import os
import subprocess
import sys

from pipelines import stage


def main(argv: list[str]) -> None:
    from rtmpose.tracking.runs import tracking_uri

    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", tracking_uri(), *argv]
    try:
        sys.exit(subprocess.run(command, check=False).returncode)
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    stage(main)
