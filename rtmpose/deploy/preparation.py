"""What runtimes make of a model before they run it, such as converted files and engines: made before anything
is timed, in a process of its own, so that it is in no configuration's start-up or memory.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

from rtmpose.config import setup_environment
from rtmpose.deploy.runtimes.base import TENSORRT, ModelFiles, NotPossible, Placement, Precision, RuntimeName
from rtmpose.deploy.runtimes.session import open_session
from rtmpose.files import one_line

CONVERTING: frozenset[RuntimeName] = frozenset({"ncnn", "mnn", "litert", "executorch", "rknn", "coreml"})
LIMIT_S = 1800.0  # an engine for a small board takes minutes
SPAWN = multiprocessing.get_context("spawn")


class Preparation:
    """Makes, once for each model, runtime and precision, what that runtime runs."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[object, ...], str | None] = {}

    def reason(
        self, runtime: RuntimeName, files: ModelFiles, precision: Precision, placement: Placement, batch: int
    ) -> str | None:
        """Why it cannot be made or opened here; None where it lies there now, or none is needed."""
        if runtime not in CONVERTING | TENSORRT:
            return None
        of_batch = batch if runtime in TENSORRT else None  # a converted network takes any number of images
        key = files, runtime, precision, placement.device, of_batch
        if key not in self._reasons:
            self._reasons[key] = _prepared(runtime, files, precision, placement, batch)
        return self._reasons[key]


def _prepared(
    runtime: RuntimeName, files: ModelFiles, precision: Precision, placement: Placement, batch: int
) -> str | None:
    pipe, theirs = SPAWN.Pipe()
    arguments = (theirs, runtime, files, precision, placement, batch)
    process = SPAWN.Process(target=prepare, args=arguments, daemon=True)
    process.start()
    theirs.close()  # else its death would not be seen as the end of its pipe
    try:
        if not pipe.poll(LIMIT_S):
            return f"no answer within {LIMIT_S:.0f} s"
        answer: str | None = pipe.recv()
        return answer
    except (EOFError, OSError):
        return "its process died"
    finally:
        process.kill()
        process.join()
        pipe.close()


def prepare(
    pipe: Connection,
    runtime: RuntimeName,
    files: ModelFiles,
    precision: Precision,
    placement: Placement,
    batch: int,
) -> None:
    """Open the model once, which makes what it is opened from, and tell why that is not possible, or None."""
    setup_environment()
    try:
        open_session(runtime, files, precision, placement, batch)
    except NotPossible as reason:
        pipe.send(str(reason))
    except Exception as error:  # reported as the reason why its configurations are left out
        pipe.send(f"{type(error).__name__}: {one_line(error)[:300]}")
    else:
        pipe.send(None)
