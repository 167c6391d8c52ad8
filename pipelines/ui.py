"""`make ui`: MLflow's web interface on the store that runs are logged to."""

from __future__ import annotations

import os
import subprocess
import sys

from pipelines import stage


def main(argv: list[str]) -> None:
    from rtmpose.tracking.runs import tracking_uri

    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # Not on the command line, which everyone on the machine can see: it may hold a password.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = tracking_uri()
    command = [sys.executable, "-m", "mlflow", "ui", *argv]
    try:
        sys.exit(subprocess.run(command, check=False).returncode)
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    stage(main)
