"""What every process of the project sets before it imports its dependencies."""

from __future__ import annotations

import os

MOST_PIXELS = 1 << 27  # of one image; a camera of 100 megapixels stays below


def setup_environment() -> None:
    """Turn off every dependency's telemetry, let OpenMP's threads sleep when they have waited a moment, and
    let Ray's workers compute at the priority of whoever started Ray; call before importing them. What is set
    already stays.

    Threads that spin for long take the cores of other processes; threads that sleep at once make a training
    step on two cores a fifth slower. Ray itself would run its workers at nice 15: beside one busy process of
    the usual priority they get a thirtieth of a core, and training is what the user has asked for. To train
    in the background, set RAY_worker_niceness to 15. On a cluster it counts where `ray start` runs.
    """
    for key, value in {
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime has it on Linux, too; it ignores DO_NOT_TRACK
        "NNCF_CI": "1",  # NNCF's only switch against its telemetry
        "RAY_worker_niceness": "0",  # read by Ray when it starts on a machine, and added to its own niceness
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENCV_IO_MAX_IMAGE_PIXELS": str(MOST_PIXELS),  # read when OpenCV is imported
        "OPENCV_LOG_LEVEL": "SILENT",  # what it says of damaged pictures is told in one line of ours
        "GOMP_SPINCOUNT": "10000",  # some ten microseconds
    }.items():
        os.environ.setdefault(key, value)
