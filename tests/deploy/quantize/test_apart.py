"""Int8 in another environment: the head is left out, a failure is a reason that leaves nothing, and a file
counts for the model that it was made of.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from rtmpose.cli.app import app
from rtmpose.config import QuantizeParams
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.quantize import apart, apart_program, run
from rtmpose.deploy.quantize.apart import APART, Apart, quantize_apart
from rtmpose.deploy.quantize.attempt import Attempt
from rtmpose.deploy.quantize.calibration import Calibration
from rtmpose.deploy.quantize.gate import judged
from rtmpose.deploy.quantize.run import Trial, Tried, every_attempt, quantize_for_apart
from rtmpose.deploy.quantize.sensitivity import Sensitivity
from rtmpose.deploy.runtimes import apart as runtimes
from rtmpose.deploy.runtimes.base import ModelFiles, NotPossible
from rtmpose.deploy.runtimes.session import open_session
from tests.deploy.quantize.test_gate import figures
from tests.support import det_input

INPUTS = np.zeros((4, 3, 8, 8), np.float32)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 2, 3), nn.ReLU())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.backbone(images))
        return outputs


class NotesAll:
    """A quantizer that notes every operation."""

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        for node in model.graph.nodes:
            node.meta["quantization_annotation"] = "int8"
        return model


def test_the_head_is_left_out(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Small(), (torch.from_numpy(INPUTS[:1]),)), tmp_path / "n.pt2")
    model: Any = torch.export.load(tmp_path / "n.pt2").module()
    quantizer: Any = NotesAll()
    apart_program.keep_float(quantizer, ["head"])
    noted = quantizer.annotate(model)
    calls = [node for node in noted.graph.nodes if node.op == "call_function" and "aten" in str(node.target)]
    kept = [node for node in calls if "quantization_annotation" not in node.meta]
    assert [str(node.target) for node in kept] == ["aten.conv2d.default", "aten.relu.default"]
    assert len(calls) == 3


def test_what_xnnpack_leaves_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions that it does not take would be computed by slow reference kernels, without a word."""
    left = SimpleNamespace(op="call_function", target="aten.convolution.default")
    taken = SimpleNamespace(op="call_function", target="executorch_call_delegate")
    for name in ("", ".xnnpack.partition.xnnpack_partitioner", ".xnnpack.quantizer.xnnpack_quantizer"):
        monkeypatch.setitem(sys.modules, f"executorch.backends{name}", MagicMock())
    for nodes, reason in (([taken], None), ([taken, left], "XNNPACK does not take aten.convolution.default")):
        exir, target = MagicMock(), tmp_path / "m.pte"
        exir.to_edge_transform_and_lower().exported_program().graph.nodes = nodes
        monkeypatch.setitem(sys.modules, "executorch.exir", exir)
        example = (torch.from_numpy(INPUTS[:1]),)
        monkeypatch.setattr(apart_program, "quantized", lambda *_, example=example: (Small(), example))
        if reason is None:
            apart_program.for_executorch({"target": str(target)})
            assert target.is_file()
            target.unlink()
            continue
        with pytest.raises(RuntimeError, match=reason):
            apart_program.for_executorch({"target": str(target)})
        assert not target.exists()


@pytest.mark.parametrize(
    ("inputs", "weights", "quantised"),
    [(np.int8, np.int8, True), (np.float32, np.int8, False), (np.float32, np.float32, False)],
)
def test_a_litert_file_without_int8_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, inputs: type, weights: type, quantised: bool
) -> None:
    module = MagicMock()
    opened = module.Interpreter.return_value
    types = [inputs, weights, np.int32]
    opened.get_tensor_details.return_value = [{"index": i, "dtype": one} for i, one in enumerate(types)]
    opened._get_ops_details.return_value = [
        {"op_name": "CONV_2D", "inputs": np.array([0, 1, 2])}, {"op_name": "MUL", "inputs": np.array([2, 2])}
    ]  # fmt: skip
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    if quantised:
        apart_program.refuse_float("m.tflite")
        return
    with pytest.raises(RuntimeError, match="none of 1 convolutions is quantised to int8"):
        apart_program.refuse_float("m.tflite")


