"""What every group of parameters is built on: refusal of unknown keys, and one-line errors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rtmpose.files import UserError, read_json

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of every parameter group: unknown keys are refused, values are frozen after reading, numbers are
    finite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Record(BaseModel):
    """What a reader relies on in a JSON file that we wrote, in the right types; the file may say more."""

    model_config = ConfigDict(strict=True)


def read_record(model: type[Record], path: Path, fix: str) -> dict[str, Any]:
    """The object in a JSON file; UserError naming the file, the key and the `fix` where it is not what
    `model` says.
    """
    content = read_json(path, fix)
    try:
        parse(model, content, path)
    except UserError as error:
        raise UserError(f"{error}; {fix}") from None
    return dict(content)


def parse(model: type[Model], content: Any, path: Path) -> Model:
    """Validate `content` read from `path`; the first problem becomes one line naming file, key and reason.

    Numbers must be finite, those too that a model takes as they are, such as arguments of pixel transforms.
    """
    if issubclass(model, Strict) and (place := _infinite(content)) is not None:
        raise UserError(f"{path}: {place}: must be a finite number")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top)"
        reason = (
            "unknown key; remove it or correct its spelling"
            if first["type"] == "extra_forbidden"
            else first["msg"]
        )
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UserError(f"{path}: {key}: {reason}{more}") from None


def _infinite(content: Any, place: str = "") -> str | None:
    """Where the first number lies that is none, or is infinite."""
    if isinstance(content, float):
        return None if math.isfinite(content) else place or "(top)"
    items = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list | tuple)
        else ()
    )
    found = (_infinite(value, f"{place}.{key}" if place else str(key)) for key, value in items)
    return next((inner for inner in found if inner is not None), None)
