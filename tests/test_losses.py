from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from rtmpose.losses import heatmap_mse_loss, simcc_kl_loss
from rtmpose.targets import SimCC, UDPHeatmap
from tests.support import assert_golden, golden

# What each case of the reference changes. Its `beta` is the predictions' alone.
CASES: dict[str, dict[str, object]] = {
    "std": {},
    "allones": {},
    "zeros": {},
    "fracw": {},
    "noweight": {"weight": None},
    "mask": {},
    "beta1": {"beta": 1.0, "label_beta": 10.0},
    "labelbeta1": {"label_beta": 1.0},
    "nolabelsoftmax": {"label_softmax": False},
}


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return dict(np.load(golden("loss.npz")))


@pytest.fixture(scope="module")
def targets(reference: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    keypoints, visible = (torch.from_numpy(reference[name]) for name in ("keypoints", "visible"))
    labels, weights = SimCC((192, 256)).encode(keypoints, visible)
    np.testing.assert_array_equal(weights, reference["weights"])
    return labels


def predictions(
    reference: dict[str, np.ndarray], dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    x, y = (torch.from_numpy(reference[name]).to(dtype).requires_grad_() for name in ("pred_x", "pred_y"))
    return x, y


def relative(actual: object, expected: np.ndarray) -> None:
    """Gradients are 1e-5 or so: an absolute tolerance would not see them."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(actual), expected, atol=1e-5 * scale + 1e-12)


@pytest.mark.parametrize("case", CASES)
def test_kl_and_its_gradient_equal_the_reference(
    reference: dict[str, np.ndarray], targets: tuple[Tensor, Tensor], case: str
) -> None:
    weight = torch.from_numpy(reference[f"kl_{case}_weights"])
    if case == "mask":  # the reference's own factor on some points is a factor on their weights
        weight = weight.clone()
        weight[:, [0, 3, 5]] *= 0.1
    prediction = predictions(reference)
    loss = simcc_kl_loss(prediction, targets, **{"weight": weight, **CASES[case]})  # type: ignore[arg-type]
    loss.backward()
    np.testing.assert_allclose(loss.item(), reference[f"kl_{case}_loss"], rtol=1e-5)
    for axis, output in zip("xy", prediction, strict=True):
        assert output.grad is not None
        if f"kl_{case}_g{axis}" in reference:
            relative(output.grad, reference[f"kl_{case}_g{axis}"])
        else:
            relative(output.grad.norm(dim=-1), reference[f"kl_{case}_g{axis}norm"])


def test_kl_in_float64(reference: dict[str, np.ndarray], targets: tuple[Tensor, Tensor]) -> None:
    loss = simcc_kl_loss(
        predictions(reference, torch.float64), targets, torch.from_numpy(reference["kl_std_weights"]).double()
    )
    assert loss.dtype == torch.float64
    # 1e-6: the reference's targets are float32.
    np.testing.assert_allclose(loss.item(), reference["kl_std_loss_f64"], rtol=1e-6)


def test_beta_is_the_inverse_temperature_of_both(targets: tuple[Tensor, Tensor]) -> None:
    """A prediction equal to the target costs nothing, at any temperature."""
    for beta in (1.0, 5.0, 10.0):
        assert simcc_kl_loss(targets, targets, None, beta).item() == pytest.approx(0, abs=1e-6)


def test_half_precision_outputs_are_computed_in_float32(
    reference: dict[str, np.ndarray], targets: tuple[Tensor, Tensor]
) -> None:
    x, y = (output.detach().bfloat16() for output in predictions(reference))
    loss = simcc_kl_loss((x, y), targets, None)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, simcc_kl_loss((x.float(), y.float()), targets, None))


def test_parts_of_a_batch_add_up_to_the_mean_over_the_whole(
    reference: dict[str, np.ndarray], targets: tuple[Tensor, Tensor]
) -> None:
    x, y = (output.detach() for output in predictions(reference))
    heatmaps = torch.from_numpy(reference["mse_pred"])
    weight = torch.from_numpy(reference["kl_fracw_weights"])

    def kl(rows: slice) -> Tensor:
        parts = (targets[0][rows], targets[1][rows])
        return simcc_kl_loss((x[rows], y[rows]), parts, weight[rows], batch_size=3)

    def mse(rows: slice) -> Tensor:
        return heatmap_mse_loss(heatmaps[rows], torch.zeros_like(heatmaps[rows]), weight[rows], batch_size=3)

    losses: list[Callable[[slice], Tensor]] = [kl, mse]
    for loss in losses:
        torch.testing.assert_close(loss(slice(0, 2)) + loss(slice(2, 3)), loss(slice(None)))
    torch.testing.assert_close(kl(slice(None)) * 3, simcc_kl_loss((x, y), targets, weight))
    torch.testing.assert_close(
        mse(slice(None)), heatmap_mse_loss(heatmaps, torch.zeros_like(heatmaps), weight)
    )


@pytest.mark.parametrize("case", ["std", "fracw", "none"])
def test_mse_and_its_gradient_equal_the_reference(reference: dict[str, np.ndarray], case: str) -> None:
    keypoints, visible = (torch.from_numpy(reference[name]) for name in ("keypoints", "visible"))
    target, weights = UDPHeatmap((192, 256)).encode(keypoints, visible)
    np.testing.assert_array_equal(weights, reference["mse_weights"])
    np.testing.assert_allclose(target.double().sum((-2, -1)), reference["mse_target_sum"], atol=1e-4)
    prediction = torch.from_numpy(reference["mse_pred"]).requires_grad_()
    weight = {"std": weights, "fracw": torch.from_numpy(reference["kl_fracw_weights"]), "none": None}[case]
    loss = heatmap_mse_loss(prediction, target, weight)
    loss.backward()
    assert prediction.grad is not None
    assert_golden(loss.item(), reference[f"mse_{case}_loss"])
    np.testing.assert_allclose(loss.item(), reference[f"mse_{case}_loss"], rtol=1e-5)
    relative(prediction.grad.norm(dim=(-2, -1)), reference[f"mse_{case}_gnorm"])
