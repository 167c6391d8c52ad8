"""What the paper reached with a recipe, and whether a run's recipe is that one."""

from __future__ import annotations

from dataclasses import dataclass

from rtmpose.config import Params

PAPER = "RTMPose, arXiv 2303.07399v2, and the model zoo of its reference implementation (MMPose 1.3.2)"
# (size, width x height): AP and, where it is told, AR; with flip test on a detector's boxes.
Rows = dict[tuple[str, tuple[int, int]], tuple[float, float | None]]


@dataclass(frozen=True)
class Recipe:
    """One of the paper's: what it trains on and how often an epoch shows it, for how long, and its AP by size
    and input.
    """

    name: str
    sets: dict[str, int]  # descriptor: repeats
    evaluated: str  # descriptor, whose points it predicts
    epochs: int
    rows: Rows
    boxes: str
    pretrain_epochs: int = 210
    flip: str = "with flip test"


RECIPES = (
    Recipe(
        "COCO and AI Challenger", {"coco17": 3, "aic": 1}, "coco17", 420,
        {("t", (192, 256)): (68.5, None), ("s", (192, 256)): (72.2, None),
         ("m", (192, 256)): (75.8, None), ("l", (192, 256)): (76.5, None)},
        "COCO val2017, boxes of the person detector of 56.4 AP",
    ),
    Recipe(
        "COCO alone", {"coco17": 1}, "coco17", 420,
        {("t", (192, 256)): (68.2, None), ("s", (192, 256)): (71.6, None),
         ("m", (192, 256)): (74.6, None), ("l", (192, 256)): (75.8, None)},
        "COCO val2017, boxes of the person detector of 56.4 AP",
    ),
    Recipe(
        "COCO-WholeBody", {"coco_wholebody": 1}, "coco_wholebody", 270,
        {("m", (192, 256)): (58.2, 67.4), ("l", (192, 256)): (61.1, 70.0),
         ("l", (288, 384)): (64.8, 73.0), ("x", (288, 384)): (65.3, 73.3)},
        "COCO-WholeBody val, boxes of the person detector of 56.4 AP",
    ),
    Recipe(
        "Body8", dict.fromkeys(("coco17", "aic", "crowdpose", "mpii", "jhmdb", "halpe26", "posetrack18"), 1),
        "coco17", 700, {("x", (288, 384)): (78.8, None)},
        "COCO val2017, boxes of the person detector of 56.4 AP", flip="it is not said whether with flip test",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """The paper's row for a run's recipe, AP and AR in points of 100; `init` is what the run's backbone was
    taken from, where it did not pretrain one itself.
    """

    recipe: Recipe
    ap: float
    ar: float | None
    init: str | None = None


def published(params: Params) -> Published | str:
    """The paper's row for these parameters, or why there is none: the first thing that is another."""
    rendered = [key for key, data in params.datasets.items() if data.render is not None]
    if rendered:
        return f"its data is rendered ({', '.join(rendered)}), the paper's are photographs"
    if (system := _other_system(params)) is not None:
        return f"it is another system: {system}"
    sets = [data for data in params.datasets.values() if data.train]
    trained = {data.descriptor: data.repeat for data in sets}
    recipe = next(
        (one for one in RECIPES if sorted(one.sets) == sorted(each.descriptor for each in sets)), None
    )
    row = None if recipe is None else recipe.rows.get((params.model.size, params.input_size))
    if recipe is None or row is None:
        (width, height), names = params.input_size, ", ".join(trained) or "nothing"
        return (
            f"no figure of the paper is held here for size {params.model.size} at {width}×{height}, trained "
            f"on {names}"
        )
    if len(recipe.sets) > 1 and trained != recipe.sets:
        shown = ", ".join(f"{name} ×{count}" for name, count in trained.items())
        theirs = ", ".join(f"{name} ×{count}" for name, count in recipe.sets.items())
        return f"an epoch shows {shown}, the paper's {theirs}"
    if (other := _other_training(params, recipe)) is not None:
        return other
    return Published(recipe, *row, init=None if params.pretrain.enabled else params.pretrain.init)


def _other_system(params: Params) -> str | None:
    """What makes the network, or how it is taught, another one than RTMPose's; None where nothing does."""
    model = params.model
    for key, ours, theirs in (
        ("model.backbone", model.backbone, "cspnext"),
        ("model.neck", model.neck, None),
        ("model.head", model.head, "simcc"),
        ("model.kernel", model.kernel, 7),
        ("model.gau", model.gau, True),
    ):
        if ours != theirs:
            return f"{key} is {ours}, RTMPose's {'none' if theirs is None else theirs}"
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
        ("its points are those of", params.skeleton, recipe.evaluated),
        ("epochs of finetuning:", params.finetune.epochs, recipe.epochs),
        ("epochs of pretraining:", before, recipe.pretrain_epochs),
        ("a whole network to finetune from:", params.finetune.init, None),
    ):
        if ours != theirs:
            return f"{what} {ours}, the paper's {'none' if theirs is None else theirs}"
    return None
