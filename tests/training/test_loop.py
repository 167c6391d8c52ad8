"""Five updates of the reference, in float64, and the convention of the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtmpose.config import OptimParams
from rtmpose.models import build_pose_net
from rtmpose.targets import SimCC
from rtmpose.training.update import Updater, simcc_task
from tests.support import assert_golden, det_input, det_tensor, golden


def reference_updater(size: str, batch: int, divisor: int) -> Updater:
    """The reference's update: loss summed over the batch, so Adam's epsilon is its own and the divisor 1."""
    model = build_pose_net(size)
    state = {key: torch.from_numpy(np.asarray(det_tensor(key, tuple(v.shape)))) for key, v in model.state_dict().items()}
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


@pytest.mark.parametrize(("size", "divisor"), [("t", 1), ("t", 4), ("m", 1)])
def test_five_float64_updates_equal_reference(size: str, divisor: int) -> None:
    """With divisor 4 the loss is a mean over the batch, as in training: with ε scaled alike the updates are the same."""
    file = np.load(golden(f"train_step_rtmpose-{size}_coco_256x192.npz"))
    updater = reference_updater(size, 4, divisor)
    images = torch.from_numpy(det_input((4, 3, 256, 192), "train_input")).double()
    keypoints, visible = (torch.from_numpy(file[key]) for key in ("keypoints", "visible"))
    losses = []
    for step in range(5):
        loss = updater.loss(images, keypoints, visible)
        losses.append(float(loss.detach()))
        updater.apply(loss * updater.scale, 1e-3)
        if step == 0:
            grads = {n: p.grad for n, p in updater.task.model.named_parameters() if p.grad is not None}
            norms = [float(grads[str(name)].norm()) * divisor for name in file["param_names"]]
            np.testing.assert_allclose(norms, file["f64_grad_norm_step0"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(losses, file["f64_losses"], rtol=1e-5)  # its targets were rounded to float32
    parameters = dict(updater.task.model.named_parameters())
    after = [float(parameters[str(name)].detach().norm()) for name in file["param_names"]]
    assert_golden(after, file["f64_param_norm_after5"])
