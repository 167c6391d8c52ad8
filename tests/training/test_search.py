"""What the search decides from its trials, and what it hands on when it is off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rtmpose.config import Params, UserError, load_params
from rtmpose.training.search import Choice, choose, read_choice, run_search
from tests.support import ROOT

REFERENCE = Choice(0.1, (3.46, 4.0), "reference")


def row(ap: float, *, tau: float = 0.1, reference: bool = False) -> dict[str, Any]:
    return {"AP": ap, "tau": tau, "sigma_factor": 1.0, "sigma": [3.0, 3.5], "reference": reference, "seed": 0, "steps": 10}


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "params.yaml")


def test_a_clear_winner_is_taken(params: Params) -> None:
    choice = choose([row(0.30, reference=True), row(0.32, reference=True), row(0.40, tau=0.15)], REFERENCE, params)
    assert choice.tau == 0.15 and choice.sigma == (3.0, 3.5) and "noise" in choice.note


@pytest.mark.parametrize("best", [0.31, 0.335])
def test_differences_within_noise_keep_the_recipes_values(params: Params, best: float) -> None:
    choice = choose([row(0.30, reference=True), row(0.32, reference=True), row(best, tau=0.15)], REFERENCE, params)
    assert (choice.tau, choice.sigma) == (0.1, (3.46, 4.0)) and "within noise" in choice.note


def test_switched_off_it_hands_on_the_recipes_values(tmp_path: Path, params: Params) -> None:
    off = params.model_copy(update={"search": params.search.model_copy(update={"enabled": False})})
    out = tmp_path / "search.json"
    run_search(off, mix=tmp_path / "mix.json", init=tmp_path / "x.pt", out=out, table=tmp_path / "search.csv")
    choice = read_choice(out)
    assert choice.tau == params.finetune.tau
    width, height = params.input_size
    assert choice.sigma == pytest.approx(((2 * width / 16) ** 0.5, (2 * height / 16) ** 0.5))


def test_damaged_result_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    path.write_text(json.dumps({"tau": 0.1})[:5])
    with pytest.raises(UserError, match=r"search\.json.*run the search stage again"):
        read_choice(path)
