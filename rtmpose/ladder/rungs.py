"""The rungs of RTMPose's Table 1 as data, and the parameters that each of them is trained with.

A rung says which parameters differ from the rung before; `RECIPE` gives a parameter back to the recipe. At
the top no difference is left but the budget: the ladder then trains the recipe itself, so that any recipe can
be laddered.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rtmpose.config import LadderParams, Params, TrainParams, refuse_baseline, with_values
from rtmpose.files import UserError

RECIPE = object()  # in `Rung.changes`: from here on the recipe's own value
PAPER_EPOCHS = 210  # of the paper's shorter runs: what `ladder.samples` stands for
PUBLISHED_EMA = 0.0002  # where the recipe has none, as RTMPose-t
# What plain augmentation is without: nothing is done to colours and sharpness, and nothing is hidden.
PLAIN: Mapping[str, Any] = {"hue": 0, "saturation": 0, "value": 0, "pixels": [], "hole": 0}

Entry = dict[str, Any]  # of the mix receipt


@dataclass(frozen=True)
class Rung:
    """`name` in parameters and files, what is added in words, the paper's AP in percent (COCO val2017, no
    flip; None: unknown), and the changes against the rung before: values by parameter path, or functions of
    the recipe that give them.
    """

    name: str
    adds: str
    paper: float | None
    changes: Mapping[str, Any]


def heatmap_sigma(params: Params) -> list[float]:
    """Pretraining's σ, in heatmap cells."""
    return [params.pretrain.sigma] * 2


def one_sigma(params: Params) -> list[float]:
    """The mean of the recipe's two, for both axes."""
    from rtmpose.targets import SimCC

    return [sum(SimCC(params.input_size, sigma=params.finetune.sigma).sigma) / 2] * 2


def base_sets(params: Params) -> dict[str, Any]:
    """The data sets, of which only `ladder.base` are trained on."""
    base = ladder_of(params).base
    return {
        key: data.model_dump() | {"train": data.train and key in base}
        for key, data in params.datasets.items()
    }


def ema(params: Params) -> float:
    return params.model.ema_momentum or PUBLISHED_EMA


def budget(epochs: int) -> Callable[[Params], int]:
    """A function of the recipe: the samples that stand for this number of the paper's epochs."""
    return lambda params: round(ladder_of(params).samples * epochs / PAPER_EPOCHS)


FIRST: Mapping[str, Any] = {
    "model.backbone": "resnet50",
    "model.activation": "silu",
    "model.neck": None,
    "model.head": "heatmap",
    "model.hidden": 256,
    "model.kernel": 1,
    "model.gau": False,
    "model.ema_momentum": 0.0,
    "pretrain.enabled": False,
    "finetune.tau": 1.0,
    "finetune.sigma": heatmap_sigma,
    "finetune.optim.schedule": "step",
    "finetune.optim.decay_norms": True,
    "finetune.weak_epochs": 0,
    **{f"finetune.strong.{name}": value for name, value in PLAIN.items()},
    "datasets": base_sets,
}
TWO_STAGES = {f"finetune.strong.{name}": RECIPE for name in PLAIN} | {"finetune.weak_epochs": RECIPE}

RUNGS = (
    Rung("resnet50-heatmap", "ResNet-50, heatmaps", None, FIRST),
    Rung(
        "resnet50-simcc-deconv",
        "ResNet-50, SimCC with upsampling",
        None,
        {"model.head": "simcc_deconv", "finetune.sigma": one_sigma},
    ),
    Rung("resnet50-simcc", "ResNet-50, SimCC without upsampling", None, {"model.head": "simcc_plain"}),
    Rung(
        "cspnext",
        "CSPNeXt instead of ResNet-50",
        69.7,
        {"model.backbone": RECIPE, "model.activation": RECIPE},
    ),
    Rung("pretrain", "+ UDP pretraining", 70.3, {"pretrain.enabled": RECIPE}),
    Rung("ema", "+ EMA", 70.4, {"model.ema_momentum": ema}),
    Rung("flat-cosine", "+ flat-cosine learning rate", 70.7, {"finetune.optim.schedule": RECIPE}),
    Rung(
        "two-stage",
        "+ two-stage augmentation, no decay on norms and biases",
        71.2,
        TWO_STAGES | {"finetune.optim.decay_norms": RECIPE},
    ),
    Rung(
        "hidden",
        "+ layer to the hidden width",
        71.4,
        {"model.head": RECIPE, "model.hidden": RECIPE, "model.neck": RECIPE},
    ),
    Rung("gau", "+ gated attention unit", 71.9, {"model.gau": RECIPE}),
    Rung("tau", "+ temperature of the loss", 72.7, {"finetune.tau": RECIPE}),
    Rung("sigma", "+ σ of each axis", 72.8, {"finetune.sigma": RECIPE}),
    Rung("kernel", "+ larger convolution", 73.3, {"model.kernel": RECIPE}),
    Rung("longer", "+ 270 / 210 of the samples", 73.5, {"ladder.samples": budget(270)}),
    Rung("longest", "420 / 210 of the samples", 73.7, {"ladder.samples": budget(420)}),
    Rung("data", "+ the other data sets", 75.3, {"datasets": RECIPE}),
)
NAMES = tuple(rung.name for rung in RUNGS)