@pytest.fixture
def own(files: ModelFiles, tmp_path: Path) -> ModelFiles:
    """A copy of the exported model, to change and to write beside."""
    assert files.weights is not None
    folder = tmp_path / "own"
    folder.mkdir()
    for path in (files.onnx, files.weights):
        shutil.copy(path, folder)
    return ModelFiles(folder / files.onnx.name, folder / files.weights.name)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program that quantises, to be written by a test; this environment stands for the runtimes'."""
    for module in (apart, runtimes):
        monkeypatch.setattr(module, "python_of", lambda runtime: Path(sys.executable))
    monkeypatch.setattr(apart, "PROGRAM", tmp_path / "program.py")
    return tmp_path / "program.py"


WRITES = """
import json, os, sys
about = json.loads(sys.argv[2])
assert all(os.path.exists(about[name]) for name in ("source", "inputs"))
open(about["target"], "a").write(f"{sys.argv[1]} {about['kept_float']}")
"""


def test_sensitive_modules_stay_in_float_where_the_gate_refuses(
    program: Path, own: ModelFiles, own_card: ModelCard, calibration: Calibration,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    program.write_text(WRITES)
    monkeypatch.setattr(Trial, "tried", lambda trial, one, path: judged(one, figures(-1.0, -2.0)))
    kept = ["backbone.stem", "backbone.stage4.2"]
    found = quantize_for_apart(Trial(own, own_card, None), calibration, "litert", kept)
    assert [one.precisions and one.precisions["float32"] for one in found] == [["head"], ["head", *kept]]
    assert found[1].recipe.endswith("float32: head, backbone.stem, backbone.stage4.2")
    assert own.form("int8", ".tflite").read_text() == "litert ['head', 'backbone.stem', 'backbone.stage4.2']"


def test_names_of_tensors_fall_within_their_module() -> None:
    name = "net.CSPNeXt_backbone/torch.Sequential_stage4/net.CSPLayer_2/net.ConvAct_0;1"
    for module in ("backbone", "backbone.stage4", "backbone.stage4.2"):
        assert re.match(apart_program.scope(module), name)
    for module in ("head", "backbone.stage3", "backbone.stage4.1", "backbone.stage4.0", "stage4.CSPLayer"):
        assert not re.match(apart_program.scope(module), name)


def test_a_failure_is_a_reason_and_leaves_nothing(
    program: Path, own: ModelFiles, own_card: ModelCard, calibration: Calibration
) -> None:
    program.write_text("import sys\nsys.exit('first\\nXNNPACK does not take aten.x')")
    before = {path.name for path in own.onnx.parent.iterdir()}
    told: list[str] = []
    [found] = quantize_for_apart(Trial(own, own_card, None, tell=told.append), calibration, "executorch")
    assert "not run here: executorch: the conversion failed" in found.refused[0]
    assert found.refused[0].endswith("XNNPACK does not take aten.x") and told == [run.line(found)]
    left = {path.name for path in own.onnx.parent.iterdir()} - before
    assert left <= {".rtmpose.int8.executorch.json.lock"}


def test_a_file_counts_for_the_model_that_it_was_made_of(program: Path, own: ModelFiles) -> None:
    program.write_text(WRITES)
    inputs = det_input((2, 3, 128, 96))
    with pytest.raises(
        NotPossible, match=r"rtmpose\.int8\.tflite: no such file of this model; .*--also litert"
    ):
        open_session("litert", own, "int8")
    path = quantize_apart("litert", own, inputs, "32 crops")
    assert path.read_text() == "litert ['head']"
    made = path.stat().st_mtime_ns
    assert quantize_apart("litert", own, inputs, "32 crops").stat().st_mtime_ns == made
    assert quantize_apart("litert", own, inputs, "64 crops").stat().st_mtime_ns > made
    assert runtimes.convert("litert", own, "int8") == (path,)
    runtimes.remove_others(own)
    assert path.is_file()
    path.write_text("another")
    with pytest.raises(NotPossible, match="no such file of this model"):
        runtimes.convert("litert", own, "int8")
    assert quantize_apart("litert", own, inputs, "64 crops").read_text() != "another"
    own.onnx.write_bytes(own.onnx.read_bytes() + b"\0")
    with pytest.raises(NotPossible, match="no such file of this model"):
        runtimes.convert("litert", own, "int8")
    runtimes.remove_others(own)
    assert {each.name for each in path.parent.iterdir() if "int8" in each.name} <= {
        ".rtmpose.int8.litert.json.lock"
    }


def test_targets_that_ask_for_it_have_it_tried(
    own: ModelFiles, own_card: ModelCard, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Apart] = []

    def noted(trial: Trial, used: Calibration, runtime: Apart, kept: tuple[str, ...]) -> list[Attempt]:
        asked.append(runtime)
        return [Attempt(runtime=runtime, precision="int8", recipe="own")]

    by_onnx, by_nncf = (
        Attempt(runtime=name, precision="int8", recipe="own") for name in ("onnxruntime", "openvino")
    )
    sensitivity = Sensitivity(all_px=0.0, without_px={})
    monkeypatch.setattr(run, "quantize_for_apart", noted)
    monkeypatch.setattr(run, "quantize_for_onnxruntime", lambda *_, **__: ([by_onnx], sensitivity))
    monkeypatch.setattr(run, "quantize_for_openvino", lambda *_: [by_nncf])
    trial = Trial(own, own_card, None)
    cases: list[list[Apart]] = [["executorch"], ["litert", "executorch"], []]
    for tried in cases:
        asked.clear()
        targets: list[Tried] = [(name, "int8", "cpu") for name in tried]
        found, _ = every_attempt(trial, targets, calibration, INPUTS, QuantizeParams())
        assert asked == sorted(tried) and [one.runtime for one in found[2:]] == asked


def test_a_target_with_tensorrt_has_its_form_tried(
    own: ModelFiles, own_card: ModelCard, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Attempt(runtime="tensorrt", precision="int8", device="gpu", recipe="own")
    asked: list[Any] = []
    sensitivity = Sensitivity(all_px=1.0, without_px={"backbone.stem": 0.1})

    def noted(trial: Trial, used: Calibration, tried: list[Tried], kept: tuple[str, ...], **_: Any) -> Any:
        asked.append((tried, kept))
        return [made]

    others = made.model_copy(update={"runtime": "onnxruntime"})
    monkeypatch.setattr(run, "quantize_for_tensorrt", noted)
    monkeypatch.setattr(run, "quantize_for_onnxruntime", lambda *_, **__: ([others], sensitivity))
    monkeypatch.setattr(run, "quantize_for_openvino", lambda *_: [others])
    wanted: list[Tried] = [("tensorrt", "int8", "gpu"), ("onnxruntime-tensorrt", "int8", "gpu")]
    found, _ = every_attempt(Trial(own, own_card, None), wanted, calibration, INPUTS, QuantizeParams())
    assert asked == [(wanted, ("backbone.stem",))] and found == [others, others, made]
    every_attempt(
        Trial(own, own_card, None), [("onnxruntime", "int8", "cpu")], calibration, INPUTS, QuantizeParams()
    )
    assert len(asked) == 1


def test_the_command_refuses_other_names(own: ModelFiles, shards: Path) -> None:
    options = ["--calibration", str(shards / "train"), "--also", "ncnn"]
    done = CliRunner().invoke(app, ["quantize", str(own.onnx), *options])
    assert done.exit_code and "--also ncnn: give executorch, litert or tensorrt" in str(done.exception)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", APART)
def test_the_real_thing(
    own: ModelFiles, own_card: ModelCard, calibration: Calibration, runtime: Apart
) -> None:
    """Where `rtmpose setup-runtime` has set one up."""
    inputs = calibration.inputs(own_card)[:8]
    try:
        quantize_apart(runtime, own, inputs, "8 crops")
    except NotPossible as reason:
        if "not set up" not in str(reason):
            raise
        pytest.skip(str(reason))
    session, exact = open_session(runtime, own, "int8"), open_session("onnxruntime", own)
    for ours, theirs in zip(session(inputs[:2]), exact(inputs[:2]), strict=True):
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.7
