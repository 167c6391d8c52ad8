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
    evaluated: str  # descriptor
    epochs: int
    rows: Rows
    boxes: str
    pretrain_epochs: int = 210


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
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """The paper's row for a run's recipe, AP and AR in points of 100."""

    recipe: Recipe
    ap: float
    ar: float | None


def published(params: Params) -> Published | str:
    """The paper's row for these parameters, or why there is none: the first thing that is another."""
    rendered = [key for key, data in params.datasets.items() if data.render is not None]
    if rendered:
        return f"its data is rendered ({', '.join(rendered)}), the paper's are photographs"
    trained = {data.descriptor: data.repeat for data in params.datasets.values() if data.train}
    recipe = next((one for one in RECIPES if set(one.sets) == set(trained)), None)
    if recipe is None:
        return f"it is trained on {', '.join(trained) or 'nothing'}, which no table of the paper is"
    if len(recipe.sets) > 1 and trained != recipe.sets:
        shown = ", ".join(f"{name} ×{count}" for name, count in trained.items())
        theirs = ", ".join(f"{name} ×{count}" for name, count in recipe.sets.items())
        return f"an epoch shows {shown}, the paper's {theirs}"
    first = next((data.descriptor for data in params.datasets.values() if data.evaluate), None)
    for what, ours, theirs_ in (
        ("it is evaluated on", first, recipe.evaluated),
        ("epochs of finetuning:", params.finetune.epochs, recipe.epochs),
        ("epochs of pretraining:", params.pretrain.epochs * params.pretrain.enabled, recipe.pretrain_epochs),
        ("backbone:", params.model.backbone, "cspnext"),
        ("head:", params.model.head, "simcc"),
    ):
        if ours != theirs_:
            return f"{what} {ours}, the paper's {theirs_}"
    row = recipe.rows.get((params.model.size, params.input_size))
    if row is None:
        width, height = params.input_size
        return f"the paper has no figure for size {params.model.size} at {width}×{height}"
    return Published(recipe, *row)
