"""Which deploy targets a workflow measures, with the labels of their runners: `python -m ci.targets hosted`.

Prints `targets=[…]`, a matrix of GitHub Actions, to be added to $GITHUB_OUTPUT. Labels and runtimes stand in
deploy_targets/ alone.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Set
from pathlib import Path
from typing import Any

from rtmpose.deploy.environments import ENVIRONMENTS
from rtmpose.deploy.targets import Target, load_target
from rtmpose.ending import run_command
from rtmpose.files import UserError, read_bytes

FOLDER, PROJECT = Path("deploy_targets"), Path("pyproject.toml")
OWN = "self-hosted"  # the label that every runner of one's own has
ON_GPU: Set[str] = {"onnxruntime-cuda", "onnxruntime-tensorrt"}  # of a board they are its maker's, too
VENDORS = {"gpu", "tensorrt"}  # a board has them from its maker, in the version that fits it


def matrix(wanted: str) -> list[dict[str, Any]]:
    """The targets that `wanted` names: `hosted` (those that GitHub's own runners serve), `all`, or names with
    commas between them -> one entry {target, runner, hosted, project, apart, onnxruntime_gpu} for each:
    `project` is what pip has to install, `apart` the runtimes with environments of their own, and
    `onnxruntime_gpu` whether ONNX Runtime has to be its build for GPUs. UserError for an unknown name, and
    where nothing is left.
    """
    if wanted in ("hosted", "all"):
        found = [load_target(path.stem) for path in sorted(FOLDER.glob("*.yaml"))]
    else:
        found = [load_target(name.strip()) for name in wanted.split(",") if name.strip()]
    if wanted == "hosted":
        found = [target for target in found if OWN not in target.runner]
    if not found:
        raise UserError(f"{wanted!r}: names no target; give hosted, all, or names in {FOLDER}/")
    known = tomllib.loads(read_bytes(PROJECT).decode())["project"]["optional-dependencies"]
    return [_entry(target, set(known)) for target in found]


def _entry(target: Target, extras: set[str]) -> dict[str, Any]:
    names = {spec.name for spec in target.runtimes}
    needed = extras & {target.device, *names}
    if target.board is not None:
        needed -= VENDORS
    return {
        "target": target.name,
        "runner": list(target.runner),
        "hosted": OWN not in target.runner,
        "project": f".[{','.join(sorted(needed))}]" if needed else ".",
        "apart": " ".join(sorted(names & set(ENVIRONMENTS))),
        "onnxruntime_gpu": bool(names & ON_GPU) and target.board is None,
    }


def main(argv: list[str]) -> None:
    if len(argv) != 1:
        raise UserError("python -m ci.targets: give hosted, all, or names of targets with commas")
    print(f"targets={json.dumps(matrix(argv[0]), separators=(',', ':'))}")


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