def ladder_of(params: Params) -> LadderParams:
    if params.ladder is None:
        raise UserError(
            "params.yaml: ladder: has no budget; compose a recipe that has one, such as -S recipe=ladder"
        )
    return params.ladder


def chosen_rungs(params: Params) -> list[Rung]:
    """The rungs that the parameters ask for, lowest first; UserError for names of none, and for what cannot
    be laddered.
    """
    refuse_baseline(params)
    ladder = ladder_of(params)
    for name in ladder.rungs or ():
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1)
            fix = f"did you mean {near[0]}?" if near else f"choose from {', '.join(NAMES)}"
            raise UserError(f"params.yaml: ladder.rungs: there is no rung {name!r}; {fix}")
    for key in ladder.base:
        if key not in params.datasets or not params.datasets[key].train:
            names = ", ".join(key for key, data in params.datasets.items() if data.train)
            raise UserError(
                f"params.yaml: ladder.base: {key!r} is no data set with train: true; choose from {names}"
            )
    if not params.pretrain.enabled:
        raise UserError(
            "params.yaml: pretrain.enabled: false leaves the rung of pretraining nothing to train; set it to "
            "true"
        )
    if params.finetune.init is not None:
        raise UserError(
            "params.yaml: finetune.init: rungs start from pretraining, or from nothing; set it to null"
        )
    if params.finetune.distill is not None:
        raise UserError("params.yaml: finetune.distill: rungs are trained from labels alone; set it to null")
    return [rung for rung in RUNGS if ladder.rungs is None or rung.name in ladder.rungs]


def distinct_rungs(params: Params, rungs: list[Rung], entries: list[Entry]) -> list[Rung]:
    """The rungs that train something else than the rung before. A recipe with one data set, for example, has
    no others to add in the last rung.
    """
    found = [rung_params(params, rung.name, 0, entries) for rung in rungs]
    return [rung for rung, own, before in zip(rungs, found, [None, *found], strict=False) if own != before]


def overrides(params: Params, name: str) -> dict[str, Any]:
    """Where the rung `name` differs from the recipe: values by parameter path."""
    changes: dict[str, Any] = {}
    for rung in RUNGS[: NAMES.index(name) + 1]:
        changes |= rung.changes
    kept = {path: value for path, value in changes.items() if value is not RECIPE}
    return {path: value(params) if callable(value) else value for path, value in kept.items()}


def rung_params(params: Params, name: str, seed: int, entries: list[Entry]) -> Params:
    """What the rung is finetuned with under `seed`; `entries` are the mix's training sets, of which it may
    use some.
    """
    try:
        rung = with_values(params, overrides(params, name) | {"seed": seed})
        epochs = epochs_for(rung.finetune, ladder_of(rung).samples, sets_of(rung, entries))
        return with_values(
            rung, {f"finetune.{key}": value for key, value in (epochs | {"evaluate_every": 1}).items()}
        )
    except ValueError as error:
        raise UserError(f"params.yaml: ladder: rung {name} is not possible: {error}") from None


def pretrain_params(params: Params, rung: Params, entries: list[Entry]) -> Params:
    """What the rung's backbone is pretrained with: the recipe's own pretraining on the rung's data
    and seed.
    """
    ours = params.model_copy(update={"seed": rung.seed, "datasets": rung.datasets})
    epochs = epochs_for(ours.pretrain, ladder_of(params).pretrain_samples, sets_of(rung, entries))
    return with_values(ours, {f"pretrain.{key}": value for key, value in epochs.items()})


def sets_of(params: Params, entries: list[Entry]) -> list[Entry]:
    """The training sets of the mix that the parameters train on."""
    return [entry for entry in entries if params.dataset(entry["dataset"]).train]


def epochs_for(train: TrainParams, samples: int, entries: list[Entry]) -> dict[str, Any]:
    """Epochs nearest to a budget of samples, at least one, of which the recipe's share is weak. No patience
    ends them early.
    """
    if not entries:
        raise ValueError("data/mix.json has none of its data sets; run the stage mix again")
    epoch = sum(entry["samples"] * entry["repeat"] for entry in entries)
    steps = -(-epoch // train.batch_size)
    epochs = max(round(samples / (steps * train.batch_size)), 1)
    weak = max(round(epochs * train.weak_epochs / train.epochs), 1) if train.weak_epochs else 0
    return {"epochs": epochs, "weak_epochs": min(weak, epochs - 1), "patience": None}
