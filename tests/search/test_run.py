"""What the search decides from its trials, what it hands on, and how it is shown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtmpose.config import Params, SearchRange, load_params
from rtmpose.files import UserError
from rtmpose.search.choice import Choice, chosen_params, read_choice
from rtmpose.search.ledger import Kind, TrialRecord
from rtmpose.search.plan import NOISE_FLOOR, Row, as_row, choose
from rtmpose.search.report import TrialRuns, draw, position, ticks
from rtmpose.search.run import run_search, search_fingerprint
from rtmpose.search.trial import report_steps, search_device, trial_threads
from rtmpose.tracking import runs
from tests.search.searching import TAU, Space, children, searching
from tests.support import ROOT


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "params.yaml")


def trial_row(
    ap: float, kind: Kind = "searched", *, seed: int = 0, tau: float = 0.15, status: str = "finished"
) -> Row:
    point = {"finetune.tau": tau, "sigma_factor": 1.0}
    reports = [{"report": 1, "step": 5, "AP": ap / 2}, {"report": 2, "step": 10, "AP": ap}]
    return {
        "AP": ap,
        "point": point,
        "kind": kind,
        "seed": seed,
        "steps": 10,
        "status": status,
        "reports": reports,
    }


def chosen(
    *trials: float, references: Sequence[float] = (0.32, 0.30), repeats: Sequence[float] = ()
) -> Choice:
    rows = [trial_row(ap, "reference", seed=seed, tau=0.1) for seed, ap in enumerate(references)]
    rows += [trial_row(ap) for ap in trials]
    return choose(rows + [trial_row(ap, "repeat", seed=seed) for seed, ap in enumerate(repeats, 1)])


def test_a_winner_that_leads_under_every_seed_is_taken() -> None:
    choice = chosen(0.35, 0.40, 0.10, repeats=[0.34])
    assert choice.values == {"finetune.tau": 0.15, "sigma_factor": 1.0}
    assert choice.note == "AP 0.400 beats the reference's 0.320 (noise ±0.020), under other seeds by 0.040"


def test_a_winner_by_luck_is_not() -> None:
    choice = chosen(0.40, references=(0.32, 0.30, 0.31), repeats=[0.33, 0.31])
    assert choice.values == {}
    assert choice.note.endswith("but under other seeds leads by +0.015 only, the recipe's values are kept")


@pytest.mark.parametrize(
    ("trials", "gain", "low", "high"), [(3, 0, 0.0, 0.07), (20, 0, 0.0, 0.1), (20, 5, 0.85, 1.0)]
)
def test_how_often_a_point_is_taken(trials: int, gain: float, low: float, high: float) -> None:
    """Points no better than the reference hardly ever are; one better by five times the spread of runs nearly
    always is.
    """
    draws, spread, taken = np.random.default_rng(0), 2 * NOISE_FLOOR, 0
    for _ in range(2000):
        references, searched = draws.normal(0.3, spread, 3).tolist(), draws.normal(0.3, spread, trials)
        searched[0] += gain * spread
        better = gain * spread * (searched.argmax() == 0)
        repeats = draws.normal(0.3 + better, spread, 2).tolist()
        taken += bool(chosen(*searched, references=references, repeats=repeats).values)
    assert low <= taken / 2000 <= high


def test_a_lead_within_the_references_spread_is_noise() -> None:
    choice = chosen(0.335)
    assert choice.values == {}
    assert choice.note.startswith(
        "the best trial's AP 0.335 is within noise (±0.020) of the reference's 0.320"
    )


@pytest.mark.parametrize(("ap", "taken"), [(1e-6, False), (0.0045, False), (0.0055, True)])
def test_references_that_agree_leave_a_floor_of_noise(ap: float, taken: bool) -> None:
    choice = chosen(ap, references=(0.0, 0.0), repeats=[ap])
    assert bool(choice.values) == taken and "±0.005" in choice.note


def test_an_ap_that_is_no_number_never_wins() -> None:
    nan = float("nan")
    assert chosen(nan, 0.1).values == {} and chosen(nan).values == {}
    assert chosen(nan, 0.40, repeats=[0.34]).values == {"finetune.tau": 0.15, "sigma_factor": 1.0}
    assert chosen(0.40, repeats=[nan]).values == {}
    for references in ((nan, 0.1), (0.1, nan), (nan, nan)):
        choice = chosen(0.40, references=references, repeats=[0.4])
        assert choice.values == {} and "AP of the reference is not a number" in choice.note


@pytest.mark.parametrize("trials", [(0.31, 0.1), (0.32,), ()])
def test_when_no_trial_beats_the_reference_the_note_says_so(trials: tuple[float, ...]) -> None:
    assert chosen(*trials) == Choice(
        {}, "no trial beat the reference's AP 0.320, the recipe's values are kept"
    )


@pytest.mark.parametrize(
    ("steps", "reports", "expected"),
    [
        (50, 4, [12, 25, 38, 50]),
        (48, 2, [24, 48]),
        (7, 1, [7]),
        (3, 5, [1, 2, 3]),
        (5, 4, [1, 2, 4, 5]),
        (0, 4, []),
    ],
)
def test_trials_report_at_equal_shares_and_at_the_end(steps: int, reports: int, expected: list[int]) -> None:
    assert report_steps(steps, reports) == expected


@pytest.mark.parametrize(("cpus", "concurrent", "threads"), [(8, 2, 4), (7, 2, 3), (2, 4, 1)])
def test_trials_share_a_workers_threads(params: Params, cpus: float, concurrent: int, threads: int) -> None:
    hardware = params.hardware.model_copy(update={"cpus_per_worker": cpus})
    assert (
        trial_threads(searching(params, concurrent=concurrent).model_copy(update={"hardware": hardware}))
        == threads
    )


def test_the_device_is_the_hardware_parameters(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    def device(gpus: float) -> str:
        return search_device(
            params.model_copy(
                update={"hardware": params.hardware.model_copy(update={"gpus_per_worker": gpus})}
            )
        ).type

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert (device(0), device(1)) == ("cpu", "cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"hardware\.gpus_per_worker.*set it to 0"):
        device(0.5)


def test_switched_off_it_changes_nothing(tmp_path: Path, params: Params) -> None:
    paths = {
        "out": tmp_path / "search.json",
        "table": tmp_path / "search.csv",
        "picture": tmp_path / "search.png",
    }
    run_search(searching(params, enabled=False), mix=tmp_path / "mix.json", init=tmp_path / "x.pt", **paths)
    assert chosen_params(params, paths["out"]) == params
    assert read_choice(paths["out"]).note == "search off, the recipe's values are kept"
    assert paths["table"].read_text() == "trial,kind,seed,status,finetune.tau,sigma_factor,steps,AP\n"
    assert paths["picture"].read_bytes().startswith(b"\x89PNG")


def test_chosen_values_replace_the_recipes(tmp_path: Path, params: Params) -> None:
    path = tmp_path / "search.json"
    values = {
        "finetune.tau": 0.17,
        "finetune.sigma": [3.5, 4.5],
        "finetune.optim.lr": 0.001,
        "model.kernel": 5,
    }
    path.write_text(json.dumps({"chosen": values, "note": "AP"}))
    found = chosen_params(params, path)
    assert (found.finetune.tau, found.finetune.sigma, found.finetune.optim.lr) == (0.17, (3.5, 4.5), 0.001)
    assert found.model.kernel == 5 and found.pretrain == params.pretrain


@pytest.mark.parametrize("chosen", ['"tau"', '{"finetune.tua": 1}', '{"finetune.tau": -1}', "[1, 2]", "{"])
def test_damaged_result_is_one_line(tmp_path: Path, params: Params, chosen: str) -> None:
    path = tmp_path / "search.json"
    path.write_text(f'{{"chosen": {chosen}, "note": ""}}')
    with pytest.raises(UserError, match=r"search\.json.*run the search stage again"):
        chosen_params(params, path)


def test_pictures_show_ranges_and_choices(tmp_path: Path, params: Params) -> None:
    space: Space = {"finetune.tau": TAU, "sigma_factor": TAU, "finetune.sigma": {"choices": [None, [3, 4]]}}
    ranges = searching(params, space).search.space
    rows = [
        trial_row(0.3, "reference", tau=0.1),
        trial_row(0.31, "reference", seed=1, tau=0.1),
        trial_row(0.35, tau=0.07),
    ]
    rows += [trial_row(0.1, status="stopped"), trial_row(0.34, "repeat", seed=1, tau=0.07)]
    for number, trial in enumerate(rows):
        trial["trial"], trial["point"]["finetune.sigma"] = number, [None, [3, 4]][number % 2]
    draw(tmp_path / "search.png", ranges, rows, choose(rows))
    assert (tmp_path / "search.png").stat().st_size > 20_000
    draw(tmp_path / "off.png", ranges, [], Choice({}, "search off"))
    assert (tmp_path / "off.png").read_bytes().startswith(b"\x89PNG")


def test_positions_on_an_axis() -> None:
    assert position(SearchRange(low=1.0, high=100.0, log=True), 10.0) == pytest.approx(0.5)
    assert [position(SearchRange(choices=[3, 5, 7]), value) for value in (3, 5, 7)] == [0, 0.5, 1]
    outside = [position(SearchRange(low=0.0, high=4.0), 5.0), position(SearchRange(choices=[3, 5]), 9)]
    assert all(math.isnan(place) for place in [*outside, position(SearchRange(low=0.0, high=4.0), None)])


@pytest.mark.parametrize(
    ("allowed", "labels"),
    [
        ({"low": 0.05, "high": 0.2, "log": True}, ["0.05", "0.1", "0.2"]),
        ({"low": 3e-4, "high": 3e-2, "log": True}, ["0.0003", "0.001", "0.01", "0.03"]),
        ({"low": 0.0, "high": 40.0}, ["0", "20", "40"]),
        ({"choices": [None, [3, 4], "a"]}, ["None", "[3, 4]", "a"]),
        ({"choices": [True]}, ["True"]),
    ],
)
def test_an_axis_is_labelled_at_its_ends_and_round_numbers(
    allowed: dict[str, Any], labels: list[str]
) -> None:
    places, shown = zip(*ticks(SearchRange(**allowed)), strict=True)
    assert list(shown) == labels and list(places) == sorted(places)
    assert places[0] == 0 and (len(places) == 1 or places[-1] == 1)


def test_trials_are_children_in_mlflow_and_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    tags = {"stage": "search", "git_commit": "none", "data_manifest_sha256": "none"}
    parent = runs.start_or_resume_run("search", None, tags=tags)
    trial = TrialRecord(2, {"finetune.tau": 0.1}, 0, "searched")
    TrialRuns(parent, tags).log(trial)
    assert [child.info.status for child in children(parent)] == ["RUNNING"]
    trial.reports.append({"report": 1, "step": 5, "AP": 0.2, "error": 0.9})
    TrialRuns(parent, tags).log(trial)
    trial.reports.append({"report": 2, "step": 10, "AP": 0.3})
    trial.status = "stopped"
    for _ in range(2):  # as by two later processes
        TrialRuns(parent, tags).log(trial)
    (child,) = children(parent)
    assert child.info.status == "KILLED" and child.data.params["finetune.tau"] == "0.1"
    history = runs.client().get_metric_history(child.info.run_id, "AP")
    assert [(point.step, point.value) for point in history] == [(5, 0.2), (10, 0.3)]
    assert [point.value for point in runs.client().get_metric_history(child.info.run_id, "error")] == [0.9]


def test_more_trials_continue_a_search_and_other_ranges_are_another(tmp_path: Path, params: Params) -> None:
    (tmp_path / "mix.json").write_text("{}")
    (tmp_path / "init.pt").write_bytes(b"")

    def name(changed: Params) -> str:
        return search_fingerprint(changed, tmp_path / "mix.json", tmp_path / "init.pt")

    same = name(params)
    assert name(searching(params, trials=99, concurrent=7)) == same
    assert (
        name(searching(params, trial_steps=99)) != same
        and name(searching(params, {"finetune.tau": TAU})) != same
    )


def test_a_row_is_the_last_report() -> None:
    trial = TrialRecord(
        3, {"finetune.tau": 0.1}, 0, "searched", [{"report": 1, "step": 5, "AP": 0.2}], "stopped"
    )
    assert as_row(trial)["AP"] == 0.2 and as_row(trial)["steps"] == 5 and as_row(trial)["status"] == "stopped"
