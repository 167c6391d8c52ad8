"""The checks of `make gpu-check` on a CPU and small, as far as a CPU can make them."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from rtmpose.deploy.runtimes.base import ModelFiles
from tests.support import ROOT

CPU = torch.device("cpu")
BENCHMARKS = str(ROOT / "benchmarks")
# What a machine that has PyTorch alone lacks of what the product imports.
OTHERS = (
    *("pydantic", "yaml", "numpy", "cv2", "scipy", "onnx", "onnxruntime", "openvino", "ray", "mlflow"),
    *("webdataset", "albumentations", "psutil", "pycocotools", "matplotlib"),
)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = list(sys.path)
    import gpu_check

    yield gpu_check
    sys.path[:] = before


def tiny(check: ModuleType) -> Any:
    return check.Scale(
        size="t",
        input_size=(64, 64),
        rows=4,
        steps=1,
        slices=6,
        ways=("bf16", "amp"),
        images=8,
        loader_workers=1,
        calls=10,
    )


def test_without_a_gpu_one_line_says_so(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--out", str(tmp_path / "out.json")])
    assert check.main() == 0
    assert capsys.readouterr().out.count("\n") == 1 and not list(tmp_path.iterdir())


def test_batch_norm_of_two_processes_is_that_of_the_whole_batch(check: ModuleType) -> None:
    found = check.sync_bn(CPU, tiny(check))
    assert found["processes"] == 2 and 0 < found["max_diff"] < 1e-4
    assert {"output", "input's gradient", "running_var", "gradient of weight"} <= set(found["by_tensor"])


def test_training_steps_are_timed_and_compared(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    found = check.checked("train_step", CPU, tiny(check), left=1.0)
    assert found["bf16"]["samples_per_s"] > 0 and found["bf16"]["ratio"] > 0
    low, high = found["bf16"]["ratio_interval"]
    assert low <= found["bf16"]["ratio"] <= high and found["amp"]["ratio"] == 1
    first = [values[0] for values in found["losses"].values()]
    assert first[0] == pytest.approx(first[1], rel=0.02)
    json.dumps(found, allow_nan=False)

    import gpu.training

    def other(way: str, *_: object) -> Any:
        return lambda batch: torch.tensor(1.0 if way == "amp" else 2.0)

    monkeypatch.setattr(gpu.training, "_trainer", other)
    assert "first losses differ" in check.checked("train_step", CPU, tiny(check), left=1.0)["failed"]


def test_pytorch_alone_is_enough_for_what_is_trained(check: ModuleType) -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({OTHERS}))  # Python takes None as: not there
sys.path[:0] = [{BENCHMARKS!r}]
import json, torch, gpu_check
scale = gpu_check.Scale(size="t", input_size=(64, 64), rows=2, steps=1, slices=2, ways=("bf16", "amp"))
found = gpu_check.report(["train_step", "data_wait", "tensorrt"], torch.device("cpu"), scale)
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["train_step"]["bf16"]["samples_per_s"] > 0, found
    assert "pydantic" in found["data_wait"]["left_out"] and "pydantic" in found["tensorrt"]["left_out"]


def test_updates_on_rendered_people_wait_for_data(check: ModuleType) -> None:
    found = check.checked("data_wait", CPU, replace(tiny(check), rows=2), left=1.0)
    assert 0 <= found["data_wait"] <= 1 and found["samples_per_s"] > 0, found


def test_an_exported_file_is_compared_with_pytorch(
    check: ModuleType, files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu.exported

    found = gpu.exported.beside_pytorch("onnxruntime", files, CPU, tiny(check))
    assert found["device"] == "CPUExecutionProvider"
    for batch in ("fp32_batch1", "fp32_batch8"):
        assert found[batch]["p50_ms"] > 0 and 0 < found[batch]["off"] < 1e-4
    with pytest.raises(check.LeftOut):
        gpu.exported.beside_pytorch("tensorrt", files, CPU, tiny(check))
    monkeypatch.setattr(gpu.exported, "MOST_OFF", {"fp32": 1e-12})
    with pytest.raises(AssertionError, match="onnxruntime in fp32 is off by"):
        gpu.exported.beside_pytorch("onnxruntime", files, CPU, tiny(check))


def test_a_nan_in_any_output_is_no_small_difference(check: ModuleType) -> None:
    import gpu.exported

    good, bad = np.ones((1, 2)), np.array([[1.0, np.nan]])
    assert gpu.exported._off([good, good], [good, good]) == 0.0
    for outputs in ([good, bad], [bad, good]):
        assert not gpu.exported._off(outputs, [good, good]) < 1.0


def test_what_fails_or_is_left_out_is_told_and_the_rest_goes_on(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(*_: object) -> None:
        importlib.import_module("a_package_that_is_not_there")

    def lacks_ours(*_: object) -> None:
        importlib.import_module("rtmpose.not_there")

    def breaks(*_: object) -> None:
        raise ValueError("on\ntwo lines")

    checks = {"lacks": lacks, "lacks_ours": lacks_ours, "breaks": breaks, "works": lambda *_: {"x": 1}}
    monkeypatch.setattr(check, "CHECKS", checks)
    found = check.report(checks, CPU, tiny(check))
    assert found["lacks"] == {"left_out": "No module named 'a_package_that_is_not_there'"}
    assert found["lacks_ours"]["failed"].startswith("ModuleNotFoundError: No module named 'rtmpose")
    assert found["breaks"] == {"failed": "ValueError: on two lines"}
    assert found["works"]["x"] == 1 and found["device"]["type"] == "cpu"
    assert check.checked("works", CPU, tiny(check), left=0.0) == {"left_out": "the time was up"}
