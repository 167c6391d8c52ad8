"""One update: the same however it is split, without a trace where it is not finite, and frozen where it is to
be.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtmpose.config import OptimParams
from rtmpose.data.stream.batch import Batch
from rtmpose.files import UserError
from rtmpose.models import build_pose_net
from rtmpose.targets import SimCC
from rtmpose.training.guard import Step
from rtmpose.training.update import Updater, simcc_task
from tests.support import ROOT
from tests.training.ranks import on_ranks, share

SIZE = (64, 64)
OPTIM = OptimParams(lr=1e-3, clip_grad=0.005, ema_gamma=3.0)
# Adam divides each gradient by its own size, and so makes much of rounding where that is small: at 1e-3 the
# order of the rows alone, in one process, moves weights by 1e-10 in three updates.
RATE = 1e-4


class Doubled(nn.Module):
    """The network in float64, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = build_pose_net("t", input_size=SIZE, num_keypoints=5).double()

    def forward(self, images: Tensor) -> Any:
        return self.net(images.double())


def updater(rows: int, *, world: int = 1, fixed: bool = False, **options: Any) -> Updater:
    """An updater of a float64 network; `fixed`: batch norm in evaluation mode."""
    chosen: dict[str, Any] = {"ema_momentum": 0.1, "weight_decay": 0.05, "optim": OPTIM} | options
    task = simcc_task(Doubled().train(not fixed), SimCC(SIZE), tau=0.1)
    return Updater(
        task, device=torch.device("cpu"), precision="fp32", global_batch=rows, world=world, **chosen
    )


def batch(rows: int, step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (rows, SIZE[1], SIZE[0], 3), generator=generator, dtype=torch.uint8)
    images = (
        images // (1 + torch.arange(rows, dtype=torch.uint8))[:, None, None, None]
    )  # rows of unlike brightness
    keypoints = torch.rand(rows, 5, 2, generator=generator).double() * torch.tensor(SIZE)
    weights = (torch.rand(rows, 5, generator=generator) > 0.3).double()
    return Batch(images, keypoints, weights, [f"{step}-{row}" for row in range(rows)], [])


def part(whole: Batch, rows: slice) -> Batch:
    return Batch(whole.images[rows], whole.keypoints[rows], whole.weights[rows], whole.keys[rows], [])


def state(of: Updater) -> dict[str, Tensor]:
    """All that an update changes, by name."""
    found = {f"model {key}": value.clone() for key, value in of.task.model.state_dict().items()}
    found |= {f"ema {key}": value.clone() for key, value in of.ema.state.items()}
    for number, moments in of.optimizer.state_dict()["state"].items():
        found |= {f"optimizer {number} {key}": value.clone() for key, value in moments.items()}
    return found


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    assert list(ours) == list(theirs)
    worst = max((float((ours[key] - theirs[key]).abs().max()), key) for key in ours)
    assert worst[0] <= tolerance, worst


def trained(rows: int, steps: int = 3, **options: Any) -> dict[str, Tensor]:
    """The state after some updates on the whole batch, and what the last of them reported."""
    one = updater(rows, **options)
    for step in range(steps):
        done = one.step(batch(rows, step), RATE)
    return state(one) | named(done)


def named(done: Step) -> dict[str, Tensor]:
    return {"loss": done.loss, "gradient norm": done.grad_norm, "skipped": done.skipped.long()}


def split_updates(rank: int, world: int) -> list[dict[str, Tensor]]:
    """What a rank holds after the updates of every case of `SPLITS`."""
    results = []
    for rows, options in SPLITS:
        one = updater(rows, world=world, **options)
        for step in range(3):
            done = one.step(part(batch(rows, step), share(rows, rank, world)), RATE)
        results.append(state(one) | named(done))
    return results


# Rows of the global batch, which three workers or two parts divide unevenly, and options of the updater.
# Without batch statistics parts add up, too.
SPLITS: list[tuple[int, dict[str, Any]]] = [(8, {}), (9, {"fixed": True, "accumulate": 2})]


def test_it_is_the_same_on_any_number_of_workers(tmp_path: Path) -> None:
    world = 3
    ranks = on_ranks(world, tmp_path, split_updates)
    for case, (rows, options) in enumerate(SPLITS):
        whole = trained(rows, **options | {"accumulate": 1})
        for rank in range(world):
            assert_same(ranks[rank][case], whole, 1e-10)
            assert_same(ranks[rank][case], ranks[0][case], 0.0)


def test_accumulated_parts_are_the_same_update_but_for_batch_norm() -> None:
    assert_same(trained(8, fixed=True, accumulate=3), trained(8, fixed=True), 1e-10)
    after = trained(8, steps=1, accumulate=2)  # each part has statistics of its own
    assert after["model net.backbone.stem.0.bn.num_batches_tracked"] == 2


def damaged(whole: Batch, where: str, rows: slice = slice(0, 1)) -> Batch:
    """The batch with something in one row that no finite update comes of."""
    images, weights = whole.images.float(), whole.weights.clone()
    if where == "weights":
        weights[rows, 2] = torch.nan
    elif where == "statistics":  # a variance that overflows: batch norm then gives 0, and the loss is finite
        images[rows] = torch.rand(images[rows].shape, generator=torch.Generator().manual_seed(0)) * 1e30
    else:
        images[rows, 5, 7] = torch.nan if where == "image" else torch.inf
    return Batch(images, whole.keypoints, weights, whole.keys, [])


