"""Int8 files for ONNX Runtime: names and card are kept, the head is float, and what is sensitive stays so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest

from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.quantize import run, sensitivity
from rtmpose.deploy.quantize.attempt import Figure, SetFigures
from rtmpose.deploy.quantize.calibration import Calibration
from rtmpose.deploy.quantize.graph import HEAD, parts
from rtmpose.deploy.quantize.onnx import (
    Quantizer,
    Recipe,
    precision_map,
    save_quantized,
)
from rtmpose.deploy.quantize.run import Trial, Tried
from rtmpose.deploy.quantize.sensitivity import MOST_PARTS, Sensitivity, measure
from rtmpose.deploy.runtimes.base import ModelFiles, NotPossible, Placement, Session
from rtmpose.deploy.runtimes.onnx_form import onnx_form, remove_other_symmetric
from rtmpose.deploy.runtimes.onnxruntime import open_file, read_card
from rtmpose.files import UserError
from rtmpose.machine import needs_reduced_range
from rtmpose.targets import SimCC
from tests.deploy.support import other_weights
from tests.support import ROOT


@pytest.fixture(scope="module")
def inputs(calibration: Calibration, own_card: ModelCard) -> np.ndarray:
    return calibration.split(8)[0].inputs(own_card)


@pytest.fixture(scope="module")
def models(files: ModelFiles, inputs: np.ndarray) -> dict[str, onnx.ModelProto]:
    """The network with 7-bit weights, with 8-bit weights, with two parts in float, and for TensorRT."""
    kept = (HEAD, "backbone.stem", "backbone.stage4.2")
    recipes = {"seven": Recipe(True), "eight": Recipe(False), "kept": Recipe(True, kept_float=kept)}
    recipes["symmetric"] = Recipe(False, symmetric=True)
    with Quantizer(files.onnx, inputs) as quantizer:
        return {name: quantizer.quantized(recipe) for name, recipe in recipes.items()}


@pytest.fixture(scope="module")
def path(
    models: dict[str, onnx.ModelProto],
    files: ModelFiles,
    own_card: ModelCard,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    card = own_card.model_copy(update={"precision": "int8", "quantization": str(Recipe(True))})
    place = tmp_path_factory.mktemp("int8") / "deep" / "m.int8.onnx"
    return save_quantized(models["seven"], place, card, files.onnx)


def test_names_and_card_are_kept(path: Path, own_card: ModelCard, inputs: np.ndarray) -> None:
    session = open_file(path)
    assert [value.name for value in session.get_inputs()] == ["input"]
    assert [value.name for value in session.get_outputs()] == ["simcc_x", "simcc_y"]
    for batch in (1, 3):
        x, y = session.run(None, {"input": inputs[:batch]})
        assert x.shape == (batch, 17, 192) and y.shape == (batch, 17, 256) and np.isfinite(x).all()
    card = read_card(path)
    assert card.precision == "int8" and "7-bit weights (reduce_range" in str(card.quantization)
    assert card.model_copy(update={"precision": "fp32", "quantization": None}) == own_card


def test_the_head_is_float_and_the_backbone_is_not(
    models: dict[str, onnx.ModelProto], files: ModelFiles
) -> None:
    of_parts = parts(onnx.load(str(files.onnx)))
    found = precision_map(models["seven"])
    products = {node.name for node in models["seven"].graph.node if node.op_type in ("Conv", "MatMul")}
    assert set(found["int8"]) | set(found["float32"]) == products
    assert set(found["float32"]) == products & set(of_parts[HEAD]) and len(found["float32"]) == 8
    kept = precision_map(models["kept"])
    more = {*of_parts["backbone.stem"], *of_parts["backbone.stage4.2"]}
    assert set(kept["float32"]) == products & (set(of_parts[HEAD]) | more)
    # Nothing between the head's own operations is rounded either.
    made = {output: node for node in models["seven"].graph.node for output in node.output}
    head = [node for node in models["seven"].graph.node if node.name in of_parts[HEAD][1:]]
    assert len(head) == len(of_parts[HEAD]) - 1
    assert not [n.name for n in head if any("Dequantize" in made[i].op_type for i in n.input if i in made)]


def test_reduced_range_is_seven_bits(models: dict[str, onnx.ModelProto]) -> None:
    def largest(model: onnx.ModelProto) -> int:
        weights = (onnx.numpy_helper.to_array(each) for each in model.graph.initializer)
        return max(
            int(np.abs(each.astype(int)).max())
            for each in weights
            if each.dtype == np.int8 and each.ndim == 4
        )

    assert largest(models["seven"]) == 64 and largest(models["eight"]) == 127


def test_the_form_for_tensorrt_has_no_zero_points(models: dict[str, onnx.ModelProto]) -> None:
    def offsets(model: onnx.ModelProto) -> set[str]:
        values = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
        nodes = [node for node in model.graph.node if node.op_type.endswith("QuantizeLinear")]
        return {f"{values[n.input[2]].dtype} {bool(values[n.input[2]].any())}" for n in nodes}

    assert offsets(models["symmetric"]) == {"int8 False"} and "uint8 True" in offsets(models["eight"])
    assert precision_map(models["symmetric"]) == precision_map(models["eight"])


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", {"avx2"}, True),
        ("x86_64", {"avx2", "avx512f"}, True),
        ("x86_64", {"avx2", "avx512_vnni"}, False),
        ("x86_64", {"avx2", "avx_vnni"}, False),
        ("AMD64", set(), True),
        ("aarch64", {"asimd"}, False),
    ],
)
def test_the_cpu_chooses_the_range(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: set[str], expected: bool
) -> None:
    monkeypatch.setattr("rtmpose.machine.cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert needs_reduced_range() is expected


def test_a_part_that_is_not_there_is_one_line(files: ModelFiles, inputs: np.ndarray) -> None:
    with (
        Quantizer(files.onnx, inputs) as quantizer,
        pytest.raises(UserError, match=r"no part 'neck'.*only backbone"),
    ):
        quantizer.quantized(Recipe(True, kept_float=("neck",)))


def test_the_parts_hold_every_node_once(files: ModelFiles) -> None:
    model = onnx.load(str(files.onnx))
    found = parts(model)
    assert sorted(name for names in found.values() for name in names) == sorted(
        n.name for n in model.graph.node
    )
    assert next(iter(found)) == "backbone.stem" and list(found)[-1] == HEAD and "backbone.stage4.2" in found


def test_the_sensitive_parts_are_the_worst_first() -> None:
    without = {"a": 0.95, "b": 0.5, "c": 0.2, "d": 0.89, "e": 0.7}
    found = Sensitivity(all_px=1.0, without_px=without)
    assert found.sensitive() == ("c", "b", "e") and len(found.sensitive()) == MOST_PARTS
    assert Sensitivity(all_px=1.0, without_px={"a": 0.95, "d": 1.2}).sensitive() == ()


class Planted:
    """Stands for a quantizer of a network in which `b` alone is sensitive."""

    def __init__(self) -> None:
        self.parts, self.model = dict.fromkeys(("a", "b", HEAD)), 0.0

    def quantized(self, recipe: Recipe) -> float:
        return 0.1 if "b" in recipe.kept_float else 4.0


def test_sensitivity_finds_the_planted_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def outputs(model: float, probe: Any) -> tuple[np.ndarray, np.ndarray]:
        x = np.zeros((1, 1, 192), np.float32)
        x[..., 50 + round(2 * model)] = 1
        return x, np.eye(1, 256, 7, dtype=np.float32)[None]

    monkeypatch.setattr(sensitivity, "outputs_of", outputs)
    planted: Any = Planted()
    found = measure(planted, Recipe(True), np.zeros((1, 3, 8, 8), np.float32), SimCC((96, 128)), 60.0)
    assert found.sensitive() == ("b",) and found.all_px == pytest.approx(4.0)
    late = measure(planted, Recipe(True), np.zeros((1, 3, 8, 8), np.float32), SimCC((96, 128)), -1.0)
    assert late.unmeasured == ("a", "b") and late.without_px == {}


class Verdicts:
    """Stands for a reference: the first attempt loses too much, the second nothing."""

    def __init__(self) -> None:
        self.low = [-0.9, 0.0]

    def compared(self, network: Any) -> dict[str, SetFigures]:
        low, ap = self.low.pop(0), Figure(value=60, low=50, high=70)
        return {"easy": SetFigures(images=250, ap=ap, difference=Figure(value=0, low=low, high=0.1))}


def test_what_the_gate_refuses_is_tried_with_sensitive_parts_in_float(
    monkeypatch: pytest.MonkeyPatch,
    files: ModelFiles,
    own_card: ModelCard,
    calibration: Calibration,
    tmp_path: Path,
) -> None:
    known = Sensitivity(all_px=1.0, without_px={"backbone.stem": 0.1})
    monkeypatch.setattr(run, "measure", lambda *_: known)
    monkeypatch.setattr(run, "open_session", lambda *_, **__: Session(lambda images: (images,), "1", "cpu"))
    copy = tmp_path / "m.onnx"
    copy.write_bytes(files.onnx.read_bytes())
    reference: Any = Verdicts()
    data = [{"name": "coco17", "sha256": "11", "licence": "CC BY 4.0"}]
    trial = Trial(ModelFiles(copy), own_card.with_more(data=data), reference)
    used, probe = calibration.split(8)
    finetuned = other_weights(files, tmp_path / "finetuned.onnx")
    attempts, found = run.quantize_for_onnxruntime(trial, used, probe.inputs(own_card), source=finetuned)
    assert found == known and [bool(one.refused) for one in attempts] == [True, False]
    assert attempts[1].recipe.endswith("float32: head, backbone.stem")
    maps = [one.precisions for one in attempts]
    assert maps[0] is not None and maps[1] is not None
    assert len(maps[1]["float32"]) == len(maps[0]["float32"]) + 3
    card = read_card(onnx_form(trial.files, "int8"))  # it belongs to the exported file, not to the finetuned
    assert card.weight_bits == (7 if needs_reduced_range() else 8)
    assert "float32: head, backbone.stem" in str(card.quantization)
    assert used.sha256 in str(card.quantization) and card.data[0].licence == "CC BY 4.0"
    assert attempts[1].megabytes == pytest.approx(
        copy.with_suffix(".int8.onnx").stat().st_size / 1e6, abs=1e-3
    )


@pytest.mark.parametrize("runs_here", [True, False])
def test_the_form_for_tensorrt_is_judged_there_alone(
    monkeypatch: pytest.MonkeyPatch, files: ModelFiles, own_card: ModelCard, calibration: Calibration,
    tmp_path: Path, runs_here: bool,
) -> None:  # fmt: skip
    asked: list[tuple[str, str]] = []

    def opened(runtime: str, files: ModelFiles, precision: str, place: Placement, batch: int) -> Session:
        asked.append((runtime, place.device))
        if not runs_here:
            raise NotPossible("no GPU")
        return Session(lambda images: (images,), "1", "gpu")

    monkeypatch.setattr(run, "open_session", opened)
    copy, reference = tmp_path / "m.onnx", cast(Any, Verdicts())
    copy.write_bytes(files.onnx.read_bytes())
    trial = Trial(ModelFiles(copy), own_card, reference)
    tried: list[Tried] = [("tensorrt", "int8", "gpu")]
    attempts = run.quantize_for_tensorrt(trial, calibration.split(4)[0], tried, ["backbone.stem"])
    assert asked == [("tensorrt", "gpu")] * len(attempts)
    path = onnx_form(trial.files, "int8", "tensorrt")
    assert path.name == "m.int8.symmetric.onnx" and read_card(path).weight_bits == 8
    assert [bool(one.refused) for one in attempts] == ([True, False] if runs_here else [True])
    assert runs_here or attempts[0].refused == ("not run here: no GPU",)
    assert attempts[-1].megabytes == (
        pytest.approx(path.stat().st_size / 1e6, abs=1e-3) if runs_here else None
    )
    remove_other_symmetric(trial.files)
    assert path.is_file()
    copy.unlink()
    other_weights(files, copy)
    remove_other_symmetric(trial.files)
    assert not path.exists()


COMMAND = """
import os, sys, time
from pathlib import Path
import numpy as np, onnx
from rtmpose.deploy.quantize.onnx import Quantizer, Recipe, _Reader, save_quantized
from rtmpose.deploy.runtimes.onnxruntime import read_card

path, when = Path(sys.argv[1]), sys.argv[2]
def stop(*_, **__):
    os.write(1, b"there\\n")  # what is printed while it calibrates is not shown
    time.sleep(60)
if when == "calibrating":
    _Reader.get_next = stop
else:
    onnx.checker.check_model = stop
inputs = np.zeros((4, 3, 128, 96), np.float32)
with Quantizer(path, inputs) as quantizer:
    save_quantized(quantizer.quantized(Recipe(True)), path.with_suffix(".int8.onnx"), read_card(path), path)
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["calibrating", "written"])
def test_a_kill_leaves_nothing_half_written(files: ModelFiles, tmp_path: Path, when: str) -> None:
    copy = tmp_path / "m.onnx"
    copy.write_bytes(files.onnx.read_bytes())
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(copy), when], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() == "there"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert [found.name for found in tmp_path.glob("*.onnx")] == ["m.onnx"]
    assert not [
        p for p in tmp_path.iterdir() if not p.name.startswith((".", "rtmpose-ranges-", "ort.", "m.onnx"))
    ]
