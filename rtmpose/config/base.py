"""What every group of parameters is built on: refusal of unknown keys, and one-line errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rtmpose.files import UserError

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of every parameter group: unknown keys are refused, values are frozen after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse(model: type[Model], content: Any, path: Path) -> Model:
    """Validate `content` read from `path`; the first problem becomes one line naming file, key and reason."""
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
