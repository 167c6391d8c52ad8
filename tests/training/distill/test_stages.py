"""Finetuning with a second stage: the better of both heads is handed on, and the receipt says which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rtmpose.config import DistillParams, Params, load_params
from rtmpose.data.stream.mix import Mix
from rtmpose.training.distill import stages
from rtmpose.training.distill.stages import head_params, run_finetune
from rtmpose.training.job import Job
from tests.support import ROOT


def job_of(stage: str, params: Params, init: Path | None, teacher: Path | None) -> Job:
    """A job that is never run."""
    return Job(
        stage=stage, params=params, precision="fp32", mix=Mix((), Path(), {}), store=Path(), token="",
        run_id="", tracking_uri="", init=init, sigma=None, tau=0.1, teacher=teacher,
    )  # fmt: skip


def with_distill(distill: DistillParams | None, **changes: Any) -> Params:
    params = load_params(ROOT / "params.yaml")
    update = {"distill": distill} | changes
    return params.model_copy(update={"finetune": params.finetune.model_copy(update=update)})


COUNTS = {
    "finetune": {"steps": 100, "samples": 6400, "best_epoch": 9},
    "head": {"steps": 20, "samples": 1280, "best_epoch": 2},
}


class Stages:
    """Stands for training: each stage leaves its name as weights, and the AP that it is told."""

    def __init__(self, first: float, second: float) -> None:
        self.ap = {"finetune": first, "head": second}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, stage: str, params: Params, **rest: Any) -> dict[str, Any]:
        self.asked.append((stage, {"params": params} | rest))
        rest["weights"].write_text(stage)
        content = {"stage": stage, "best_AP": self.ap[stage], "store": f"runs/{stage}"}
        content |= {"teacher": str(rest["teacher"]), "teacher_sha256": "0", "run_id": stage, **COUNTS[stage]}
        rest["receipt"].write_text(json.dumps(content))
        return content


def finetuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params, train: Stages
) -> dict[str, Any]:
    monkeypatch.setattr(stages, "run_stage", train)
    weights, receipt = tmp_path / "w.pt", tmp_path / "r.json"
    found, curves = run_finetune(params, mix=Path("mix.json"), init=None, weights=weights, receipt=receipt)
    assert curves["stage"] == "finetune" and json.loads(receipt.read_text()) == found
    assert weights.read_text() == found["stage"] and {path.name for path in tmp_path.iterdir()} == {
        "w.pt",
        "r.json",
    }
    return found


def test_without_distillation_there_is_one_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = Stages(0.5, 0.9)
    assert finetuned(tmp_path, monkeypatch, with_distill(None), train)["stage"] == "finetune"
    assert [stage for stage, _ in train.asked] == ["finetune"] and train.asked[0][1]["teacher"] is None


@pytest.mark.parametrize(("second", "taken"), [(0.6, True), (0.5, True), (0.4, False)])
def test_the_better_head_is_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: float, taken: bool
) -> None:
    train = Stages(0.5, second)
    params = with_distill(DistillParams(teacher="/weights/teacher.pt"))
    found = finetuned(tmp_path, monkeypatch, params, train)
    assert found["stage"] == ("head" if taken else "finetune")
    head = {"taken": taken, "store": "runs/head", "run_id": "head", "best_AP": second, "first_AP": 0.5}
    assert found["head"] == head | COUNTS["head"]
    assert found["run_id"] == found["stage"] and COUNTS["finetune"].items() <= found.items()
    assert found["teacher"] == "/weights/teacher.pt", "the receipt names the teacher of the first stage"
    (_, first), (_, head) = train.asked
    assert first["teacher"] == Path("/weights/teacher.pt")
    assert head["teacher"] == head["init"] == tmp_path / "w.pt"


def test_no_second_stage_where_none_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = Stages(0.5, 0.9)
    params = with_distill(DistillParams(teacher="/weights/teacher.pt", head_share=0.0))
    finetuned(tmp_path, monkeypatch, params, train)
    assert [stage for stage, _ in train.asked] == ["finetune"]


@pytest.mark.parametrize(("share", "epochs", "weak"), [(0.2, 60, 6), (1e-3, 1, 0), (1.0, 300, 30)])
def test_the_fresh_head_gets_its_share(share: float, epochs: int, weak: int) -> None:
    params = with_distill(DistillParams(head_share=share), epochs=300, weak_epochs=30, evaluate_every=10)
    found = head_params(params).finetune
    assert (found.epochs, found.weak_epochs, found.freeze) == (epochs, weak, ["backbone."])
    assert found.evaluate_every == min(10, epochs) and found.distill is None
    model = params.model.model_copy(update={"neck": "rtmw"})
    necked = head_params(params.model_copy(update={"model": model}))
    assert necked.finetune.freeze == ["backbone.", "neck."]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"head_share": 0.0}, "no teacher and no head_share"),
        ({"teacher": "t.pt", "feature": 0.0, "logit": 0.0}, "the teacher would have no say"),
        ({"teachers": "t.pt"}, "Extra inputs"),
    ],
)
def test_distillation_that_does_nothing_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DistillParams.model_validate(given)


def test_distillation_needs_vectors() -> None:
    content = load_params(ROOT / "params.yaml").model_dump()
    content["model"]["head"] = "heatmap"
    content["finetune"]["distill"] = {"teacher": "t.pt"}
    with pytest.raises(ValueError, match=r"finetune\.distill needs model\.head simcc"):
        Params.model_validate(content)
