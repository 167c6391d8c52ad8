"""Workers that share one piece of work: a worker group of Ray Train, started again when one of them dies."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rtmpose.cluster.mistakes import MistakeFile
from rtmpose.config import HardwareParams, setup_environment
from rtmpose.ending import line_of
from rtmpose.files import UserError


def run_workers(
    work: Callable[[], None],
    hardware: HardwareParams,
    *,
    workers: int,
    folder: Path,
    callbacks: Sequence[Any] = (),
) -> None:
    """Have so many workers of Ray Train do `work`, in one process group, from its start again when one of
    them dies.

    `folder`, which all machines see, takes Ray's own notes. A UserError of `work` is raised here as it is.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchConfig

    from rtmpose.cluster.trainer import Trainer

    resources: dict[str, float] = {"CPU": hardware.cpus_per_worker}
    if hardware.gpus_per_worker:
        resources["GPU"] = hardware.gpus_per_worker
    mistake = MistakeFile(folder)
    trainer = Trainer(
        _worker,
        train_loop_config={"work": work, "mistake": mistake},
        torch_config=TorchConfig(backend="nccl" if hardware.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=hardware.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=hardware.max_failures),
            callbacks=list(callbacks),
        ),
    )
    mistake.clear()
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit()
    except SystemExit:  # Ray Train's own answer to SIGINT, when the workers have ended
        raise KeyboardInterrupt from None
    except WorkerGroupError as error:
        if not mistake.is_left():
            raise _refusal(error) or error from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)
    mistake.raise_left()


def _refusal(error: Any) -> UserError | None:
    """What a worker met that could not even leave its mistake, such as a full disk."""
    failures = [getattr(failure, "_base_exc", failure) for failure in error.worker_failures.values()]
    lines = [line for failure in failures if (line := line_of(failure)) is not None]
    return UserError(lines[0]) if lines else None


def _worker(config: dict[str, Any]) -> None:
    """What runs in each worker; a user's mistake is left for the driver to say, and ends the run at once.

    Ray Train would start failed workers again and again. One worker alone just returns; several must fail,
    since the others may be waiting for this one, and return when they are started again.
    """
    import ray.train

    setup_environment()
    mistake: MistakeFile = config["mistake"]
    if mistake.is_left():
        return
    try:
        config["work"]()
    except UserError as error:
        with suppress(UserError):
            mistake.leave(error)
        if ray.train.get_context().get_world_size() > 1 or not mistake.is_left():
            raise
