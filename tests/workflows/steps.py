"""The shell steps of the workflows, run here as they stand: `python -m tests.workflows.steps` prints how
`benchmark.yml` goes from the list of targets to the comment, on a small model and a local MLflow.

What a runner brings along is stood in for: in the place of `pip install` and `gh` are programs that say how
they were called. Everything else is the real thing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support import ROOT

FOLDER = ROOT / ".github" / "workflows"
EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")
SHELL = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")  # what GitHub runs for `shell: bash`
# `python3 -m venv .venv` makes a pip that says what it was asked for.
PYTHON = """#!/bin/sh
mkdir -p .venv/bin
printf '#!/bin/sh\\necho "pip $*"\\n' > .venv/bin/pip
chmod +x .venv/bin/pip
"""
GH = """#!/bin/sh
for file in table.md; do test -s "$file" || exit 1; done
echo "gh $*"
"""


@dataclass(frozen=True)
class Step:
    """One shell step: its job, its name, its script, and its environment with that of its job."""

    job: str
    name: str
    script: str
    environment: Mapping[str, str]


@dataclass
class Runner:
    """A machine that runs steps in `folder`. `values` are what expressions stand for, such as `secrets.X`."""

    folder: Path
    values: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, step: Step) -> subprocess.CompletedProcess[str]:
        """Run a step; what it adds to $GITHUB_OUTPUT becomes `values`."""
        files = {name: self.folder / f".{name.lower()}" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        files["GITHUB_PATH"] = self.folder / ".github_path"
        for path in files.values():
            path.write_text("")
        environment = os.environ | self.environment | {name: str(path) for name, path in files.items()}
        environment |= {name: self.filled(text) for name, text in step.environment.items()}
        done = subprocess.run(
            [*SHELL, step.script],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        for line in files["GITHUB_OUTPUT"].read_text().splitlines():
            name, _, value = line.partition("=")
            self.values[f"needs.{step.job}.outputs.{name}"] = value
        return done

    def filled(self, text: str) -> str:
        """A text with its expressions replaced; of `a || b` the first that is something. KeyError for one
        that has no value here.
        """

        def value(match: re.Match[str]) -> str:
            parts = [part.strip() for part in match[1].split("||")]
            found = [part[1:-1] if part.startswith("'") else self.values[part] for part in parts]
            return next((one for one in found if one), "")

        return EXPRESSION.sub(value, text)


def steps(workflow: str) -> list[Step]:
    """The shell steps of a workflow file, in order."""
    jobs: dict[str, Any] = yaml.safe_load((FOLDER / workflow).read_text())["jobs"]
    return [
        Step(job, step["name"], step["run"], content.get("env", {}) | step.get("env", {}))
        for job, content in jobs.items()
        for step in content["steps"]
        if "run" in step
    ]


def stand_in(folder: Path, **programs: str) -> str:
    """Programs in a folder -> a PATH that finds them first."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"


def show(runner: Runner, step: Step) -> int:
    """Run a step and print it, what it printed, and how it ended."""
    print(f"\n[{step.job}] {step.name}\n$ " + "\n  ".join(step.script.strip().splitlines()), flush=True)
    done = runner.run(step)
    summary = runner.folder / ".github_step_summary"
    outputs = runner.folder / ".github_output"
    for text in (done.stdout, done.stderr, summary.read_text(), outputs.read_text()):
        if text.strip():
            print(text.rstrip())
    print(f"exit code {done.returncode}", flush=True)
    return done.returncode


def main() -> None:
    from tests.workflows.model import prepare  # exports and registers a small model

    with tempfile.TemporaryDirectory() as temporary:
        workspace = prepare(Path(temporary))
        path = stand_in(Path(temporary) / "bin", gh=GH)
        runner = Runner(
            workspace.folder, environment=workspace.environment | {"PATH": path, "GITHUB_SHA": "0" * 40}
        )
        runner.values |= {
            "secrets.MLFLOW_TRACKING_URI": workspace.environment["MLFLOW_TRACKING_URI"],
            "secrets.MLFLOW_TRACKING_USERNAME": "",
            "secrets.MLFLOW_TRACKING_PASSWORD": "",
            "inputs.targets": "cpu-x86",
            "vars.BENCHMARK_TARGETS": "",
            "matrix.target": "cpu-x86",
            "matrix.project": ".",
            "matrix.apart": "",
            "github.token": "none",
            "github.repository": "owner/rtmpose",
            "github.event.pull_request.number": "",
        }
        runner.environment["RUNNER_TOOL_CACHE"] = f"{temporary}/tools"
        installing = [step for step in steps("benchmark.yml") if step.name.startswith(("Install", "Put"))]
        for step in steps("benchmark.yml"):
            if step not in installing:
                show(runner, step)
        runner.environment["PATH"] = stand_in(Path(temporary) / "install", python3=PYTHON)
        for step in installing:
            show(runner, step)


if __name__ == "__main__":
    main()
