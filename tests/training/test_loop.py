"""Five updates of the reference, in float64, the convention of the loss, and what is read of a run."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from rtmpose.config import OptimParams
from rtmpose.data.stream.batch import Batch
from rtmpose.models import build_pose_net
from rtmpose.targets import SimCC
from rtmpose.training.following import status_line
from rtmpose.training.guard import Step
from rtmpose.training.loop import Meter, Position, is_better, memory, prefetched
from rtmpose.training.update import Updater, simcc_task
from tests.support import assert_golden, det_input, det_tensor, golden


def reference_updater(size: str, batch: int, divisor: int) -> Updater:
    """The reference's update: loss summed over the batch, so Adam's epsilon is its own and the divisor 1."""
    model = build_pose_net(size)
    state = {
        key: torch.from_numpy(np.asarray(det_tensor(key, tuple(v.shape))))
        for key, v in model.state_dict().items()
    }
    model.load_state_dict(state)
    model.double().train()
    task = simcc_task(model, SimCC((192, 256)), tau=0.1)
    updater = Updater(
        task,
        device=torch.device("cpu"),
        precision="fp32",
        global_batch=divisor,
        weight_decay=0.05,
        optim=OptimParams(lr=1e-3),
        ema_momentum=0.0,
    )
    for group in updater.optimizer.param_groups:
        group["eps"] = 1e-8 / divisor
    return updater


@pytest.mark.parametrize(("size", "divisor", "updates"), [("t", 1, 5), ("t", 4, 5), ("m", 1, 2)])
def test_float64_updates_equal_reference(size: str, divisor: int, updates: int) -> None:
    """With divisor 4 the loss is a mean over the batch, as in training: with ε scaled alike the updates are
    the same.
    """
    file = np.load(golden(f"train_step_rtmpose-{size}_coco_256x192.npz"))
    updater = reference_updater(size, 4, divisor)
    images = torch.from_numpy(det_input((4, 3, 256, 192), "train_input")).double()
    keypoints, visible = (torch.from_numpy(file[key]) for key in ("keypoints", "visible"))
    losses = []
    for step in range(updates):
        losses.append(float(updater.update([partial(updater.loss, images, keypoints, visible)], 1e-3).loss))
        if step == 0:
            grads = {n: p.grad for n, p in updater.task.model.named_parameters() if p.grad is not None}
            norms = [float(grads[str(name)].norm()) * divisor for name in file["param_names"]]
            np.testing.assert_allclose(norms, file["f64_grad_norm_step0"], rtol=1e-6, atol=1e-9)
    expected = file["f64_losses"][:updates]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)  # its targets were rounded to float32
    if updates < len(file["f64_losses"]):
        return
    parameters = dict(updater.task.model.named_parameters())
    after = [float(parameters[str(name)].detach().norm()) for name in file["param_names"]]
    assert_golden(after, file["f64_param_norm_after5"])


def step(loss: float, norm: float, skipped: bool = False) -> Step:
    return Step(torch.tensor(loss), torch.tensor(norm), torch.tensor(skipped))


def test_skipped_updates_do_not_enter_the_means() -> None:
    meter = Meter(batch=4)
    for done in (step(8.0, 1.0), step(math.nan, math.inf, skipped=True), step(4.0, 3.0)):
        meter.add(done, waited=0.0)
    report = meter.read()
    assert (report["loss"], report["grad_norm"], report["data_wait"]) == (1.5, 2.0, 0.0)
    meter.add(step(math.inf, 1.0, skipped=True), waited=0.0)
    assert math.isnan(meter.read()["loss"])


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_batches_reach_the_device_unchanged_and_in_order(kind: str) -> None:
    if kind == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device(kind)
    sent = [
        Batch(torch.full((2, 64, 64, 3), i), torch.rand(2, 17, 2), torch.ones(2, 17), [f"{i}"], [])
        for i in range(8)
    ]
    for before, after in zip(sent, prefetched(iter(sent), device), strict=True):
        assert after.images.device.type == kind and after.keys == before.keys
        for ours, theirs in zip(before[:3], after[:3], strict=True):
            assert torch.equal(ours, theirs.cpu())


def test_a_runs_line_says_what_to_watch() -> None:
    meter = Meter(batch=4)
    meter.add(step(2.0, 0.25), waited=0.0)
    line = {"step": 7, "steps": 10, "epoch": 0.7, "lr": 0.004, "best_AP": 0.5, "seconds_left": 61.0}
    line |= {"damaged_samples": 0, "skipped_updates": 0} | meter.read() | memory(torch.device("cpu"))
    text = status_line("finetune", line)
    for part in (
        "loss 0.50000",
        "AP 0.500",
        "lr 4.00e-03",
        "grad 0.25",
        "samples/s",
        "data-wait 0%",
        " GB ",
        "1m01s left",
    ):
        assert part in text
    assert "skipped" not in text
    bad = status_line("finetune", line | {"skipped_updates": 3, "cuda_gb": 2.5})
    assert bad.endswith("3 skipped updates") and "CUDA 2.5 GB" in bad


def test_a_metric_that_is_no_number_chooses_no_weights() -> None:
    nan, start = math.nan, Position()
    assert not is_better({"AP": nan}, start) and not is_better({"AP": nan, "error": 0.1}, start)
    assert is_better({"AP": 0.0, "error": 0.9}, start) and is_better({"AP": 0.0, "error": nan}, start)
    best = Position(best_ap=0.0, best_error=0.9, best_epoch=1)
    assert is_better({"AP": 0.0, "error": 0.8}, best) and is_better({"AP": 0.1, "error": nan}, best)
    for worse in ({"AP": nan}, {"AP": 0.0, "error": nan}, {"AP": 0.0, "error": 0.9}, {"AP": -1.0}):
        assert not is_better(worse, best)
    unknown = Position(best_ap=0.0, best_epoch=1)  # its error was NaN
    assert is_better({"AP": 0.0, "error": 0.5}, unknown) and not is_better({"AP": 0.0, "error": nan}, unknown)


def test_where_nothing_can_be_measured_the_newest_weights_lead() -> None:
    assert is_better({"AP": -1.0}, Position()) and is_better(
        {"AP": -1.0}, Position(best_ap=-1.0, best_epoch=1)
    )
