"""What was published of a run's recipe, and whether the run's recipe is that one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rtmpose.config import Params
from rtmpose.report.sections.systems import RECIPES, RTMPOSE, Recipe


@dataclass(frozen=True)
class Published:
    """The published figures of a run's recipe, see `systems`; `init` is what the run's backbone was taken
    from, where it did not pretrain one itself.
    """

    recipe: Recipe
    figures: Mapping[str, float]
    init: str | None = None

    @property
    def ap(self) -> float | None:
        return self.figures.get("AP")

    @property
    def ar(self) -> float | None:
        return self.figures.get("AR")

    @property
    def others(self) -> dict[str, float]:
        """The figures besides AP and AR."""
        return {name: value for name, value in self.figures.items() if name not in ("AP", "AR")}


def published(params: Params) -> Published | str:
    """What was published for these parameters, or why there is nothing: the first thing that is another."""
    rendered = [key for key, data in params.datasets.items() if data.render is not None]
    if rendered:
        return f"its data is rendered ({', '.join(rendered)}), the paper's are photographs"
    sets = [data for data in params.datasets.values() if data.train]
    trained = {data.descriptor: data.repeat for data in sets}
    names = sorted(each.descriptor for each in sets)
    alike = [one for one in RECIPES if sorted(one.sets) == names]
    fitting = [one for one in alike if _other_system(params, one.network) is None]
    if not fitting and (system := _other_system(params, RTMPOSE)) is not None:
        return f"it is another system: {system}"
    key = (params.model.size, params.input_size)
    recipe = next((one for one in fitting if key in one.rows), None)
    if recipe is None:
        (width, height), shown = params.input_size, ", ".join(trained) or "nothing"
        return (
            f"no figure of the paper is held here for size {params.model.size} at {width}×{height}, trained "
            f"on {shown}"
        )
    if len(recipe.sets) > 1 and trained != recipe.sets:
        ours = ", ".join(f"{name} ×{count}" for name, count in trained.items())
        theirs = ", ".join(f"{name} ×{count}" for name, count in recipe.sets.items())
        return f"an epoch shows {ours}, the paper's {theirs}"
    if (other := _other_training(params, recipe)) is not None:
        return other
    return Published(recipe, recipe.rows[key], init=None if params.pretrain.enabled else params.pretrain.init)


def _other_system(params: Params, network: Mapping[str, Any]) -> str | None:
    """What makes the network, or how it is taught, another one than the published; None where nothing
    does.
    """
    for key, theirs in network.items():
        if (ours := getattr(params.model, key)) != theirs:
            return f"model.{key} is {ours}, RTMPose's {'none' if theirs is None else theirs}"
    if (distill := params.finetune.distill) is not None:
        guide = "a teacher guides it" if distill.teacher else "its head learns from itself"
        return f"{guide} (finetune.distill), RTMPose learns from labels alone"
    return None


def _other_training(params: Params, recipe: Recipe) -> str | None:
    """The first thing in which training or evaluation is not the recipe's. A backbone that is taken from a
    file stands for the pretraining that made it.
    """
    first = next((data.descriptor for data in params.datasets.values() if data.evaluate), None)
    before = params.pretrain.epochs if params.pretrain.enabled else 0
    if not params.pretrain.enabled and params.pretrain.init is not None:
        before = recipe.pretrain_epochs
    for what, ours, theirs in (
        ("it is evaluated on", first, recipe.evaluated),
        ("its points are those of", params.skeleton, recipe.points or recipe.evaluated),
        ("epochs of finetuning:", params.finetune.epochs, recipe.epochs),
        ("epochs of pretraining:", before, recipe.pretrain_epochs),
        ("a whole network to finetune from:", params.finetune.init, None),
    ):
        if ours != theirs:
            return f"{what} {ours}, the paper's {'none' if theirs is None else theirs}"
    return None
