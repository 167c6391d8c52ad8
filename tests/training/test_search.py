"""What the search decides from its trials, and what it hands on when it is off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from rtmpose.config import Params, UserError, load_params
from rtmpose.training.search import (
    Choice,
    choose,
    read_choice,
    report_steps,
    run_search,
    search_device,
    trial_threads,
    unwrapped,
)
from tests.support import ROOT

REFERENCE = Choice(0.1, (3.46, 4.0), "reference")


def row(ap: float, *, tau: float = 0.1, reference: bool = False) -> dict[str, Any]:
    return {"AP": ap, "tau": tau, "sigma_factor": 1.0, "sigma": [3.0, 3.5], "reference": reference, "seed": 0, "steps": 10}


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "params.yaml")


def chosen(*trials: float, references: tuple[float, ...] = (0.30, 0.32)) -> Choice:
    rows = [row(ap, reference=True) for ap in references] + [row(ap, tau=0.15) for ap in trials]
    return choose(rows, REFERENCE)


def test_a_clear_winner_is_taken() -> None:
    choice = chosen(0.35, 0.40, 0.10)
    assert (choice.tau, choice.sigma) == (0.15, (3.0, 3.5))
    assert choice.note == "AP 0.400 beats the reference's 0.320 (noise ±0.020)"


def test_a_lead_within_the_references_spread_is_noise() -> None:
    choice = chosen(0.335)
    assert (choice.tau, choice.sigma) == (0.1, (3.46, 4.0))
    assert choice.note.startswith("the best trial's AP 0.335 is within noise (±0.020) of the reference's 0.320")


@pytest.mark.parametrize(("ap", "tau"), [(1e-6, 0.1), (0.0045, 0.1), (0.0055, 0.15)])
def test_references_that_agree_leave_a_floor_of_noise(ap: float, tau: float) -> None:
    choice = chosen(ap, references=(0.0, 0.0))
    assert choice.tau == tau and "±0.005" in choice.note


@pytest.mark.parametrize("trials", [(0.31, 0.1), (0.32,), ()])
def test_when_no_trial_beats_the_reference_the_note_says_so(trials: tuple[float, ...]) -> None:
    choice = chosen(*trials)
    assert (choice.tau, choice.sigma) == (0.1, (3.46, 4.0))
    assert choice.note == "no trial beat the reference's AP 0.320, the recipe's values are kept"


@pytest.mark.parametrize(
    ("steps", "reports", "expected"),
    [(50, 4, [12, 25, 38, 50]), (48, 2, [24, 48]), (7, 1, [7]), (3, 5, [1, 2, 3]), (5, 4, [1, 2, 4, 5]), (0, 4, [])],
)
def test_trials_report_at_equal_shares_and_at_the_end(steps: int, reports: int, expected: list[int]) -> None:
    assert report_steps(steps, reports) == expected


@pytest.mark.parametrize(("cpus", "concurrent", "threads"), [(8, 2, 4), (7, 2, 3), (2, 4, 1)])
def test_trials_share_a_workers_threads(params: Params, cpus: float, concurrent: int, threads: int) -> None:
    hardware = params.hardware.model_copy(update={"cpus_per_worker": cpus})
    search = params.search.model_copy(update={"concurrent": concurrent})
    assert trial_threads(params.model_copy(update={"hardware": hardware, "search": search})) == threads


def test_the_device_is_the_hardware_parameters(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    def device(gpus: float) -> str:
        return search_device(
            params.model_copy(update={"hardware": params.hardware.model_copy(update={"gpus_per_worker": gpus})})
        ).type

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert (device(0), device(1)) == ("cpu", "cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"hardware\.gpus_per_worker.*set it to 0"):
        device(0.5)


def test_a_trials_mistake_is_its_one_line_again() -> None:
    mistake = RayTaskError("trial", "Traceback\n  …\nUserError: a.tar: damaged", UserError("a.tar: damaged"))
    error = unwrapped(mistake.as_instanceof_cause())
    assert type(error) is UserError and str(error) == "a.tar: damaged"
    defect = RayTaskError("trial", "Traceback\n  …\nKeyError: 1", KeyError(1)).as_instanceof_cause()
    assert unwrapped(defect) is defect
    assert str(unwrapped("the worker died")) == "the worker died"


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
