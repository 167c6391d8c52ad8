"""Short quantisation-aware finetuning: a trained network learns to live with int8, through the same loop.

The convolutions of the backbone compute in float with numbers rounded as int8 rounds them; gradients pass
the rounding as if it were not there (straight through, arXiv 1308.3432). What comes out are ordinary weights:
they are exported and quantised like any others. Batch norm need not be folded for this, since folding scales
each output channel of a weight, and each has a scale of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rtmpose.config import FinetuneParams, Params
from rtmpose.data.stream.mix import Mix
from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.evaluator import Evaluator
from rtmpose.files import sha256_of
from rtmpose.fingerprint import code_version, fingerprint
from rtmpose.models import build_model, load_exactly
from rtmpose.targets import SimCC
from rtmpose.training.checkpoint import BEST, Store
from rtmpose.training.job import TRAINING_CODE, TUNING_FIGURES, open_stream
from rtmpose.training.loop import Run
from rtmpose.training.update import simcc_task

QUANTISED = "backbone"  # the head stays in float
SLOWER = 0.1  # of finetuning's learning rate: the network is trained already
WARMUP = 50  # steps at most
STEPS_OF_ACTIVATIONS = 255
EIGHT_BITS, SEVEN_BITS = 127, 64  # the largest whole number of a weight; 7 bits are for CPUs without VNNI


class RoundedConv2d(nn.Conv2d):
    """A convolution whose inputs and weights are rounded as int8 does, in the range of the batch at hand."""

    largest: int

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(rounded_inputs(input), rounded_weights(weight, self.largest), bias)


def rounded_inputs(values: Tensor) -> Tensor:
    """Rounded to 256 steps from the least to the largest value, of which one is 0."""
    low, high = values.detach().float().aminmax()
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / STEPS_OF_ACTIVATIONS).clamp(min=torch.finfo(torch.float32).tiny)
    zero = (-low / scale).round().int()
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, STEPS_OF_ACTIVATIONS)


def rounded_weights(weight: Tensor, largest: int) -> Tensor:
    """Rounded to whole multiples, up to ±`largest`, of a scale for each output channel (O, …)."""
    most = weight.detach().flatten(1).abs().amax(1)  # (O,)
    scale = (most / largest).clamp(min=torch.finfo(torch.float32).tiny)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -largest, largest)


def round_convolutions(network: nn.Module, largest: int) -> int:
    """Make the backbone's convolutions round; how many there are. Their weights keep their names."""
    count = 0
    for module in network.get_submodule(QUANTISED).modules():
        if isinstance(module, nn.Conv2d):  # depthwise ones, too
            module.__class__ = RoundedConv2d
            module.largest = largest  # type: ignore[assignment]  # an attribute of the class that it is now
            count += 1
    return count


def finetune_for_int8(
    params: Params,
    mix: Mix,
    weights: Path,
    root: Path,
    *,
    epochs: int,
    largest: int,
    tau: float,
    sigma: tuple[float, float] | None,
    report: Callable[[dict[str, Any]], None],
) -> Path:
    """Finetune trained weights for `epochs` with weak augmentation, and give the path of the best ones by AP
    on the tuning split, measured with rounding.

    The run's store lies below `root`; a killed run goes on from its last checkpoint.
    """
    train = short(params.finetune, epochs)
    name = fingerprint(
        qat=largest,
        train=train.model_dump(),
        seed=params.seed,
        weights=sha256_of(weights),
        tau=tau,
        sigma=sigma,
        code=code_version(TRAINING_CODE),
    )
    skeleton, codec = load_skeleton(params.skeleton), SimCC(params.input_size, sigma=sigma)
    network = build_model(params.model, skeleton.num_keypoints, params.input_size)
    load_exactly(network, weights)
    round_convolutions(network, largest)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def evaluate(model: nn.Module) -> dict[str, float]:
        judge = Evaluator(model, codec, skeleton, params.evaluate, "fp32", device).without_flip()
        figures, _, _ = judge.shards(mix.tune)
        return {key: figures[key] for key in TUNING_FIGURES if key in figures}

    store = Store.open(root, f"qat-{name}", fresh=False)
    Run(
        simcc_task(network, codec, tau),
        open_stream(params, train, mix, udp=False),
        store,
        params=train,
        model_params=params.model,
        evaluate=evaluate,
        report=report,
        epoch_done=lambda _: None,
        device=device,
        precision="fp32",
    ).train()
    return store.folder / BEST


def short(params: FinetuneParams, epochs: int) -> FinetuneParams:
    """The parameters of finetuning for a few more epochs: weak augmentation and a low learning rate."""
    warmup = min(params.optim.warmup_steps, WARMUP)
    optim = params.optim.model_copy(update={"lr": SLOWER * params.optim.lr, "warmup_steps": warmup})
    changes = {"epochs": epochs, "weak_epochs": epochs, "evaluate_every": 1, "patience": None}
    changes |= {"compile": False, "init": None, "distill": None}
    return params.model_copy(update=changes | {"optim": optim})