@pytest.mark.parametrize("where", ["image", "infinity", "weights"])
@pytest.mark.parametrize("bad_step", [0, 2])
def test_what_is_not_finite_leaves_no_trace(where: str, bad_step: int) -> None:
    one, other = updater(4), updater(4)
    for step in range(bad_step):
        for each in (one, other):
            assert not each.step(batch(4, step), RATE).skipped
    before = state(one)
    assert one.step(damaged(batch(4, bad_step), where), RATE).skipped
    after = {key: value for key, value in state(one).items() if bad_step or "optimizer" not in key}
    assert_same(after, before, 0.0)
    for each in (one, other):
        assert not each.step(batch(4, 9), RATE).skipped
    for name in (
        "model",
        "optimizer",
    ):  # the average's own schedule has moved on by the step that was skipped
        ours, theirs = ({k: v for k, v in state(each).items() if k.startswith(name)} for each in (one, other))
        assert_same(ours, theirs, 0.0)
    assert one.guard.counts.tolist() == [1, 0, 1]


def test_statistics_that_overflow_behind_a_finite_loss_are_not_kept() -> None:
    torch.manual_seed(0)
    task = simcc_task(build_pose_net("t", input_size=SIZE, num_keypoints=5), SimCC(SIZE), tau=0.1)
    one = Updater(
        task,
        device=torch.device("cpu"),
        precision="fp32",
        global_batch=4,
        weight_decay=0.0,
        optim=OPTIM,
        ema_momentum=0.0,
    )
    whole = batch(4, 0)
    whole = whole._replace(keypoints=whole.keypoints.float(), weights=whole.weights.float())
    assert not one.step(whole, RATE).skipped
    before = state(one)
    done = one.step(damaged(whole, "statistics", slice(0, 4)), RATE)
    assert done.loss.isfinite() and done.skipped
    assert_same(state(one), before, 0.0)


def one_rank_goes_wrong(rank: int, world: int) -> dict[str, Tensor]:
    one = updater(8, world=world)
    one.step(part(batch(8, 0), share(8, rank, world)), RATE)
    before = state(one)
    whole = damaged(batch(8, 1), "weights", slice(7, 8))  # the last rank's last row
    done = one.step(part(whole, share(8, rank, world)), RATE)
    assert_same(state(one), before, 0.0)
    return {"skipped": done.skipped, "counts": one.guard.counts}


def test_all_workers_skip_what_one_of_them_cannot_use(tmp_path: Path) -> None:
    for found in on_ranks(2, tmp_path, one_rank_goes_wrong):
        assert found["skipped"] and found["counts"].tolist() == [1, 1, 1]


def test_rows_of_skipped_updates_are_counted() -> None:
    one = updater(2)
    good, bad = batch(2, 0), damaged(batch(2, 0), "weights")
    for each in (bad, bad, good, bad, bad, bad, good, bad):
        one.step(each, RATE)
    assert one.guard.counts.tolist() == [6, 1, 3]


def test_frozen_weights_and_statistics_stay() -> None:
    one = updater(4, frozen=["net.backbone.stem", "net.head.gau.beta"])
    before = state(one)
    one.task.model.train()
    one.keep_frozen_in_eval()
    one.step(batch(4, 0), RATE)
    after = state(one)
    for key, value in one.task.model.state_dict().items():
        still = key.startswith(("net.backbone.stem.", "net.head.gau.beta"))
        assert torch.equal(before[f"model {key}"], value) == still, key
        if still:
            assert torch.equal(after[f"ema {key}"], value)


@pytest.mark.parametrize(
    ("frozen", "expected"), [(["net.neck"], "begins with 'net.neck'"), ([""], "nothing to train")]
)
def test_what_cannot_be_frozen_is_one_line(frozen: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        updater(4, frozen=frozen)


def test_training_is_channels_last() -> None:
    weight = updater(2).task.model.state_dict()["net.backbone.stage1.0.conv.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def test_the_gradient_norm_is_of_before_clipping_and_bounds_the_update() -> None:
    free, clipped = updater(4, optim=OPTIM.model_copy(update={"clip_grad": None})), updater(4)
    norms = [each.step(batch(4, 0), RATE).grad_norm for each in (free, clipped)]
    assert torch.equal(*norms) and norms[0] > 0.01
    lengths = [
        torch.stack([p.grad.square().sum() for p in each.parameters if p.grad is not None]).sum().sqrt()
        for each in (free, clipped)
    ]
    torch.testing.assert_close(lengths[0], norms[0])
    torch.testing.assert_close(lengths[1], torch.tensor(0.005).double(), rtol=1e-4, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_no_step_waits_for_the_device(accumulate: int) -> None:
    task = simcc_task(build_pose_net("t", input_size=SIZE, num_keypoints=5), SimCC(SIZE), tau=0.1)
    one = Updater(
        task,
        device=torch.device("cuda"),
        precision="bf16",
        global_batch=8,
        weight_decay=0.05,
        optim=OPTIM,
        ema_momentum=0.1,
        accumulate=accumulate,
    )
    whole = batch(8, 0)
    whole = whole._replace(keypoints=whole.keypoints.float(), weights=whole.weights.float())
    one.step(whole, RATE)
    torch.cuda.set_sync_debug_mode("error")
    try:
        done = [one.step(each, RATE) for each in (whole, damaged(whole, "weights"))]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [bool(each.skipped) for each in done] == [False, True]


WITHOUT_COMPILER = """
import sys
from tests.training.test_update import trained
trained(4)
print("torch._dynamo" in sys.modules)
"""


def test_an_update_imports_no_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stdout + done.stderr
