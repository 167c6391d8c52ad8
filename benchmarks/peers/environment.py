"""Sets up a peer's environment, and talks to a process in it."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rtmpose.config import AugmentConfig
from rtmpose.files import UserError, read_yaml

ROOT = Path(__file__).resolve().parent.parent.parent
# numpy 1 and albumentations 1 are what MMPose 1.3 was written for: albumentations 2 would ignore its hole
# sizes. xtcocotools is built from source against the numpy that lies there. What would ask for OpenCV with
# windows, for torchvision or for chumpy, none of which is imported here, comes without its dependencies.
MMPOSE_STEPS = (
    ("torch==2.13.0",),
    (
        *(
            "numpy==1.26.4",
            "opencv-python-headless==4.11.0.86",
            "scipy==1.14.1",
            "cython",
            "setuptools",
            "wheel",
        ),
        *(
            "addict",
            "matplotlib",
            "munkres",
            "packaging",
            "pillow",
            "platformdirs",
            "pycocotools",
            "pyyaml",
            "rich",
        ),
        *("scikit-image", "scikit-learn", "shapely", "six", "termcolor", "terminaltables", "tqdm", "yapf"),
    ),
    ("--no-deps", "mmengine==0.10.7", "mmcv-lite==2.1.0", "mmdet==3.3.0", "mmpose==1.3.2"),
    ("--no-deps", "albumentations==1.3.1", "qudida==0.0.4"),
    ("--no-deps", "--no-build-isolation", "xtcocotools==1.14.3"),
)
SIMPLEJPEG_STEPS = (("numpy==2.4.6", "simplejpeg==1.9.0", "xxhash==4.1.0"),)


def peer_python(name: str, steps: Sequence[Sequence[str]]) -> Path:
    """The interpreter of `.peers/<name>`, set up on first use; a set-up cut short is begun again."""
    folder = ROOT / ".peers" / name
    python, finished = folder / "bin" / "python", folder / "finished"
    if not finished.exists():
        print(f"setting up {folder.relative_to(ROOT)}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        for step in steps:
            command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *step]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise UserError(f"{folder}: pip could not install {' '.join(step)}: {done.stderr.strip()}")
        finished.touch()
    return python


def published_augmentation() -> AugmentConfig:
    """The strong stage of the published recipes, with their pixel transforms."""
    recipe = read_yaml(ROOT / "conf/recipe/published.yaml")
    return AugmentConfig.model_validate(recipe["finetune"]["strong"])


class Peer:
    """A process in a peer's environment that answers one line of JSON with another; its first line greets."""

    def __init__(self, python: Path, program: Path, *arguments: str) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        }
        self.program = program
        command = [str(python), str(program), *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.greeting = self._answer()

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise UserError(f"{self.program}: the peer's process ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
