"""Which parameters a search may vary, and what a point of its space is.

A space maps paths into `params.yaml` to ranges or choices. One name is not a path: `sigma_factor` multiplies
the recipe's σ on both axes. Nothing here imports torch or Optuna before it is asked for a suggestion.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from rtmpose.config import Params, SearchRange, refuse_baseline, with_values
from rtmpose.files import UserError

if TYPE_CHECKING:
    from rtmpose.search.ledger import TrialRecord

SIGMA_FACTOR = "sigma_factor"
# Of `model`; its size and backbone are those of the pretrained weights.
ARCHITECTURE = ("kernel", "hidden", "gau")
# What a trial depends on: names, and groups of which every key counts.
SEARCHED = (
    *(f"model.{name}" for name in ARCHITECTURE),
    "model.weight_decay",
    "finetune.batch_size",
    "finetune.tau",
    "finetune.sigma",
    "finetune.freeze",
    "finetune.optim.",
    "finetune.strong.",
)
NOT_SEARCHED = ("finetune.optim.ema_gamma",)  # a trial is short and keeps no average

Point = dict[str, Any]


def resolved(params: Params, point: Mapping[str, Any]) -> Point:
    """A point as values of parameters: `sigma_factor` becomes `finetune.sigma`, in bins per axis."""
    values = {path: value for path, value in point.items() if path != SIGMA_FACTOR}
    if SIGMA_FACTOR in point:
        from rtmpose.targets import SimCC

        sides = SimCC(params.input_size, sigma=params.finetune.sigma).sigma
        values["finetune.sigma"] = [point[SIGMA_FACTOR] * float(side) for side in sides]
    return values


def reference_point(params: Params) -> Point:
    """The recipe's own values at the searched paths."""
    content = params.model_dump(mode="json")

    def value(path: str) -> Any:
        found: Any = content
        for part in path.split("."):
            found = found[part]
        return found

    return {path: 1.0 if path == SIGMA_FACTOR else value(path) for path in params.search.space}


def check_space(params: Params) -> None:
    """Refuse, before any trial, a path that is none or that no trial depends on, and ranges the parameters do
    not allow.

    Both ends of a range and every choice are tried, each with the recipe's other values.
    """
    if params.search.enabled:
        refuse_baseline(params)
    space = params.search.space
    if SIGMA_FACTOR in space and "finetune.sigma" in space:
        raise _mistake("finetune.sigma", "sigma_factor varies the same parameter; remove one of the two")
    for path, allowed in space.items():
        kind = _kind(path)
        if allowed.choices is None and kind is None:
            fix = (
                f"search {SIGMA_FACTOR}, or write {{choices: [...]}}"
                if path == "finetune.sigma"
                else "write {choices: [...]}"
            )
            raise _mistake(path, f"is not a number; {fix}")
        if kind == "int" and any(end is not None and end != int(end) for end in (allowed.low, allowed.high)):
            raise _mistake(
                path, f"is a whole number; low {allowed.low:g} and high {allowed.high:g} must be, too"
            )
        for value in _extremes(allowed, kind):
            try:
                with_values(params, resolved(params, {path: value}))
            except ValueError as error:
                raise _mistake(path, f"{value} is not possible: {error}") from None


def variants(params: Params) -> Iterable[tuple[str, Any, Params]]:
    """(path, value, the recipe with that value) for both ends of every range and for every choice of a
    checked space.
    """
    for path, allowed in params.search.space.items():
        for value in _extremes(allowed, _kind(path)):
            yield path, value, with_values(params, resolved(params, {path: value}))


def suggest(params: Params, number: int, before: Iterable[TrialRecord]) -> Point:
    """The point of the searched trial `number`: a function of the seed, the number and what is known of the
    others alone.

    Optuna's TPE; trials that were stopped early count by how far they came, those still running as poor ones.
    """
    import numpy as np
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = params.search.space
    distributions = {path: _distribution(path, allowed) for path, allowed in space.items()}
    seed = int(np.random.SeedSequence((params.seed, number)).generate_state(1)[0])
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    states = {"running": TrialState.RUNNING, "stopped": TrialState.PRUNED, "finished": TrialState.COMPLETE}
    for trial in before:
        known = {path: _encoded(space[path], value) for path, value in trial.point.items()}
        study.add_trial(
            create_trial(
                state=states[trial.status],
                value=None if trial.status == "running" else trial.reports[-1]["AP"],
                params=known,
                distributions=distributions,
                intermediate_values={report["report"]: report["AP"] for report in trial.reports},
            )
        )
    drawn = study.ask(distributions).params
    return {path: _decoded(allowed, drawn[path]) for path, allowed in space.items()}


def _mistake(path: str, text: str) -> UserError:
    return UserError(f"params.yaml: search.space.{path}: {text}")


def _kind(path: str) -> Literal["int", "float"] | None:
    """Whether a searched parameter is an integer or a float, None for anything else; UserError where it
    cannot be searched.
    """
    if path == SIGMA_FACTOR:
        return "float"
    annotation: Any = Params
    for part in path.split("."):
        fields = (
            annotation.model_fields
            if isinstance(annotation, type) and issubclass(annotation, BaseModel)
            else {}
        )
        if part not in fields:
            raise _mistake(path, f"no such parameter{_alike(path)}")
        annotation = fields[part].annotation
    if path in NOT_SEARCHED or not any(
        path == name or (name[-1] == "." and path.startswith(name)) for name in SEARCHED
    ):
        shown = ", ".join(f"{name}*" if name.endswith(".") else name for name in SEARCHED)
        raise _mistake(
            path,
            f"no trial depends on it, or it would change what is compared; search {SIGMA_FACTOR} or {shown}",
        )
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = [kind for kind in get_args(annotation) if kind is not type(None)]
    return "int" if annotation is int else "float" if annotation is float else None


def _alike(path: str) -> str:
    """The nearest name that can be searched, as a hint."""
    names = [SIGMA_FACTOR]
    for name in SEARCHED:
        group = {"finetune.optim.": "optim", "finetune.strong.": "strong"}.get(name)
        fields: Any = Params.model_fields["finetune"].annotation
        names += (
            [f"{name}{key}" for key in fields.model_fields[group].annotation.model_fields]
            if group
            else [name]
        )
    near = difflib.get_close_matches(path, names, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _extremes(allowed: SearchRange, kind: str | None) -> list[Any]:
    if allowed.choices is not None:
        return allowed.choices
    assert allowed.low is not None and allowed.high is not None
    return [int(allowed.low), int(allowed.high)] if kind == "int" else [allowed.low, allowed.high]


def _distribution(path: str, allowed: SearchRange) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if allowed.choices is not None:
        # By position: Optuna takes no lists as values.
        return CategoricalDistribution(range(len(allowed.choices)))
    assert allowed.low is not None and allowed.high is not None
    if _kind(path) == "int":
        return IntDistribution(int(allowed.low), int(allowed.high), log=allowed.log)
    return FloatDistribution(allowed.low, allowed.high, log=allowed.log)


def _encoded(allowed: SearchRange, value: Any) -> Any:
    return value if allowed.choices is None else allowed.choices.index(value)


def _decoded(allowed: SearchRange, value: Any) -> Any:
    return value if allowed.choices is None else allowed.choices[value]
