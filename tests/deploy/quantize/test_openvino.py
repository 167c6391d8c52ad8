"""Int8 files for OpenVINO: the head is float, the card is inside, both files appear together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.origin import EXPORTED, belonging
from rtmpose.deploy.quantize import openvino as quantize
from rtmpose.deploy.quantize.attempt import Attempt
from rtmpose.deploy.quantize.calibration import Calibration
from rtmpose.deploy.quantize.gate import judged
from rtmpose.deploy.quantize.run import Trial, quantize_for_openvino
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.deploy.runtimes.openvino import head
from rtmpose.files import UserError
from tests.deploy.quantize.test_gate import figures

pytest.importorskip("nncf", reason="NNCF, of the extra `quantize`, is not installed")


@pytest.fixture(scope="module")
def model(files: ModelFiles, calibration: Calibration, own_card: ModelCard) -> ov.Model:
    return quantize.quantized(files.onnx, calibration.split(4)[0].inputs(own_card))


def test_the_head_is_float(model: ov.Model) -> None:
    found = quantize.precision_map(model)
    assert len(found["int8"]) == 37
    assert {"node_conv2d_37/WithoutBiases", "node_linear_3", "node_linear_4"} <= set(found["float32"])
    rounded = {one.get_friendly_name() for one in model.get_ordered_ops() if "FakeQuantize" in str(one)}
    assert rounded and not [name for name in head(model) if name in rounded]


def test_sensitive_parts_stay_in_float_where_the_gate_refuses(
    model: ov.Model, files: ModelFiles, calibration: Calibration, own_card: ModelCard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    kept: list[list[str]] = []

    def noted(source: Path, inputs: np.ndarray, kept_float: list[str]) -> ov.Model:
        kept.append(kept_float)
        return model

    monkeypatch.setattr(quantize, "save_quantized", lambda *_: None)
    monkeypatch.setattr(quantize, "quantized", noted)

    def tried(trial: Trial, attempt: Attempt, path: Path) -> Attempt:
        return judged(attempt, figures(-1.0, -2.0)) if "stage1" not in attempt.recipe else attempt

    monkeypatch.setattr(Trial, "tried", tried)
    trial, few = Trial(files, own_card, None), calibration.split(4)[0]
    first, second = quantize_for_openvino(trial, few, ["backbone.stage1.1"])
    assert first.refused and not second.refused and second.recipe.endswith("float32: head, backbone.stage1.1")
    convolutions = {one.get_friendly_name() for one in model.get_ordered_ops()}
    assert kept[0] == [] and {f"{name}/WithoutBiases" for name in kept[1]} & convolutions
    assert len(quantize_for_openvino(trial, few)) == 1


def test_both_files_and_the_card(
    model: ov.Model, files: ModelFiles, own_card: ModelCard, tmp_path: Path
) -> None:
    data = [{"name": "coco17", "sha256": "11", "licence": "CC BY 4.0"}]
    card = own_card.with_more(precision="int8", data=data)
    path = quantize.save_quantized(model, tmp_path / "deep" / "m.int8.xml", card, files.onnx)
    assert sorted(each.name for each in path.parent.iterdir()) == ["m.int8.bin", "m.int8.xml"]
    assert quantize.card_of(path) == card
    (tmp_path / "cut.xml").write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"cut\.xml: not a complete model .*run the quantize stage again"):
        quantize.card_of(tmp_path / "cut.xml")
    read = ov.Core().read_model(str(path))
    assert json.loads(read.get_rt_info(["rtmpose", "precision"]).value) == "int8"
    assert json.loads(read.get_rt_info(["rtmpose", "skeleton"]).value) == own_card.skeleton
    assert read.get_rt_info(EXPORTED.split(".")).value == belonging(files.onnx)[EXPORTED]
    compiled = ov.Core().compile_model(read, "CPU")
    found = compiled(np.zeros((1, 3, 128, 96), np.float32))
    assert found[compiled.output("simcc_x")].shape == (1, 17, 192)
    assert found[compiled.output("simcc_y")].shape == (1, 17, 256)


def test_what_cannot_be_written_leaves_nothing(
    model: ov.Model, files: ModelFiles, own_card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("Exception from src:\nno space")

    monkeypatch.setattr(ov, "save_model", full)
    with pytest.raises(UserError, match=r"m\.int8\.xml: cannot be written: .*no space.*; free space"):
        quantize.save_quantized(model, tmp_path / "m.int8.xml", own_card, files.onnx)
    assert list(tmp_path.iterdir()) == []
