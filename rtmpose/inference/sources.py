"""Where a model lies: a file, a registered version in MLflow, or weights that others released.

A registered version holds the model in several precisions, and says which of them won on which deploy target
(`rtmpose.tracking.models.picks`). On a machine that is such a target the winner is opened.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args
from urllib.parse import quote

from rtmpose.deploy.runtimes.base import ModelFiles, Precision, RuntimeName, tried_parts
from rtmpose.deploy.targets import Target, load_target
from rtmpose.files import UserError, is_there, locked

LOG = logging.getLogger(__name__)
REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
ONNX, WEIGHTS = "rtmpose.onnx", "rtmpose.pt"
FIX = "give an ONNX file, models:/NAME@ALIAS, or a name that `rtmpose weights list` shows"


@dataclass(frozen=True)
class Source:
    """A model's files, and what it runs in; `why` is what a user has to know of that choice."""

    files: ModelFiles
    runtime: RuntimeName = "onnxruntime"
    precision: Precision = "fp32"
    why: str | None = None


def model_source(model: str | Path, precision: str | None = None) -> Source:
    """A pose model as it is to be run here.

    A file, and released weights, are run as they are. Of `models:/NAME@ALIAS` and `models:/NAME/VERSION` it
    is what was picked for the deploy target that this machine is; `precision` says otherwise, in ONNX
    Runtime. UserError where nothing is there, and for a precision that cannot be had.
    """
    text = str(model)
    if text.startswith("models:"):
        return _version_source(text, precision)
    if precision is not None:
        raise UserError(
            f"--precision {precision}: chooses among the files of models:/NAME@ALIAS; of {text[:200]} name "
            "the file itself, such as s.int8.onnx"
        )
    return Source(ModelFiles(model_file(model)))


def model_file(model: str | Path, option: str = "--model") -> Path:
    """The ONNX file of a model: the path itself, `models:/NAME@ALIAS` or `models:/NAME/VERSION` of the store
    that MLflow points to, or the name of released weights.

    What is fetched is kept in `rtmpose.released.mirrors.cache_folder`; a version's files are checked by their
    hashes each time. UserError naming the `option` where nothing is there.
    """
    text = str(model)
    if text.startswith("models:"):
        return _fetched(*_version(text, option))[ONNX]
    if is_there(Path(text)):
        return Path(text)
    from rtmpose.released.catalogue import known

    if text in known():
        from rtmpose.released.download import pull

        return pull(text)
    raise UserError(f"{option} {text[:200]}: no such file, and no released weights of that name; {FIX}")


def _version_source(text: str, precision: str | None) -> Source:
    """What of a registered version is run here."""
    from rtmpose.tracking.models import picks

    name, version = _version(text, "--model")
    found = _fetched(name, version)
    files = ModelFiles(found[ONNX], found.get(WEIGHTS))
    if precision is not None:
        if precision not in get_args(Precision):
            raise UserError(f"--precision: {precision!r} is none of {', '.join(get_args(Precision))}")
        chosen = files.form(cast(Precision, precision))
        if chosen.name not in found:
            raise UserError(f"--precision {precision}: {text} holds no {chosen.name}; leave --precision out")
        return Source(files, "onnxruntime", cast(Precision, precision))
    here = _picked_here(picks(name, version))
    if here is None:
        return Source(files, why=f"{text}: nothing was picked for a target that this machine is: fp32 is run")
    target, picked = here
    if picked is None:
        return Source(files, why=f"{text}: nothing passed on target {target}: fp32 is run")
    runtime, kind, _ = tried_parts(picked)
    return Source(files, runtime, kind, f"{text}: {runtime} in {kind} is run, as picked for target {target}")


def _picked_here(picks: Mapping[str, str | None]) -> tuple[str, str | None] | None:
    """The target that this machine is, and what was picked for it; one of a board comes before one of a kind
    of CPU. None where this machine is no target, or only those of a GPU.
    """
    fitting = [(target, picks[name]) for name in picks if (target := _target_here(name)) is not None]
    if not fitting:
        return None
    target, picked = min(fitting, key=lambda pair: (pair[0].board is None, pair[0].name))
    return target.name, picked


def _target_here(name: str) -> Target | None:
    """A deploy target where it is this machine's CPU."""
    try:
        target = load_target(name)
        target.refuse_elsewhere()
    except UserError as error:  # another machine's, or one that is described elsewhere
        LOG.debug("target %s: not here: %s", name, error)
        return None
    return target if target.device == "cpu" else None


def _version(text: str, option: str) -> tuple[str, str]:
    """The registered model and the version's number that a URI names."""
    found = REGISTERED.fullmatch(text)
    if found is None:
        raise UserError(f"{option} {text[:200]}: no URI of a registered model; {FIX}")
    return found["name"], found["version"] or _aliased(found["name"], found["alias"])


def _fetched(name: str, version: str) -> dict[str, Path]:
    """Where the files of a version lie, by name; they are fetched into the cache."""
    from rtmpose.released.mirrors import cache_folder
    from rtmpose.tracking.models import version_files

    folder = cache_folder() / "models" / quote(name, safe="") / version
    with locked(folder.with_suffix(".lock")):
        return version_files(name, version, folder)


def _aliased(name: str, alias: str) -> str:
    """The number of the version that an alias points to; UserError where there is none."""
    from mlflow.exceptions import MlflowException

    from rtmpose.tracking.answers import no_answer, without_password
    from rtmpose.tracking.runs import client, tracking_uri
    from rtmpose.tracking.runs import is_there as has_store

    uri = tracking_uri()
    missing = UserError(
        f"models:/{name}@{alias}: no such model or alias in {without_password(uri)}; "
        "`rtmpose models list` shows what there is"
    )
    if not has_store():
        raise missing
    try:
        return str(client().get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise missing from None
        raise no_answer(uri, error) from None
