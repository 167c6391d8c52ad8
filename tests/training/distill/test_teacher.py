"""A teacher is any SimCC network with the student's points and input, and nothing else; it names the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rtmpose.config import DistillParams, Params, load_params
from rtmpose.descriptors import load_skeleton
from rtmpose.files import UserError
from rtmpose.models import read_weights
from rtmpose.training.distill.teacher import load_teacher
from rtmpose.training.job import build_task, job_fingerprint, network
from tests.support import ROOT
from tests.training.distill.support import SIZE, saved_net
from tests.training.distill.test_stages import job_of

COCO = load_skeleton("coco17")


@pytest.mark.parametrize("options", [{}, {"gau": False, "kernel": 3}, {"neck": "rtmw"}])
def test_any_simcc_network_teaches(tmp_path: Path, options: dict[str, Any]) -> None:
    path = saved_net(tmp_path / "t.pt", **options)
    teacher = load_teacher(path, COCO, SIZE)
    lesson = teacher.lesson(torch.randn(2, 3, 64, 64))
    assert lesson.features.shape == (2, 384, 2, 2) and lesson.logits[0].shape == (2, 17, 128)
    assert not lesson.features.requires_grad and not any(
        p.requires_grad for p in teacher.network.parameters()
    )
    assert torch.equal(
        teacher.network.state_dict()["head.cls_x.weight"], read_weights(path)["head.cls_x.weight"]
    )


@pytest.mark.parametrize(
    ("options", "size", "said"),
    [
        ({"num_keypoints": 16}, SIZE, "predicts 16 points, the student 17 of coco17"),
        ({}, (96, 64), r"takes 64x64 px, the student 96x64"),
        (
            {"head": "heatmap", "hidden": 16},
            SIZE,
            "is a heatmap network; .* must be a whole network with SimCC",
        ),
    ],
)
def test_an_unlike_teacher_is_one_line(
    tmp_path: Path, options: dict[str, Any], size: tuple[int, int], said: str
) -> None:
    path = saved_net(tmp_path / "t.pt", **options)
    with pytest.raises(UserError, match=rf"^{path}: {said}[^\n]*$"):
        load_teacher(path, COCO, size)


def test_as_many_points_of_another_skeleton_are_refused(tmp_path: Path) -> None:
    """AP-10K's animals have as many points as COCO's people; a file with a note says which they are."""
    path = saved_net(tmp_path / "t.pt")
    weights = torch.load(path, weights_only=True)
    for names, fits in ((load_skeleton("ap10k").names, False), (COCO.names, True)):
        note = {"rtmpose": json.dumps({"keypoint_names": names})}
        torch.save({"meta": note, "state_dict": weights}, path)
        if fits:
            load_teacher(path, COCO, SIZE)
        else:
            with pytest.raises(UserError, match=r"predicts 17 points .*, the student 17 of coco17"):
                load_teacher(path, COCO, SIZE)


def with_distill(**changes: Any) -> Params:
    params = load_params(ROOT / "params.yaml")
    distill = DistillParams.model_validate({"teacher": "t.pt"} | changes)
    finetune = params.finetune.model_copy(update={"distill": distill})
    return params.model_copy(update={"finetune": finetune, "input_size": SIZE})


def test_a_teacher_and_its_weights_name_the_run(tmp_path: Path) -> None:
    mix, teacher = tmp_path / "mix.json", tmp_path / "t.pt"
    mix.write_text("{}")
    teacher.write_bytes(b"one")

    def name(params: Params, path: Path | None = teacher) -> str:
        return job_fingerprint("finetune", params, mix, None, 0.1, None, teacher=path)

    first = name(with_distill())
    assert first == name(with_distill(head_share=0.5)), "the second stage is a run of its own"
    assert first != name(with_distill(logit=0.2)) and first != name(with_distill(feature=0.1))
    assert name(with_distill(), None) == name(load_params(ROOT / "params.yaml").model_copy(
        update={"input_size": SIZE}), None), "without a teacher a run is what it was"  # fmt: skip
    teacher.write_bytes(b"other")
    assert first != name(with_distill())


def test_the_job_builds_both_stages(tmp_path: Path) -> None:
    teacher, params = saved_net(tmp_path / "t.pt"), with_distill()
    guided = build_task(job_of("finetune", params, None, teacher))
    assert guided.guide is not None and guided.only_training == "projection."
    assert build_task(job_of("finetune", params, None, None)).guide is None
    trained = read_weights(teacher)
    net, _ = network("head", params, teacher)
    for key, value in net.state_dict().items():
        same = torch.equal(value, trained[key])
        assert same or key.startswith("head."), key
    assert not torch.equal(net.state_dict()["head.cls_x.weight"], trained["head.cls_x.weight"])
    head = build_task(job_of("head", params, teacher, teacher))
    assert head.guide is not None and head.only_training is None
