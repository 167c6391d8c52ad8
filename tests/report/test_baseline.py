"""A baseline ends at the stage `evaluate`, and has a page all the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rtmpose.cli.app import app
from rtmpose.report.folder import AFTER_EVALUATION, UNKNOWN, Folder
from rtmpose.report.page import render
from tests.report.test_measures import change_params
from tests.support import ROOT

REFUSING = ("export", "quantize", "benchmark", "pick", "compare", "register")  # a baseline


@pytest.fixture
def evaluated(run: Folder) -> Folder:
    """A run that ended at `evaluate`."""
    for name in AFTER_EVALUATION:
        (run.path / name).unlink(missing_ok=True)
    shutil.rmtree(run.path / "metrics/benchmark", ignore_errors=True)
    return run


def test_the_page_of_a_baseline_names_no_stage_that_refuses_it(evaluated: Folder) -> None:
    assert "`dvc repro export` writes it" in render(evaluated)
    change_params(evaluated, model={"backbone": "hrnet_w32", "head": "heatmap"})
    page = render(evaluated)
    assert "63.8" in page and "not made for a baseline, which is trained and evaluated alone" in page
    assert not [stage for stage in REFUSING if f"dvc repro {stage}" in page]
    bare = render(Folder(evaluated.path, "a run", UNKNOWN))
    assert "dvc repro evaluate" in bare, "a whole `dvc repro` ends in a refusal"


def test_a_recipe_of_a_baseline_is_run_as_far_as_it_goes(evaluated: Folder) -> None:
    change_params(evaluated, model={"backbone": "hrnet_w32", "head": "heatmap"})
    page = render(Folder(evaluated.path, "a run", UNKNOWN, ROOT / "conf"))
    assert "dvc exp run evaluate" in page


def test_the_command_makes_it(evaluated: Folder, tmp_path: Path) -> None:
    change_params(evaluated, model={"backbone": "hrnet_w32", "head": "heatmap"})
    made = CliRunner().invoke(app, ["report", str(evaluated.path), "-o", str(tmp_path / "page.html")])
    assert made.exit_code == 0, made.output
    assert "HRNet-W32" in (tmp_path / "page.html").read_text()
