"""The gate: what may be lost is judged at the unfavourable end, and planted faults are each stopped."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.quantize import tried
from rtmpose.config import EvaluateParams
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.e2e import EndToEnd
from rtmpose.deploy.graphs import save_card
from rtmpose.deploy.quantize import run
from rtmpose.deploy.quantize.attempt import Attempt, Figure, Latency, SetFigures
from rtmpose.deploy.quantize.calibration import Calibration
from rtmpose.deploy.quantize.gate import (
    MAY_LOSE,
    InRuntime,
    Judge,
    Reference,
    card_reasons,
    judged,
)
from rtmpose.deploy.quantize.openvino import card_of
from rtmpose.deploy.quantize.pick import pick, picks_of
from rtmpose.deploy.quantize.report import picture, rows, table
from rtmpose.deploy.quantize.run import Trial, as_they_are, line
from rtmpose.deploy.quantize.sensitivity import Sensitivity
from rtmpose.deploy.runtimes.base import ModelFiles, NotPossible, Precision, RuntimeName, Session
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.targets import Budget, load_target, thread_count
from tests.deploy.support import relabelled
from tests.support import ROOT


def attempt(runtime: RuntimeName = "onnxruntime", precision: Precision = "int8") -> Attempt:
    return Attempt(runtime=runtime, precision=precision, recipe="a recipe")


def figures(value: float, low: float, high: float = 0.3) -> dict[str, SetFigures]:
    ap = Figure(value=60 + value, low=50, high=70)
    return {"easy": SetFigures(images=250, ap=ap, difference=Figure(value=value, low=low, high=high))}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_the_unfavourable_end_decides(precision: Precision) -> None:
    one, limit = attempt(precision=precision), MAY_LOSE[precision]
    assert not judged(one, figures(0.0, -limit)).refused
    [reason] = judged(one, figures(0.2, -limit - 1e-3)).refused  # better in the mean, and yet
    assert "may lose" in reason and "250 images" in reason and f"{limit} are allowed" in reason


def test_the_limits_are_those_that_were_promised() -> None:
    assert MAY_LOSE == {"fp32": 0.1, "fp16": 0.1, "bf16": 0.5, "int8": 0.5}


def test_an_interval_that_is_not_a_number_does_not_pass() -> None:
    broken = SetFigures.model_construct(
        images=1,
        ap=Figure(value=1, low=1, high=1),
        difference=Figure.model_construct(value=0.0, low=math.nan, high=0.0),
    )
    assert judged(attempt(), {"easy": broken}).refused


def test_points_that_are_not_finite_do_not_pass() -> None:
    assert judged(attempt(), None).refused == ("its points are not finite (NaN or infinity)",)


def test_a_card_that_differs_is_named(own_card: ModelCard) -> None:
    other = own_card.model_copy(
        update={"precision": "int8", "quantization": "QDQ", "measured": {"a": {"b": 1.0}}}
    )
    assert card_reasons(other, own_card, None) == []
    [reason] = card_reasons(own_card.model_copy(update={"mean": (0.0, 0.0, 0.0)}), own_card, None)
    assert reason.startswith("its card says mean (0.0, 0.0, 0.0), the exported model's (123")


def test_a_broken_sigma_is_named(own_card: ModelCard) -> None:
    told = own_card.model_copy(update={"sigma": (3.46, 4.0)})
    assert card_reasons(told, told, [3.46, 4.0]) == []
    assert card_reasons(told, told, [3.46000001, 4.0]) == []
    assert card_reasons(told, told, [3.46, 4.9]) == [
        "its card says σ [3.46, 4.0] bins, training used [3.46, 4.9]"
    ]
    silent = told.model_copy(update={"sigma": None})
    assert card_reasons(silent, silent, [3.46, 4.0]) == ["its card says no σ, training used [3.46, 4.0]"]
    assert card_reasons(silent, silent, None) == []  # heatmaps


def latency(p50: float, p95: float | None = None) -> Latency:
    return Latency(p50_ms=p50, p95_ms=p95 or 1.2 * p50)


def passing() -> list[Attempt]:
    return [
        judged(attempt("onnxruntime", "fp32"), figures(0.0, 0.0)),
        judged(attempt("onnxruntime", "int8"), figures(-0.1, -0.4)),
        judged(attempt("openvino", "fp32"), figures(0.0, 0.0)),
        judged(attempt("openvino", "int8"), figures(-0.1, -0.9)),
    ]


TIMES = {
    "onnxruntime_fp32": latency(6.0),
    "onnxruntime_int8": latency(4.5),
    "openvino_fp32": latency(5.0),
    "openvino_int8": latency(3.0),
}


def reasons(of: Attempt | str, attempts: tuple[Attempt, ...]) -> tuple[str, ...]:
    return next(one.refused for one in attempts if one.name == of)


def test_the_fastest_that_passes_is_picked() -> None:
    found = pick(passing(), TIMES)
    assert found.picked == "onnxruntime_int8"
    assert "may lose 0.90 points" in reasons("openvino_int8", found.attempts)[0]
    assert [one.latency for one in found.attempts] == list(TIMES.values())


def test_a_slowed_runtime_is_stopped() -> None:
    slow = TIMES | {"onnxruntime_int8": latency(6.5)}
    found = pick(passing(), slow)
    assert found.picked == "openvino_fp32"
    assert reasons("onnxruntime_int8", found.attempts) == (
        "is no faster (6.50 ms) than fp32 (6.00 ms), which is more exact",
    )


def test_a_broken_budget_is_stopped() -> None:
    stuttering = TIMES | {"onnxruntime_int8": latency(4.5, p95=40.0)}
    found = pick(passing(), stuttering, {"onnxruntime_int8": ["p95_ms 40, the budget is 20"]})
    assert found.picked == "openvino_fp32"
    assert reasons("onnxruntime_int8", found.attempts) == ("p95_ms 40, the budget is 20",)


def test_what_was_not_measured_is_not_picked() -> None:
    found = pick(passing(), {"onnxruntime_fp32": latency(6.0)})
    assert found.picked == "onnxruntime_fp32"
    assert "not measured" in reasons("openvino_fp32", found.attempts)[0]
    assert pick(passing(), {}).picked is None


def test_a_latency_is_that_of_the_last_file() -> None:
    first = judged(attempt(), figures(-0.5, -0.9))
    found = pick([first, *passing()], TIMES)
    assert found.picked == "onnxruntime_int8" and found.attempts[0].latency is None
    assert found.attempts[0].refused[-1] == "another attempt's file has taken its place"


def test_a_pick_for_each_cell_of_a_report() -> None:
    results = [
        {"runtime": runtime, "precision": precision, "threads": threads, "batch": batch}
        | {"p50_ms": p50 * batch / threads, "p95_ms": 2 * p50 * batch / threads}
        for runtime, precision, p50 in (("onnxruntime", "fp32", 6.0), ("onnxruntime", "int8", 4.0))
        for threads in (1, 2)
        for batch in (1, 8)
    ]
    picks = picks_of(passing(), {"results": results}, [Budget(precision="int8", p95_ms=7.0)])
    assert [(one.batch, one.threads) for one in picks] == [(1, 2), (1, 1), (8, 2), (8, 1)]
    assert [one.picked for one in picks] == ["onnxruntime_int8", "onnxruntime_fp32"] + [
        "onnxruntime_int8"
    ] * 2


@pytest.mark.parametrize(
    ("key", "limit", "reason"),
    [
        ("p50_ms", 3.0, "p50_ms 4, the budget is 3"),
        ("p95_ms", 7.0, "p95_ms 8, the budget is 7"),
        ("images_per_s", 300.0, "images_per_s 250, the budget is 300"),
        ("file_mb", 5.0, "file_mb 6, the budget is 5"),
        ("memory_mb", 100.0, "memory_mb 200, the budget is 100"),
        ("gpu_memory_mb", 100.0, "gpu_memory_mb was not measured, the budget is 100"),
        ("ap_loss", 0.2, "ap_loss 0.3, the budget is 0.2"),
    ],
)
def test_every_limit_of_a_budget_counts(key: str, limit: float, reason: str) -> None:
    row = {"runtime": "onnxruntime", "precision": "int8", "threads": 1, "batch": 1, "p50_ms": 4.0}
    row |= {"p95_ms": 8.0, "images_per_s": 250.0, "file_mb": 6.0, "memory_mb": 200.0, "ap_loss": 0.3}
    row |= {"gpu_memory_mb": None}
    [kept] = picks_of(passing(), {"results": [row]}, [Budget(batch=8, p50_ms=0.1)])
    [found] = picks_of(passing(), {"results": [row]}, [Budget.model_validate({key: limit})])
    assert kept.picked == "onnxruntime_int8" and found.picked is None
    assert reasons("onnxruntime_int8", found.attempts) == (reason,)


@pytest.mark.parametrize("path", sorted((ROOT / "deploy_targets").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_a_target_picks_has_a_budget(path: Path) -> None:
    """Single images on all threads, which its own pick is for."""
    target = load_target(str(path))
    most = max(map(thread_count, target.threads))
    row = {"runtime": "none", "precision": "none", "batch": min(target.batch_sizes), "threads": most}
    assert any(budget.concerns(row) for budget in target.budgets)


def test_attempts_on_a_gpu_are_a_gpu_target_s_alone() -> None:
    on_gpu = attempt().model_copy(update={"device": "gpu", "refused": ()})
    row = {"runtime": on_gpu.runtime, "precision": on_gpu.precision, "threads": 1, "batch": 1}
    report = {"results": [row | {"p50_ms": 1.0, "p95_ms": 2.0}]}
    [found] = picks_of([*passing(), on_gpu], report, device="gpu")
    assert found.picked == f"{on_gpu.runtime}_{on_gpu.precision}_gpu" and len(found.attempts) == 1
    [elsewhere] = picks_of([*passing(), on_gpu], report)
    assert elsewhere.picked == f"{on_gpu.runtime}_{on_gpu.precision}"
    assert {one.device for one in elsewhere.attempts} == {"cpu"}


def test_each_runtime_is_judged_where_its_target_computes() -> None:
    asked = tried(["cpu-x86", "gpu-nvidia"])
    assert ("openvino", "fp32", "cpu") in asked and ("onnxruntime-cuda", "fp16", "gpu") in asked
    assert ("tensorrt", "int8", "gpu") in asked and ("onnxruntime", "int8", "cpu") in asked


def test_the_table_and_the_picture() -> None:
    found = pick(passing(), TIMES)
    shown = table("cpu-x86", found)
    assert shown.splitlines()[2].startswith("openvino          int8") and "refused: may lose 0.90" in shown
    assert shown.count("picked") == 1
    content = rows("cpu-x86", found)
    assert [row["picked"] for row in content] == [False, True, False, False]
    assert content[1]["ap"] == 59.9 and content[1]["p50_ms"] == 4.5
    assert picture("cpu-x86", found, {"easy": Figure(value=60, low=50, high=70)}).startswith(b"\x89PNG")


def test_attempts_survive_json() -> None:
    one = pick(passing(), TIMES).attempts[1]
    assert Attempt.model_validate(one.model_dump(mode="json")) == one


@pytest.fixture(scope="module")
def reference(files: ModelFiles, shards: Path, own_card: ModelCard) -> Reference:
    judge = Judge(own_card, {"val": shards / "val"}, EvaluateParams(), times=50)
    return judge.reference(Centred())


class Centred(torch.nn.Module):
    """Puts every point into the middle of the crop, and where it is told elsewhere."""

    def __init__(self, x: int = 96, value: float = 1.0) -> None:
        super().__init__()
        self.x, self.value = x, value

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = torch.zeros(len(images), 17, 192), torch.zeros(len(images), 17, 256)
        x[..., self.x] = y[..., 128] = self.value
        return x, y


def test_the_same_network_loses_nothing(reference: Reference) -> None:
    found = reference.compared(Centred())
    assert found is not None
    difference = found["val"].difference
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    assert found["val"].images == 12 and found["val"].ap == reference.figures()["val"]


def test_a_runtime_that_gives_nan_is_stopped(reference: Reference) -> None:
    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        x = np.full((len(images), 17, 192), np.nan, np.float32)
        return x, np.full((len(images), 17, 256), np.nan, np.float32)

    assert reference.compared(InRuntime(infer, 4)) is None


def test_batches_are_filled_up() -> None:
    sizes = []

    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        sizes.append(len(images))
        return images[:, 0].max(axis=1), images[:, 0].max(axis=2)

    images = torch.rand(10, 3, 128, 96)
    x, y = InRuntime(infer, 4)(images)
    assert sizes == [4, 4, 4]
    assert torch.equal(x, images[:, 0].amax(1)) and torch.equal(y, images[:, 0].amax(2))


def test_a_file_with_a_broken_sigma_is_stopped(
    files: ModelFiles, own_card: ModelCard, tmp_path: Path
) -> None:
    """The export says σ; here the file's is not that of the training, whatever its AP."""
    other = relabelled(files, tmp_path, sigma=[1.0, 1.0])
    told: list[str] = []
    trial = Trial(ModelFiles(other), own_card, None, [3.46, 4.0], told.append)
    [found] = as_they_are(trial, [("onnxruntime", "fp32", "cpu")])
    assert any("σ [1.0, 1.0] bins, training used [3.46, 4.0]" in reason for reason in found.refused)
    assert told == [line(found)] and "refused: " in told[0]


