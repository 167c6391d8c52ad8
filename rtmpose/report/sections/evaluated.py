"""The file of figures, taken apart into its sets."""

from __future__ import annotations

from typing import Any, TypeVar

from rtmpose.config import Params
from rtmpose.descriptors import load_dataset, load_skeleton
from rtmpose.files import UserError
from rtmpose.report.folder import Folder, Told

EVALUATED, POOLED = "metrics/evaluate.json", "pooled"
Model = TypeVar("Model", bound=Told)


def sets_of(run: Folder, params: Params, model: type[Model]) -> dict[str, Model]:
    """What the model says of every set, by its key: the first one's stands at the top of the file. UserError
    where it is of another shape.
    """
    content: dict[str, Any] = run.object(EVALUATED)
    first = next((key for key, data in params.datasets.items() if data.evaluate), "the first set")
    others = {key: value for key, value in content.items() if isinstance(value, dict) and "AP" in value}
    found = {}
    for key, value in ({first: content} | others).items():
        found[key] = _as(run, key, value, model)
    return found


def pooled_of(run: Folder, model: type[Model]) -> Model | None:
    """What the model says of all sets together, where a recipe judges them so. UserError where it is of
    another shape.
    """
    content = run.object(EVALUATED).get(POOLED)
    return None if content is None else _as(run, POOLED, content, model)


def _as(run: Folder, key: str, value: Any, model: type[Model]) -> Model:
    try:
        return model.model_validate(value)
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{EVALUATED}: {key}: {reason}; {run.fix(EVALUATED)}") from None


def mirrors(params: Params) -> bool:
    """Whether the points may be mirrored, so that a flip test that is asked for was done; true where the
    points are not known here.
    """
    try:
        return load_skeleton(params.skeleton).mirrors
    except UserError:
        return True


def estimated(params: Params) -> list[str]:
    """The evaluation sets whose OKS sigmas nobody published, as far as their descriptors are here."""
    found = []
    for key, data in params.datasets.items():
        try:
            if data.evaluate and load_dataset(data.descriptor).sigmas_estimated:
                found.append(key)
        except UserError:
            continue
    return found
