"""What the search's tests share: the default parameters with another space, and a look into MLflow."""

from __future__ import annotations

from typing import Any

from rtmpose.config import Params, SearchRange
from rtmpose.search.ledger import TrialRecord
from rtmpose.search.report import TrialRuns
from rtmpose.tracking import runs

Space = dict[str, dict[str, Any]]
TAU = {"low": 0.05, "high": 0.2, "log": True}


def searching(params: Params, space: Space | None = None, **changes: Any) -> Params:
    """`params` with another space and other keys of `search`."""
    ranges = {"space": {path: SearchRange(**allowed) for path, allowed in space.items()}} if space else {}
    return params.model_copy(update={"search": params.search.model_copy(update=changes | ranges)})


def children(parent: str) -> list[Any]:
    """The runs in MLflow that are nested in `parent`."""
    store = runs.client()
    experiment = store.get_run(parent).info.experiment_id
    return list(store.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'"))


class Silent(TrialRuns):
    """Logs nothing."""

    def __init__(self) -> None:
        pass

    def log(self, trial: TrialRecord, status: str | None = None) -> None:
        pass
