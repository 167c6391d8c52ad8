"""What may be searched, what is suggested, and the ledger of what was tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from rtmpose.config import Params, load_params, parse
from rtmpose.data.stream.mix import Mix
from rtmpose.files import UserError, locked, read_yaml
from rtmpose.search.ledger import Ledger, TrialRecord
from rtmpose.search.plan import counted_trials, is_complete, new_trial, trials_left
from rtmpose.search.run import check_variants
from rtmpose.search.space import check_space, resolved, suggest
from rtmpose.search.trial import TrialSpec
from rtmpose.search.tune import Halving, OnMistake, Suggestions
from tests.search.searching import TAU, Silent, Space, searching
from tests.support import ROOT


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "params.yaml")


def test_the_recipes_spaces_and_many_others_are_accepted(params: Params) -> None:
    check_space(params)
    check_space(
        searching(
            params,
            {
                "finetune.optim.lr": {"low": 1e-4, "high": 1e-2, "log": True},
                "finetune.optim.clip_grad": {"low": 0.1, "high": 1},
                "finetune.optim.warmup_steps": {"low": 10, "high": 100},
                "finetune.strong.rotate": {"low": 0, "high": 20},
                "finetune.sigma": {"choices": [None, [3.0, 4.0]]},
                "finetune.batch_size": {"choices": [32, 64]},
                "model.kernel": {"choices": [3, 5, 7, 9]},
                "model.gau": {"choices": [True, False]},
                "model.weight_decay": {"low": 0.0, "high": 0.1},
            },
        )
    )


@pytest.mark.parametrize(
    ("path", "allowed", "expected"),
    [
        ("finetune.tua", TAU, "no such parameter; did you mean finetune.tau?"),
        ("finetune.optim.learning_rate", TAU, "no such parameter"),
        ("finetune.tau.low", TAU, "no such parameter"),
        ("nonsense", TAU, "no such parameter"),
        (
            "finetune.tau",
            {"low": -1, "high": 1},
            "-1.0 is not possible: finetune.tau: Input should be greater than 0",
        ),
        ("finetune.optim.lr", {"choices": ["fast"]}, "fast is not possible: finetune.optim.lr"),
        ("model.hidden", {"low": 8.5, "high": 16}, "is a whole number"),
        ("model.gau", {"low": 0, "high": 1}, "is not a number; write {choices: [...]}"),
        ("finetune.sigma", {"low": 3, "high": 6}, "is not a number; search sigma_factor"),
        (
            "sigma_factor",
            {"low": -1, "high": 1},
            "-1.0 is not possible: finetune: Value error, sigma must be > 0",
        ),
        ("hardware.workers", {"choices": [1, 2]}, "no trial depends on it"),
        ("seed", {"choices": [1, 2]}, "no trial depends on it"),
        ("model.size", {"choices": ["t", "s"]}, "no trial depends on it"),
        ("finetune.epochs", {"low": 1, "high": 9}, "no trial depends on it"),
        ("finetune.weak.scale", {"low": 0, "high": 0.2}, "no trial depends on it"),
        ("finetune.optim.ema_gamma", {"low": 1, "high": 9}, "no trial depends on it"),
        ("datasets.coco17.repeat", {"choices": [1, 3]}, "no such parameter"),
    ],
)
def test_what_cannot_be_searched_is_one_line(
    params: Params, path: str, allowed: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_space(searching(params, {path: allowed}))
    text = str(caught.value)
    assert text.startswith(f"params.yaml: search.space.{path}: ") and expected in text and "\n" not in text


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        ({}, "write {low, high}"),
        ({"low": 1.0}, "write {low, high}"),
        ({"low": 1.0, "high": 2.0, "choices": [1]}, "write {low, high}"),
        ({"choices": []}, "at least 1"),
        ({"choices": [1], "log": True}, "log is for a range"),
        ({"low": 0.2, "high": 0.1}, "low 0.2 must be below high 0.1"),
        ({"low": 0.0, "high": 0.1, "log": True}, "log needs low above 0"),
        ({"low": 0.1, "hihg": 0.2}, "search.space.finetune.tau.hihg: unknown key"),
    ],
)
def test_what_is_no_range_is_one_line(allowed: dict[str, Any], expected: str) -> None:
    content = read_yaml(ROOT / "params.yaml")
    content["search"]["space"] = {"finetune.tau": allowed}
    with pytest.raises(UserError, match=r"params\.yaml: search\.space\.finetune\.tau") as caught:
        parse(Params, content, Path("params.yaml"))
    assert expected in str(caught.value)


def test_sigma_is_searched_under_one_name_only(params: Params) -> None:
    both: Space = {"sigma_factor": TAU, "finetune.sigma": {"choices": [None]}}
    with pytest.raises(
        UserError, match=r"search\.space\.finetune\.sigma: sigma_factor varies the same parameter"
    ):
        check_space(searching(params, both))


def test_a_network_that_does_not_work_is_refused_before_any_trial(params: Params) -> None:
    nothing = Mix((), Path(), {})
    even = searching(params, {"model.kernel": {"choices": [7, 4]}})
    check_space(even)
    with pytest.raises(UserError, match=r"search\.space\.model\.kernel: no network with 4 works"):
        check_variants(even, nothing)
    frozen = searching(params, {"finetune.freeze": {"choices": [["backbone.stem"], ["backbone.steam"]]}})
    with pytest.raises(UserError, match=r"search\.space\.finetune\.freeze: .*backbone\.steam"):
        check_variants(frozen, nothing)


def test_the_sigma_factor_multiplies_the_recipes_sigma(params: Params) -> None:
    width, height = params.input_size
    values = resolved(params, {"sigma_factor": 2.0, "finetune.tau": 0.1})
    assert values["finetune.sigma"] == pytest.approx(
        [2 * (2 * width / 16) ** 0.5, 2 * (2 * height / 16) ** 0.5]
    )
    assert values["finetune.tau"] == 0.1 and "sigma_factor" not in values
    fixed = params.model_copy(update={"finetune": params.finetune.model_copy(update={"sigma": (3.0, 4.0)})})
    assert resolved(fixed, {"sigma_factor": 0.5})["finetune.sigma"] == pytest.approx([1.5, 2.0])


POINTS: Space = {
    "finetune.tau": TAU,
    "model.kernel": {"choices": [3, 5, 7]},
    "model.hidden": {"low": 8, "high": 64, "log": True},
}


def test_a_suggestion_is_a_function_of_seed_number_and_what_is_known(params: Params) -> None:
    params = searching(params, POINTS)
    points = [suggest(params, number, []) for number in range(12)]
    assert points == [suggest(params, number, []) for number in range(12)]
    assert len({point["finetune.tau"] for point in points}) == 12, "every number draws anew"
    assert all(
        0.05 <= point["finetune.tau"] <= 0.2 and point["model.kernel"] in (3, 5, 7) for point in points
    )
    assert all(
        isinstance(point["model.hidden"], int) and 8 <= point["model.hidden"] <= 64 for point in points
    )
    assert points != [suggest(params.model_copy(update={"seed": 1}), number, []) for number in range(12)]


def test_from_the_eleventh_on_suggestions_follow_the_best(params: Params) -> None:
    params = searching(params, POINTS)
    known: list[TrialRecord] = []
    for number in range(40):
        point = suggest(params, number, known)
        ap = 1.0 - abs(point["finetune.tau"] - 0.15) * 5 - 0.2 * (point["model.kernel"] != 5)
        known.append(
            TrialRecord(number, point, 0, "searched", [{"report": 1, "step": 1, "AP": ap}], "finished")
        )
    late = [trial.point for trial in known[25:]]
    assert sum(point["model.kernel"] == 5 for point in late) > 10
    assert sum(abs(point["finetune.tau"] - 0.15) < 0.02 for point in late) > 6


def test_the_ledger_is_read_back_and_survives_a_line_cut_short(tmp_path: Path, params: Params) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    first = new_trial(params, ledger)
    assert (
        first is not None
        and first.kind == "reference"
        and first.point == {"finetune.tau": 0.1, "sigma_factor": 1.0}
    )
    ledger.report(0, {"report": 2, "step": 48, "AP": 0.25})
    ledger.end(0, "finished")
    assert new_trial(params, ledger) is not None
    with path.open("a") as file:
        file.write('{"event": "report", "trial": 1, "rep')
    again = Ledger(path)
    assert again.trials == ledger.trials and [trial.number for trial in again.running()] == [1]
    again.report(1, {"report": 1, "step": 24, "AP": 0.5})
    assert Ledger(path).history == [
        (0, {"report": 2, "step": 48, "AP": 0.25}),
        (1, {"report": 1, "step": 24, "AP": 0.5}),
    ]


def test_trials_are_given_out_until_there_are_enough(tmp_path: Path, params: Params) -> None:
    params = searching(params, trials=2, reference_seeds=2)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    given = [new_trial(params, ledger) for _ in range(5)]
    kinds = [trial and (trial.kind, trial.seed) for trial in given]
    assert kinds == [("reference", 0), ("reference", 1), ("searched", 0), ("searched", 0), None]
    for number in range(4):
        assert not is_complete(params, ledger)
        ended(ledger, number, 0.1)
    assert is_complete(params, ledger) and not is_complete(searching(params, trials=3), ledger)


def ended(ledger: Ledger, number: int, ap: float) -> None:
    ledger.report(number, {"report": 2, "step": 48, "AP": ap})
    ledger.end(number, "finished")


def test_the_best_runs_again_under_the_other_seeds_once_all_have_ended(
    tmp_path: Path, params: Params
) -> None:
    params = searching(params, trials=2, reference_seeds=3)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number, ap in enumerate((0.30, 0.31, 0.32, 0.40)):
        new_trial(params, ledger)
        ended(ledger, number, ap)
    assert new_trial(params, ledger) is not None and new_trial(params, ledger) is None
    ended(ledger, 4, 0.35)  # the one before stays the best
    assert not is_complete(params, ledger) and trials_left(params, ledger) == 2
    repeats, best = [new_trial(params, ledger), new_trial(params, ledger)], ledger.trials[3].point
    assert [repeat and (repeat.kind, repeat.seed, repeat.point) for repeat in repeats] == [
        ("repeat", 1, best),
        ("repeat", 2, best),
    ]
    assert new_trial(params, ledger) is None and not is_complete(params, ledger)
    assert Suggestions(params, Ledger(ledger.path)).suggest("a")["spec"] == TrialSpec(
        5, best, 1, judged=False
    )
    for number in (5, 6):
        ended(ledger, number, 0.39)
    assert is_complete(params, ledger) and [trial.number for trial in counted_trials(params, ledger)] == list(
        range(7)
    )

    longer = searching(params, trials=3)
    assert not is_complete(longer, ledger) and trials_left(longer, ledger) == 1
    new_trial(longer, ledger)
    ended(ledger, 7, 0.33)  # no better: the repeats still count
    assert is_complete(longer, ledger) and [trial.number for trial in counted_trials(longer, ledger)] == [
        0,
        1,
        2,
        3,
        4,
        7,
        5,
        6,
    ]
    longest = searching(params, trials=4)
    new_trial(longest, ledger)
    ended(ledger, 8, 0.5)  # better: it has to be repeated itself
    assert trials_left(longest, ledger) == 2 and 5 not in [
        trial.number for trial in counted_trials(longest, ledger)
    ]


def test_a_best_trial_within_noise_is_not_repeated(tmp_path: Path, params: Params) -> None:
    params = searching(params, trials=1, reference_seeds=2)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number, ap in enumerate((0.30, 0.32, 0.335)):
        new_trial(params, ledger)
        ended(ledger, number, ap)
    assert is_complete(params, ledger) and new_trial(params, ledger) is None


def test_a_shorter_search_in_a_longer_ones_store_runs_only_what_it_asks_for(
    tmp_path: Path, params: Params
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for _ in range(6):
        new_trial(searching(params, trials=9, reference_seeds=2), ledger)
    for number in (0, 1, 3, 4):  # 2 and 5 were running when the driver was killed
        ended(ledger, number, 0.1)
    short = searching(params, trials=2, reference_seeds=2)
    suggestions = Suggestions(short, ledger)
    assert suggestions.count == 1 and suggestions.suggest("a")["spec"].number == 2
    assert suggestions.suggest("b") == Searcher.FINISHED
    assert Suggestions(searching(params, trials=5, reference_seeds=2), ledger).count == 3


def test_two_drivers_do_not_share_a_search(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"), pytest.raises(UserError, match="another process works on this"), locked(
        tmp_path / "lock", wait=0.0
    ):  # fmt: skip
        pass


def test_asha_judges_by_what_the_ledger_holds(tmp_path: Path, params: Params) -> None:
    params = searching(params, reports=4, trials=6, reference_seeds=2)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for _ in range(2 + 3):
        new_trial(params, ledger)
    for number, ap in ((0, 0.9), (1, 0.8)):  # the references' end is compared with nobody's
        ledger.report(number, {"report": 4, "step": 48, "AP": ap})
        ledger.end(number, "finished")
    ledger.report(2, {"report": 1, "step": 12, "AP": 0.4})
    ledger.report(3, {"report": 1, "step": 12, "AP": 0.6})
    ledger.report(
        4, {"report": 1, "step": 12, "AP": 0.1}
    )  # and the driver was killed before it wrote the end
    Halving(params, ledger, Silent())
    assert [trial.status for trial in Ledger(ledger.path).trials.values()] == ["finished"] * 2 + [
        "running"
    ] * 2 + ["stopped"]


def test_the_first_mistake_ends_the_search() -> None:
    stopper = OnMistake()
    assert not stopper("a", {"report": 1, "step": 12, "AP": 0.4}) and not stopper.stop_all()
    assert stopper("a", {"AP": 0.0, "mistake": "a.tar: damaged"}) and stopper.stop_all()
    stopper("b", {"AP": 0.0, "mistake": "b.tar: damaged"})
    assert stopper.mistake == "a.tar: damaged"
