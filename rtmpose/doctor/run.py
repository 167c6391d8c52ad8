"""All questions, asked a few at a time, and their answers put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from rtmpose.config import Params
from rtmpose.doctor import machine, recipe, runtimes, services
from rtmpose.doctor.child import ask
from rtmpose.doctor.finding import Finding, guarded, lack, note
from rtmpose.doctor.fixes import Command
from rtmpose.doctor.report import Report
from rtmpose.files import UserError

AT_ONCE = 4  # processes that import large packages side by side
Look = Callable[[], Iterable[Finding]]


def examine(overrides: Sequence[str] = ()) -> Report:
    """Look at this machine, and at what the recipe asks of it that `dvc exp run -S …` with these overrides
    would run, or without any that of params.yaml. Raises nothing for what is missing; it is in the report.
    """
    params, wrong = _params(overrides)
    command = Command(tuple(overrides)) if params is None else Command.of(params, overrides)
    uri, unusable = services.store()
    address = services.cluster(params)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        torch, ray, dvc = pool.submit(ask, "torch"), pool.submit(ask, "ray", address), pool.submit(ask, "dvc")
        mlflow = pool.submit(ask, "mlflow", uri) if unusable is None else None
        opened = [
            pool.submit(guarded, each.title, partial(runtimes.installed, each)) for each in runtimes.PACKAGES
        ]
        found = _all(
            ("Python", machine.python_and_packages),
            ("CPU", machine.cpu),
            ("memory", machine.memory),
            ("disk", partial(machine.disk, Path.cwd())),
            ("GPU", lambda: machine.gpu(torch.result())),
        )
        known = [line for each in opened for line in each.result()] + guarded("runtimes", runtimes.apart)
        found += known
        found += _all(
            ("git", services.git),
            ("DVC", lambda: services.dvc(dvc.result())),
            ("Ray", lambda: services.ray(address, ray.result(), command)),
            ("MLflow", lambda: services.mlflow(uri, mlflow.result()) if mlflow else filter(None, [unusable])),
        )
    if params is None:
        lost = [wrong] if wrong else []
        return (
            Report(found, _named(overrides), lost)
            if overrides or recipe.PARAMS.exists()
            else Report(found + lost)
        )
    wanted = _all(
        *recipe.of(params, torch.result(), address, command),
        ("targets", lambda: runtimes.tried_by(params, known, command)),
    )
    return Report(found, params.recipe, wanted)


def _params(overrides: Sequence[str]) -> tuple[Params | None, Finding | None]:
    """The parameters, or why there are none; neither where no recipe was asked for and none is here."""
    if not overrides and not recipe.PARAMS.exists():
        return None, note("parameters", "no params.yaml in this folder: only the machine was looked at")
    try:
        return recipe.composed(overrides), None
    except UserError as error:
        return None, lack("parameters", str(error), "correct what the line names")


def _named(overrides: Sequence[str]) -> str:
    """The recipe that overrides name, for a report without parameters."""
    named = [text.partition("=")[2] for text in overrides if text.startswith("recipe=")]
    return named[-1] if named else str(recipe.PARAMS)


def _all(*looks: tuple[str, Look]) -> list[Finding]:
    return [line for what, look in looks for line in guarded(what, look)]
