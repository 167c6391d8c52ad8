"""From a benchmark's report to the costs that count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtmpose.deploy.report import NOISE
from rtmpose.deploy.targets import Target
from rtmpose.files import UserError
from rtmpose.promotion.gathered import cost_of
from tests.deploy.test_targets import text

PATH = Path("metrics/benchmark/mine.json")
BUDGETS = [
    {"batch": 1, "threads": 1, "p95_ms": 5},
    {"runtime": "onnxruntime", "precision": "fp32", "batch": 8, "threads": 1, "memory_mb": 100},
    {"runtime": "pytorch", "precision": "fp32", "batch": 1, "threads": 1, "p95_ms": 1},  # not what was picked
]


def target() -> Target:
    specs = [{"name": name, "precisions": ["fp32"]} for name in ("onnxruntime", "pytorch")]
    return Target.model_validate(text(runtimes=specs, budgets=BUDGETS, batch_sizes=[1, 8], threads=[1, 2]))


def row(runtime: str, threads: int, batch: int, **more: Any) -> dict[str, Any]:
    return {
        "runtime": runtime, "precision": "fp32", "threads": threads, "batch": batch, "p50_ms": 4.0 / threads,
        "p95_ms": 4.5, "memory_mb": 120.0, "gpu_memory_mb": None, "file_mb": 13.0, "keypoints_px_mean": 0.01,
        "files": ["rtmpose.onnx"], "images_per_s": 200.0, "ap_loss": 0.0,
        "beside_rival": {name: {"ratio": 1.0 + threads} for name in ("latency", "memory", "size")},
    } | more  # fmt: skip


def report(**more: Any) -> dict[str, Any]:
    rows = [row("onnxruntime", threads, batch) for batch in (8, 1) for threads in (1, 2)]
    return {
        "target": target().name, "images": "8 held-out persons",
        "measured_at": "2026-11-28T01:00:00+00:00", "machine": {"cpu": "A", "kind": "avx2", "cores": 2},
        "files": {"rtmpose.onnx": "a", "rtmpose.pt": "b"}, "results": [*rows, row("pytorch", 1, 1)],
        "rival": {"version": "3", "runtime": "openvino", "precision": "int8", "skipped": []},
    } | more  # fmt: skip


def test_the_targets_own_calls_count_and_all_budgets_of_the_picked() -> None:
    cost = cost_of(report(), "onnxruntime_fp32", target(), PATH)
    assert cost.p50_ms == 2.0 and cost.beside["latency"].ratio == 3.0  # one image on both threads
    assert cost.files == {"rtmpose.onnx": "a"} and cost.champion_version == "3" and cost.not_compared is None
    assert cost.champion_picked == "openvino_int8"
    assert [(each.key, each.limit, each.kept) for each in cost.budgets] == [
        ("p95_ms", 5.0, True),
        ("memory_mb", 100.0, False),
    ]


def test_memory_of_a_gpu_counts_where_the_target_computes_there() -> None:
    specs = [{"name": "onnxruntime", "precisions": ["fp16"]}]
    budget = {"batch": 1, "threads": 1, "gpu_memory_mb": 500}
    gpu = Target.model_validate(
        text(runtimes=specs, budgets=[budget], batch_sizes=[1], threads=[1], device="gpu")
    )
    for held, kept in ((400.0, True), (600.0, False), (None, False)):
        rows = [row("onnxruntime", 1, 1, precision="fp16", gpu_memory_mb=held)]
        cost = cost_of(report(results=rows), "onnxruntime_fp16_gpu", gpu, PATH)
        assert (cost.device, cost.gpu_memory_mb) == ("gpu", held)
        assert [(each.key, each.measured, each.kept) for each in cost.budgets] == [
            ("gpu_memory_mb", held, kept)
        ]


def test_points_on_noise_are_no_parity() -> None:
    seen = [cost_of(report(images=kind), "onnxruntime_fp32", target(), PATH) for kind in ("8 persons", NOISE)]
    assert [(cost.images, cost.parity_px) for cost in seen] == [("8 persons", 0.01), ("noise", None)]


@pytest.mark.parametrize(
    ("rival", "version", "reason"),
    [
        (None, None, None),
        ({"version": "3", "skipped": ["openvino: no bf16"]}, "3", "openvino: no bf16"),
        ({"version": "3", "not_possible": "nothing passed"}, "3", "nothing passed"),
        ({"version": "3", "skipped": []}, "3", "it was not measured for such calls"),
    ],
)  # fmt: skip
def test_why_costs_are_not_compared(rival: Any, version: str | None, reason: str | None) -> None:
    made = report(rival=rival, results=[row("onnxruntime", 1, 1, beside_rival=None)])
    cost = cost_of(made, "onnxruntime_fp32", target(), PATH)
    assert (cost.champion_version, cost.not_compared, cost.beside) == (version, reason, {})


@pytest.mark.parametrize(
    ("changes", "picked", "told"),
    [
        ({"target": "rpi5"}, "onnxruntime_fp32", "target: is rpi5, not "),
        ({"images": None}, "onnxruntime_fp32", "images: Input should be"),
        ({}, "openvino_int8", "openvino_int8 was picked and is not among the results"),
        ({"files": None}, "onnxruntime_fp32", "files: Input should be"),
        ({"measured_at": "yesterday"}, "onnxruntime_fp32", "measured_at: String should match"),
    ],
)
def test_reports_that_do_not_fit_are_one_line(changes: dict[str, Any], picked: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        cost_of(report(**changes), picked, target(), PATH)
    assert str(PATH) in str(caught.value) and told in str(caught.value)
