from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import pytest
import yaml

from rtmpose.deploy import targets
from rtmpose.deploy.runtimes.apart import KINDS
from rtmpose.deploy.runtimes.base import Placement
from rtmpose.deploy.targets import Budget, Target, load_target
from rtmpose.files import UserError
from tests.support import ROOT

FILES = sorted((ROOT / "deploy_targets").glob("*.yaml"))


def text(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "deploy_targets" / "cpu-x86.yaml").read_text())
    return content | changes


def write(folder: Path, **changes: Any) -> str:
    path = folder / "target.yaml"
    path.write_text(yaml.safe_dump(text(**changes)))
    return str(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_target_reads_and_has_what_its_purpose_needs(path: Path) -> None:
    target = load_target(path.stem)
    assert target.name == path.stem
    # A budget of the target itself, on latency, throughput and memory, and one on accuracy.
    whole = [budget for budget in target.budgets if budget.runtime is None]
    assert {"p95_ms", "images_per_s", "memory_mb"} <= {name for one in whole for name in one.limits()}
    assert any(budget.ap_loss is not None for budget in target.budgets)
    # What everything is compared with is tried itself.
    tried = {spec.name: spec.precisions for spec in target.runtimes}
    assert target.reference.precision in tried[target.reference.runtime]
    for runtime in set(KINDS) & set(tried):  # nothing is tried, or has a budget, that it never has
        assert set(tried[runtime]) <= set(KINDS[runtime].precisions)
    hosted = {"cpu-x86": ("ubuntu-24.04",), "cpu-arm64": ("ubuntu-24.04-arm",)}
    assert target.runner == hosted.get(target.name, target.runner)
    assert target.name in hosted or "self-hosted" in target.runner


def test_all_targets_are_there() -> None:
    assert {path.stem for path in FILES} >= {
        *("cpu-x86", "cpu-arm64", "gpu-nvidia", "jetson", "rpi5", "rk3588", "apple", "android")
    }


def test_cpu_x86_covers_what_it_must() -> None:
    target = load_target("cpu-x86")
    assert {runtime.name for runtime in target.runtimes} >= {"pytorch", "onnxruntime", "openvino"}
    assert target.batch_sizes == (1, 8) and target.threads == (1, "all")
    assert target.placements()[-1] == Placement("cpu", len(os.sched_getaffinity(0)))
    assert load_target("gpu-nvidia").placements() == (Placement("gpu", 1),)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"colour": "red"}, "colour: unknown key"),
        ({"batch_sizes": []}, "batch_sizes"),
        ({"batch_sizes": [0]}, "batch_sizes.0"),
        ({"threads": ["some"]}, "threads.0"),
        ({"threads": [0]}, "threads.0"),
        ({"seconds": 0}, "seconds"),
        ({"runner": []}, "runner"),
        ({"runner": "ubuntu-24.04"}, "runner"),
        ({"architecture": "m68k"}, "architecture"),
        ({"system": "CP/M"}, "system"),
        ({"device": "tpu"}, "device"),
        ({"runtimes": [{"name": "abacus", "precisions": ["fp32"]}]}, r"runtimes.0.name"),
        ({"runtimes": [{"name": "openvino", "precisions": ["fp3"]}]}, r"runtimes.0.precisions.0"),
        ({"budgets": [{"p95_ms": 0}]}, r"budgets.0.p95_ms"),
        ({"budgets": [{"gpu_memory_mb": 9}]}, r".*budgets.0: gpu_memory_mb: this target's device is cpu"),
        ({"budgets": [{"p94_ms": 1}]}, r"budgets.0.p94_ms: unknown key"),
        ({"budgets": [{"batch": 1}]}, r"budgets.0: .*limits nothing; give one of p50_ms, p95_ms"),
        (
            {"budgets": [{"p95_ms": 9, "batch": 3}]},
            r".*budgets.0: .* batch=3: is not among",
        ),
        ({"budgets": [{"p95_ms": 9, "runtime": "rknn"}]}, r".*budgets.0: rknn .*is not among"),
        ({"reference": {"runtime": "abacus"}}, r"reference.runtime"),
    ],
)
def test_a_bad_target_is_one_line(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"target\.yaml: {key}") as caught:
        load_target(write(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_an_unknown_target_is_one_line() -> None:
    with pytest.raises(UserError, match=r"deploy_targets/abacus\.yaml: no such file"):
        load_target("abacus")


def test_a_target_of_another_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "ANDROID", tmp_path / "build.prop")
    monkeypatch.delenv("ANDROID_ROOT", raising=False)
    machine, system = "aarch64", "Linux"
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "system", lambda: system)
    load_target("cpu-arm64").refuse_elsewhere()
    with pytest.raises(UserError, match=r"target cpu-x86: is for Linux on x86_64, .* is Linux on aarch64"):
        load_target("cpu-x86").refuse_elsewhere()
    with pytest.raises(UserError, match="target android: is for Android on aarch64"):
        load_target("android").refuse_elsewhere()
    (tmp_path / "build.prop").touch()
    load_target("android").refuse_elsewhere()
    with pytest.raises(UserError, match="target apple: is for Darwin on arm64"):
        load_target("apple").refuse_elsewhere()


def test_a_board_is_known_by_its_device_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, compatible = tmp_path / "model", tmp_path / "compatible"
    monkeypatch.setattr(targets, "BOARD", (model, compatible))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(targets, "system", lambda: "Linux")
    with pytest.raises(UserError, match="target rpi5: is for a Raspberry Pi 5, this machine is no board"):
        load_target("rpi5").refuse_elsewhere()
    model.write_bytes(b"Radxa ROCK 5B\0")
    compatible.write_bytes(b"radxa,rock-5b\0rockchip,rk3588\0")
    with pytest.raises(UserError, match="this machine is Radxa ROCK 5B, radxa,rock-5b, rockchip,rk3588; "):
        load_target("rpi5").refuse_elsewhere()
    load_target("rk3588").refuse_elsewhere()
    model.write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    load_target("rpi5").refuse_elsewhere()


def test_a_budget_concerns_the_configurations_that_it_names() -> None:
    row = {"runtime": "openvino", "precision": "int8", "batch": 8, "threads": len(os.sched_getaffinity(0))}
    assert Budget(batch=8, threads="all", p95_ms=1).concerns(row)
    assert Budget(batch=8, threads="all", p95_ms=1, runtime="openvino", precision="int8").concerns(row)
    assert not Budget(batch=8, threads="all", p95_ms=1, precision="fp32").concerns(row)
    assert not Budget(batch=8, threads="all", p95_ms=1, runtime="mnn").concerns(row)
    assert not Budget(batch=1, threads="all", p95_ms=1).concerns(row)
    assert not Budget(batch=8, threads=64, p95_ms=1).concerns(row)


def test_a_target_without_budgets_and_with_the_defaults() -> None:
    specs = [{"name": "onnxruntime", "precisions": ["fp32"]}]
    names = ("name", "hardware", "architecture", "runner", "batch_sizes", "threads")
    target = Target.model_validate({name: text()[name] for name in names} | {"runtimes": specs})
    assert (target.system, target.device, target.budgets) == ("Linux", "cpu", ())
    assert target.reference.model_dump() == {"runtime": "onnxruntime", "precision": "fp32"}
