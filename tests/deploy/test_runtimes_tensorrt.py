"""TensorRT without a GPU: TensorRT-RTX builds engines here, and where they are kept is plain bookkeeping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from rtmpose.deploy.quantize.onnx import Quantizer, Recipe, save_quantized
from rtmpose.deploy.runtimes.base import ModelFiles, NotPossible
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.runtimes.tensorrt import build, engine_path, kept_engine
from rtmpose.files import UserError
from tests.support import det_input


@pytest.fixture(scope="module")
def trt() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is the extra `tensorrt-rtx`")


def test_an_engine_is_built_without_a_gpu(files: ModelFiles, trt: Any) -> None:
    plan = build(trt, files.onnx, read_card(files.onnx), batch=2, capability="SM89")
    assert len(plan) > 6e6


def test_halves_are_built_without_a_gpu(files: ModelFiles, half_file: Path, trt: Any) -> None:
    assert len(build(trt, half_file, read_card(files.onnx), batch=1, capability="SM89")) > 3e6


def test_int8_is_built_where_it_has_no_zero_points(files: ModelFiles, trt: Any, tmp_path: Path) -> None:
    """TensorRT reads the symmetric form, and not the one for CPUs."""
    own, inputs = read_card(files.onnx), det_input((2, 3, 128, 96))
    with Quantizer(files.onnx, inputs) as quantizer:
        for name, recipe in {"own": Recipe(False, symmetric=True), "cpu": Recipe(False)}.items():
            save_quantized(quantizer.quantized(recipe), tmp_path / f"{name}.onnx", own, files.onnx)
    assert len(build(trt, tmp_path / "own.onnx", own, batch=1, capability="SM89")) > 3e6
    with pytest.raises(NotPossible, match=r"TensorRT cannot read .*cpu\.onnx: "):
        build(trt, tmp_path / "cpu.onnx", own, batch=1, capability="SM89")


def test_a_network_that_is_not_read_has_tensorrts_reason(files: ModelFiles, trt: Any, tmp_path: Path) -> None:
    model = onnx.load(str(files.onnx))
    next(node for node in model.graph.node if node.op_type == "Sigmoid").op_type = "Riddle"
    onnx.save(model, str(tmp_path / "riddle.onnx"))
    with pytest.raises(NotPossible, match=r"TensorRT cannot read .*riddle\.onnx: .*Riddle"):
        build(trt, tmp_path / "riddle.onnx", read_card(files.onnx), batch=1, capability="SM89")


def test_another_models_card_is_refused(files: ModelFiles, trt: Any) -> None:
    card = read_card(files.onnx).model_copy(update={"input_size": (64, 96)})
    with pytest.raises(UserError, match=r"rtmpose\.onnx: 'input' is 3x128x96, by its metadata 3x96x64"):
        build(trt, files.onnx, card, batch=1, capability="SM89")


def test_an_engine_is_kept_for_one_gpu_version_file_and_batch(tmp_path: Path) -> None:
    path = tmp_path / "rtmpose.fp16.onnx"
    path.write_bytes(b"one")
    asked: dict[str, Any] = {"gpu": "NVIDIA H100 80GB", "capability": (9, 0), "version": "11.4.0", "batch": 1}
    place = engine_path(path, **asked)
    assert place.parent == tmp_path and place.name.startswith("rtmpose.fp16.NVIDIA-H100-80GB-sm90-trt11.4.0-")
    others: list[dict[str, Any]] = [
        {"gpu": "NVIDIA A100"}, {"capability": (8, 9)}, {"version": "10.3.0"}, {"batch": 8}
    ]  # fmt: skip
    places = {engine_path(path, **asked | change) for change in others}
    path.write_bytes(b"two")
    assert len(places | {place, engine_path(path, **asked)}) == 6


def test_a_kept_engine_is_opened_and_a_damaged_one_built_anew(tmp_path: Path) -> None:
    place, built = tmp_path / "one.engine", []

    def make() -> bytes:
        built.append(1)
        return b"plan"

    def opened(plan: bytes) -> str | None:
        return "engine" if plan == b"plan" else None

    assert kept_engine(place, make, opened) == kept_engine(place, make, opened) == "engine"
    assert len(built) == 1
    place.write_bytes(b"pla")
    assert kept_engine(place, make, opened) == "engine" and place.read_bytes() == b"plan"
    with pytest.raises(NotPossible, match="cannot open the engine"):
        kept_engine(tmp_path / "two.engine", lambda: b"nonsense", opened)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.engine"]