def test_an_int8_card_says_what_was_measured_of_its_own_file(
    files: ModelFiles, own_card: ModelCard, calibration: Calibration, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    own = ModelFiles(tmp_path / "m.onnx")
    float_file = own_card.with_more(measured={"easy": {"AP": 61.0}})
    save_card(files.onnx, float_file, own.onnx)
    monkeypatch.setattr(run, "measure", lambda *_: Sensitivity(all_px=0.0, without_px={}))
    monkeypatch.setattr(
        Trial, "tried", lambda trial, one, path: judged(one, figures(-0.2, -0.4)) if path.exists() else one
    )
    few = calibration.split(4)[0]
    run.quantize_for_onnxruntime(Trial(own, float_file, None), few, few.inputs(own_card))
    found = read_card(own.form("int8"))
    expected = {"AP": 59.8, "difference": -0.2, "difference_low": -0.4, "difference_high": 0.3}
    assert found.measured == {"easy": pytest.approx(expected)} and found.precision == "int8"
    assert found.quantization is not None and found.weight_bits in (7, 8)
    assert EndToEnd.open(tmp_path / "m.int8.e2e.onnx").made_from(own.form("int8"))
    run.quantize_for_openvino(Trial(own, float_file, None), few)
    assert card_of(own.form("int8", ".xml")).measured == found.measured


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotPossible("LiteRT: its process ended"), "not run here: LiteRT: its process ended"),
        (RuntimeError("out of memory\nat line 3"), "not run here: it fails in a call: out of memory"),
    ],
)
def test_a_runtime_that_fails_in_a_call_is_refused(
    files: ModelFiles, own_card: ModelCard, reference: Reference, monkeypatch: pytest.MonkeyPatch,
    error: Exception, reason: str,
) -> None:  # fmt: skip
    def fails(images: np.ndarray) -> tuple[np.ndarray, ...]:
        raise error

    monkeypatch.setattr(run, "open_session", lambda *_: Session(fails, "1", "CPU"))
    told: list[str] = []
    trial = Trial(files, own_card, reference, tell=told.append)
    [found] = as_they_are(trial, [("mnn", "fp32", "cpu")])
    assert found.refused[-1].startswith(reason) and len(told) == 1 and "\n" not in told[0]


def test_without_nncf_the_attempt_says_so(
    files: ModelFiles, own_card: ModelCard, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    [found] = run.quantize_for_openvino(Trial(files, own_card, None), calibration)
    assert found.refused[0].startswith("not run here: NNCF is not installed")


@pytest.mark.parametrize("name", ["m.int8.xml", "m.pte", "m.ncnn.param", "m.int8.onnx"])
def test_a_broken_sigma_is_stopped_in_every_form(
    own_card: ModelCard, files: ModelFiles, tmp_path: Path, name: str
) -> None:
    """A runtime's own form, or a file that is missing, is read by the exported model's card."""
    trial = Trial(files, own_card.model_copy(update={"sigma": (1.0, 1.0)}), None, [3.46, 4.0])
    found = trial.tried(Attempt(runtime="openvino", precision="int8", recipe="own"), tmp_path / name)
    assert any("σ [1.0, 1.0] bins, training used [3.46, 4.0]" in reason for reason in found.refused)
