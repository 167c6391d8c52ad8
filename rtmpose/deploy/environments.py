"""Environments of their own for runtimes whose packages pin another torch, or another numpy, than this one.

`rtmpose setup-runtime NAME` sets one up as `.runtimes/NAME` beside the checkout. Nothing else installs it.
"""

from __future__ import annotations

import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

from rtmpose.checkout import home
from rtmpose.files import UserError, locked, writing

FINISHED = "finished"


@dataclass(frozen=True)
class Environment:
    """What pip installs, step by step, and the room that it then takes."""

    steps: tuple[tuple[str, ...], ...]
    gigabytes: float


ENVIRONMENTS = {
    # executorch does not ask for torch, and does not import without it.
    "executorch": Environment((("torch==2.13.0", "numpy==2.4.6", "executorch==1.5.1"),), 1.5),
    "litert": Environment((("litert-torch==0.10.0",),), 6.7),
    # The second one runs on boards alone, where the first one converts.
    "rknn": Environment(
        (("rknn-toolkit2==2.5.0", "rknn-toolkit-lite2==2.5.0; platform_machine == 'aarch64'"),), 5.7
    ),
}


def environment_folder(name: str) -> Path:
    """Where an environment lies, set up or not."""
    return home(Path(".runtimes") / name)


def environment_python(name: str) -> Path | None:
    """The interpreter of an environment; None where it is not set up, or for other versions."""
    folder = environment_folder(name)
    finished = folder / FINISHED
    if not finished.is_file() or finished.read_text() != _steps(name):
        return None
    return folder / "bin" / "python"


def set_up(name: str) -> Path:
    """Set up an environment unless it is there; what was cut short starts anew. Its interpreter."""
    if name not in ENVIRONMENTS:
        raise UserError(f"{name}: has no environment of its own; give one of {', '.join(ENVIRONMENTS)}")
    folder = environment_folder(name)
    with locked(folder.with_name(f".{name}.lock"), wait=0):
        if (python := environment_python(name)) is not None:
            return python
        with writing(folder):
            venv.create(folder, with_pip=True, clear=True)
            python = folder / "bin" / "python"
            for step in ENVIRONMENTS[name].steps:
                _install(python, step)
            (folder / FINISHED).write_text(_steps(name))
    return python


def _install(python: Path, step: tuple[str, ...]) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *step]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (errors or done.stderr.splitlines() or ["no reason given"])[-1]
        raise UserError(f"{python.parent.parent}: pip could not install {' '.join(step)}: {reason}")


def _steps(name: str) -> str:
    return "\n".join(" ".join(step) for step in ENVIRONMENTS[name].steps)
