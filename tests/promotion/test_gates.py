"""Each gate refused in turn, by the cause that it is there for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtmpose.promotion.evidence import NOTHING_THERE
from rtmpose.promotion.gate import Gate, at_least, at_most
from rtmpose.promotion.gates import Case, gates
from rtmpose.promotion.journal import standing
from rtmpose.promotion.report import table
from tests.promotion.versions import ASKED, GROUPS, POINTS, TARGET, entry, figure, hashes, measured

ACCURACY, COST = f"comparison__targets__{TARGET}", f"costs__{TARGET}"
EASY = f"{ACCURACY}__sets__easy"
TAGS = {
    "git_commit": "0123456789abcdef", "dvc_lock_sha256": "b" * 64, "data_manifest_sha256": "a" * 64,
    "fingerprint": "f00d",
}  # fmt: skip


def case(champion: str | None = "1", **changes: Any) -> Case:
    """Version 2 beside champion 1, as it passes; `changes` are fields, else values of the evidence. A time is
    told as what it is from now.
    """
    now = datetime.now(UTC)
    changes = {key: now + value if isinstance(value, timedelta) else value for key, value in changes.items()}
    fields = {key: changes.pop(key) for key in list(changes) if key in Case.__dataclass_fields__}
    made = Case(
        number="2",
        tags=TAGS,
        hashes=hashes("2"),
        run_found=True,
        damage=None,
        evidence=measured("2", champion, "run", **changes),
        standing=standing([], champion),
        champion_sha256=champion and hashes(champion)["rtmpose.onnx"],
        params=ASKED.params,
        targets=(TARGET,),
        new_skeleton=False,
        now=now,
    )
    return replace(made, **fields)


def failed(found: Sequence[Gate]) -> dict[str, Gate]:
    return {gate.name: gate for gate in found if gate.verdict == "fails"}


def slices(**changes: dict[str, Any]) -> dict[str, Any]:
    whole = {"persons": 500, "recall": figure(70), "difference": figure(0.2)}
    names = ("all", "small", "crowded", "occluded", *GROUPS)
    return {name: whole | changes.get(name, {}) for name in names}


CAUSES: dict[str, tuple[dict[str, Any], str, str]] = {
    "a broken σ in the card": (
        {
            "comparison__card_problems": [
                "rtmpose.onnx: its card says σ [9.0, 9.0] bins, training used [5, 6]"
            ]
        },
        "card",
        "σ [9.0, 9.0]",
    ),
    "a slowed runtime": (
        {f"{COST}__beside__latency": {"ratio": 1.3, "low": 1.28, "high": 1.33}},
        "latency / champion",
        "1.33 × at worst, 1.30 ×, 2.40 ms",
    ),
    "a latency that is unsure": (
        {f"{COST}__beside__latency": {"ratio": 1.0, "low": 0.8, "high": 1.25}},
        "latency / champion",
        "1.25 × at worst, 1.00 ×",
    ),
    "too few rounds": (
        {f"{COST}__beside__latency": {"ratio": 1.0}},
        "latency / champion",
        "too few rounds",
    ),
    "a larger file": ({f"{COST}__beside__size": {"ratio": 2.1}}, "size / champion", "2.10 ×"),
    "more memory": ({f"{COST}__beside__memory": {"ratio": 1.4}}, "memory / champion", "1.40 ×"),
    "more memory of the GPU": (
        {
            f"{COST}__beside__gpu_memory": {"ratio": 1.4},
            f"{COST}__device": "gpu",
            f"{COST}__gpu_memory_mb": 812.0,
        },
        "GPU memory / champion",
        "1.40 × 812 MB",
    ),
    "a champion that did not run": (
        {f"{COST}__beside": {}, f"{COST}__not_compared": "no bf16 here"},
        "costs / champion",
        "no bf16 here",
    ),
    "a broken budget": (
        {
            f"{COST}__budgets": [
                {
                    "budget": "any runtime",
                    "key": "p95_ms",
                    "limit": 100,
                    "measured": 140.0,
                    "by": "x",
                    "kept": False,
                }
            ]
        },
        "budget",
        "p95_ms 140.0 of 100",
    ),
    "other points than PyTorch's": ({f"{COST}__parity_px": 4.2}, "parity with PyTorch", "4.200 px"),
    "no parity": ({f"{COST}__parity_px": None}, "parity with PyTorch", "not measured"),
    "parity on noise": (
        {f"{COST}__images": "noise", f"{COST}__parity_px": None},
        "parity with PyTorch",
        "measured on noise: bring the evaluation shards",
    ),
    "parity on who knows what": ({f"{COST}__images": None}, "parity with PyTorch", "nobody knows what"),
    "a tree with changes": (
        {"tags": TAGS | {"git_commit": "0123456789ab-dirty"}},
        "lineage: git commit",
        "uncommitted",
    ),
    "no commit": ({"tags": TAGS | {"git_commit": "unknown"}}, "lineage: git commit", "unknown"),
    "no dvc.lock": ({"tags": TAGS | {"dvc_lock_sha256": "none"}}, "lineage: dvc.lock", "none"),
    "no data": ({"tags": TAGS | {"data_manifest_sha256": "none"}}, "lineage: data", "none"),
    "no training run": ({"comparison__training_run": None}, "lineage: training run", "run none"),
    "a run of another store": ({"run_found": False}, "lineage: training run", "not in this store"),
    "no fingerprint": ({"tags": TAGS | {"fingerprint": "unknown"}}, "lineage: training run", "fingerprint"),
    "no licence": (
        {"comparison__data": [{"name": "mine", "sha256": "d", "licence": ""}]},
        "lineage: data licences",
        "mine",
    ),
    "a card without data": ({"comparison__data": []}, "lineage: data licences", "names no data"),
    "renamed points": (
        {"comparison__keypoint_names": ("nose", "right_eye", "left_eye")},
        "keypoint names",
        "point 1 is right_eye, the champion's left_eye",
    ),
    "more points": ({"comparison__keypoint_names": (*POINTS, "tail")}, "keypoint names", "4 points"),
    "AP of another file": (
        {f"{ACCURACY}__files": {"rtmpose.onnx": "9" * 64}},
        "evidence of these files",
        "AP of cpu-x86",
    ),
    "costs of another file": (
        {f"{COST}__files": {"rtmpose.int8.onnx": "9" * 64}},
        "evidence of these files",
        "costs of cpu-x86",
    ),
    "a file that is not registered": (
        {f"{ACCURACY}__files": {"rtmpose.int8.xml": "9" * 64}},
        "evidence of these files",
        "registered is none",
    ),
    "evidence older than the file": (
        {f"{COST}__measured_at": -timedelta(hours=1, seconds=90)},
        "evidence is fresh",
        "before the file",
    ),
    "evidence of last year": (
        {"now": timedelta(days=300)},
        "evidence is fresh",
        "300.0 days",
    ),
    "evidence of tomorrow": ({"now": -timedelta(days=2)}, "evidence is fresh", "in the future"),
    "a damaged file": ({"damage": "rtmpose.onnx: has not the hash"}, "files", "rtmpose.onnx"),
    "a worse AP": ({f"{EASY}__difference": figure(-1.5)}, "AP easy − champion", "-2.50 at worst, -1.50"),
    "a worse AP on the second set": (
        {f"{ACCURACY}__sets__hard__difference": figure(-3)},
        "AP hard − champion",
        "-4.00 at worst",
    ),
    "an AP that is unsure": (
        {f"{EASY}__difference": figure(0.4, 3)},
        "AP easy − champion",
        "-2.60 at worst, +0.40",
    ),
    "an AP below its floor": ({f"{EASY}__ap": figure(39)}, "AP easy", "38.0 at worst, 39.0"),
    "another evaluation set": (
        {f"{EASY}__champion_sha256": "7" * 64, f"{EASY}__difference": None},
        "AP easy − champion",
        "another evaluation set",
    ),
    "another mix": ({"comparison__mix_sha256": "7" * 64}, "lineage: data", "evaluated on 777777777777"),
    "a slice below its floor": (
        {f"{EASY}__slices": slices(small={"recall": figure(30.5)})},
        "recall small",
        "29.5",
    ),
    "a group of points below its floor": (
        {f"{EASY}__slices": slices(head={"recall": figure(50.5)})},
        "recall head",
        "49.5 at worst",
    ),
    "too few persons for a floor": (
        {f"{EASY}__slices": slices(small={"persons": 8})},
        "recall small",
        "8 persons of 20: judge on more, or remove the floor",
    ),
    "nobody for a floor": (
        {f"{EASY}__slices": slices(small={"persons": 0, "recall": None, "difference": None})},
        "recall small",
        "0 persons of 20",
    ),
    "a worse slice": (
        {f"{EASY}__slices": slices(head={"difference": figure(-5.5)})},
        "recall head − champion",
        "-6.50",
    ),
    "another champion": (
        {"standing": standing([], "3")},
        "measured beside the champion",
        "champion is version 3",
    ),
    "a champion's new file": ({"champion_sha256": "7" * 64}, "measured beside the champion", "another file"),
    "a champion that was deleted": (
        {
            "standing": standing([entry(1, "promote", "1", "0")]),
            "champion_sha256": None,
            "champions_left": ("0",),
        },
        "measured beside the champion",
        "version 1 was deleted: `rtmpose rollback` first",
    ),
    "the only champion, deleted": (
        {"champion_sha256": None},
        "measured beside the champion",
        "version 1 was deleted: none is left, --no-champion",
    ),
    "costs beside another champion": (
        {f"{COST}__champion_version": None},
        "measured beside the champion",
        "beside none",
    ),
    "costs beside the champion in something else": (
        {f"{COST}__champion_picked": "onnxruntime_fp32"},
        "measured beside the champion",
        "costs beside its onnxruntime_fp32, AP beside its onnxruntime_int8",
    ),
    "no target is required": ({"targets": ()}, "required targets", "none: name one"),
    "nothing picked": (
        {ACCURACY: {"picked": None, "files": {}, "sets": {}, "not_compared": "nothing passed here"}},
        "picked",
        "nothing passed here",
    ),
    "no costs": ({"costs": {}}, "costs", "not measured"),
    "AP that could not be measured": (
        {f"{ACCURACY}__sets": {}, f"{ACCURACY}__not_compared": "no GPU"},
        "AP",
        "no GPU",
    ),
}


def test_a_good_candidate_passes() -> None:
    found = gates(case())
    assert failed(found) == {} and {gate.name for gate in found if gate.verdict == "not asked"} == {
        "recall occluded"
    }
    assert failed(gates(case(None))) == {}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_planted_cause_is_refused_by_its_gate(cause: str) -> None:
    changes, name, told = CAUSES[cause]
    found = failed(gates(case(**changes)))
    assert name in found and told in found[name].found
    assert set(found) == {name}, "a gate that has nothing to do with it"


def test_every_gate_has_a_cause() -> None:
    names = {gate.name for gate in gates(case())}
    twins = {
        "recall small − champion",
        "recall crowded − champion",
        "recall all − champion",
        "recall arms − champion",
        "recall legs − champion",
    }  # as that of head
    unseen = names - {name for _, name, _ in CAUSES.values()} - twins
    assert unseen == {"never rolled back", "recall occluded"}


def test_who_was_rolled_back_is_refused() -> None:
    entries = [entry(1, "promote", "1", None), entry(2, "promote", "2", "1"), entry(3, "rollback", "1", "2")]
    gone = standing(entries)
    assert gone.rolled_back == {"2": entries[-1]}
    assert set(failed(gates(case(standing=gone, rolled_back=entries[-1])))) == {"never rolled back"}
    assert failed(gates(case(standing=gone, rolled_back=entries[-1], again=True))) == {}
    assert standing([*entries, entry(4, "promote", "2", "1")]).rolled_back == {}


def test_a_new_skeleton_is_compared_in_costs_alone() -> None:
    renamed: dict[str, Any] = {
        "comparison__keypoint_names": (*POINTS, "tail"),
        f"{ACCURACY}__not_compared": "the champion's points are others",
    }
    alone: dict[str, Any] = {f"{ACCURACY}__sets__{name}__difference": None for name in ("easy", "hard")}
    found = gates(case(new_skeleton=True, **renamed, **alone))
    assert failed(found) == {}
    slow = gates(case(new_skeleton=True, **renamed, **alone, **CAUSES["a larger file"][0]))
    assert set(failed(slow)) == {"size / champion"}


def test_a_new_skeleton_with_the_champions_points_is_compared_in_all() -> None:
    found = gates(case(new_skeleton=True))
    assert failed(found) == {} and [gate.name for gate in found if gate.found == "--new-skeleton"] == []
    worse = CAUSES["a worse AP"][0]
    assert set(failed(gates(case(new_skeleton=True, **worse)))) == {"AP easy − champion"}


def test_a_champion_that_has_nothing_on_a_target_is_no_measure_there() -> None:
    """Floors, budgets and parity hold all the same."""
    alone: dict[str, Any] = {f"{ACCURACY}__sets__{name}__difference": None for name in ("easy", "hard")}
    nothing: dict[str, Any] = alone | {
        f"{ACCURACY}__champion_picked": None, f"{ACCURACY}__not_compared": NOTHING_THERE,
        f"{COST}__champion_picked": None, f"{COST}__not_compared": NOTHING_THERE, f"{COST}__beside": {},
    }  # fmt: skip
    found = gates(case(**nothing))
    assert failed(found) == {}
    told = {gate.name for gate in found if gate.found == NOTHING_THERE}
    assert told == {"AP easy − champion", "AP hard − champion", "costs / champion"}
    assert set(failed(gates(case(**nothing, **CAUSES["a broken budget"][0])))) == {"budget"}


def test_memory_of_a_gpu_that_was_not_told_is_said() -> None:
    (gate,) = [
        one for one in gates(case(**{f"{COST}__device": "gpu"})) if one.name == "GPU memory / champion"
    ]
    assert gate.verdict == "not asked" and gate.found.startswith("NVML did not tell it")


def test_a_floor_for_no_slice_is_told() -> None:
    params = ASKED.params.model_copy(update={"slice_floors": {"feet": 50.0}})
    assert "there are all, small" in failed(gates(case(params=params)))["recall feet"].found


def test_the_table_says_by_how_much() -> None:
    text = table(gates(case(**CAUSES["a slowed runtime"][0])))
    (line,) = [line for line in text.splitlines() if line.endswith("FAILS")]
    assert line.split() == [
        "latency",
        "/",
        "champion",
        "cpu-x86",
        "1.33",
        "×",
        "at",
        "worst,",
        "1.30",
        "×,",
        "2.40",
        "ms",
        "≤",
        "1.10",
        "×",
        "-0.23",
        "FAILS",
    ]


finite = st.floats(-1e6, 1e6)


@settings(max_examples=40, deadline=None)
@given(finite, finite)
def test_margins_have_the_sign_of_the_verdict(value: float, bound: float) -> None:
    for gate in (at_least("x", value, bound, form=str), at_most("x", bound, value, form=str)):
        assert gate.margin is not None and (gate.margin >= 0) == (gate.verdict == "holds") == (value >= bound)
    assert at_least("x", float("inf") - float("inf"), bound, form=str).verdict == "fails"
