"""Two models on the same images, and what the stage `compare` writes of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import compare
from rtmpose.config import EvaluateParams
from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.manifest import manifest_digest
from rtmpose.data.shards.write import write_eval_shards
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.e2e import EndToEnd
from rtmpose.deploy.quantize import openvino as quantized
from rtmpose.deploy.quantize.gate import Judge
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.targets import load_target
from rtmpose.descriptors import load_dataset
from rtmpose.files import sha256_of
from rtmpose.promotion.comparison import Arena
from rtmpose.promotion.files import Deployed
from tests.deploy.conftest import files
from tests.deploy.support import card, relabelled

__all__ = ["files"]

TARGET, IMAGES = load_target("cpu-x86"), 5


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    root, dataset = tmp_path_factory.mktemp("set"), load_dataset("coco17")
    counts = {"train": 1, "val": IMAGES}
    render_dataset(root / "raw", "coco17", images=counts, size=(160, 120), seed=1, workers=1)
    images = list(read_images(dataset, root / "raw", "val"))
    write_eval_shards(images, root / "val", dataset=dataset, split="val", workers=1)
    return Arena(Judge(card(), {"easy": root / "val"}, EvaluateParams(), times=100))


def test_a_model_beside_itself_loses_nothing(arena: Arena, files: ModelFiles) -> None:
    model = Deployed(files, card(), {"cpu-x86": "onnxruntime_fp32"})
    found = arena.accuracy(TARGET, model, model)
    one = found.sets["easy"]
    assert one.difference is not None and (one.difference.low, one.difference.high) == (0, 0)
    assert one.images == IMAGES and one.sha256 == one.champion_sha256
    assert one.sha256 == manifest_digest(arena.judge.sets["easy"])
    assert found.files == {"rtmpose.onnx": sha256_of(files.onnx)}
    assert {"all", "small", "crowded", "occluded", "head", "arms", "legs"} == set(one.slices)
    head = one.slices["head"]
    assert head.persons >= IMAGES and head.difference is not None and head.difference.low == 0
    alone = arena.accuracy(TARGET, model, None)
    assert alone.sets["easy"].difference is None and alone.not_compared is None and len(arena.known) == 1


def test_who_cannot_be_compared_says_why(arena: Arena, files: ModelFiles) -> None:
    model = Deployed(files, card(), {"cpu-x86": "onnxruntime_fp32"})
    renamed = replace(
        model, card=card().model_copy(update={"keypoint_names": ("tail", *card().keypoint_names[1:])})
    )
    reasons = {
        "the champion's points are others": renamed,
        "the champion's onnxruntime_bf16 is not possible here": replace(
            model, picked={"cpu-x86": "onnxruntime_bf16"}
        ),
        "nothing of the champion passed": replace(model, picked={"cpu-x86": None}),
    }
    for reason, other in reasons.items():
        found = arena.accuracy(TARGET, model, other)
        assert str(found.not_compared).startswith(reason) and found.sets["easy"].difference is None
        assert found.champion_picked == other.picked["cpu-x86"]
    nothing = arena.accuracy(TARGET, replace(model, picked={"cpu-x86": None}), model)
    assert nothing.picked is None and nothing.sets == {}
    assert model.picked_for(load_target("rpi5")) == "onnxruntime_fp32"  # its reference


def test_a_card_with_another_sigma_is_a_problem(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    shutil.copy(files.onnx, "models/rtmpose.onnx")
    Path("models/receipt.json").write_text("{}")
    (line,) = compare.problems(read_card(compare.ONNX))
    assert line.startswith("models/receipt.json: says no sigma, which SimCC is trained with")
    Path("models/receipt.json").write_text(json.dumps({"sigma": [4.9, 5.66]}))
    for sigma, count in (([4.9, 5.66], 0), ([9.0, 9.0], 1)):
        shutil.copy(relabelled(files, tmp_path, sigma=sigma), "models/rtmpose.onnx")
        found = compare.problems(read_card(compare.ONNX))
        assert len(found) == count and all("its card says σ [9.0, 9.0] bins" in line for line in found)
    shutil.copy(relabelled(files, tmp_path, sigma=[4.9, 5.66], skeleton="aic"), "models/rtmpose.int8.onnx")
    shutil.copy(relabelled(files, tmp_path, sigma=[4.9, 5.66]), "models/rtmpose.onnx")
    asked: list[str] = []  # the files whose cards are made elsewhere

    def told(path: Path) -> ModelCard:
        asked.append(path.name)
        return read_card(Path("models/rtmpose.onnx")).model_copy(update={"skeleton": "aic"})

    for name in ("rtmpose.e2e.onnx", "rtmpose.int8.xml"):
        Path("models", name).touch()
    monkeypatch.setattr(quantized, "card_of", told)
    monkeypatch.setattr(EndToEnd, "open", lambda path: EndToEnd(None, told(path)))
    line, *others = compare.problems(read_card(compare.ONNX))
    assert others == [f"{name}: its card says skeleton aic, the exported model's coco17" for name in asked]
    assert asked == ["rtmpose.e2e.onnx", "rtmpose.int8.xml"]
    assert line == "rtmpose.int8.onnx: its card says skeleton aic, the exported model's coco17"
