"""Where a model lies: a file, a registered version in MLflow, or weights that others released."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from rtmpose.files import UserError, is_there, locked

REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
ONNX = "rtmpose.onnx"
FIX = "give an ONNX file, models:/NAME@ALIAS, or a name that `rtmpose weights list` shows"


def cache_folder() -> Path:
    """Where files that were fetched are kept: `rtmpose` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtmpose"


def model_file(model: str | Path, option: str = "--model") -> Path:
    """The ONNX file of a model: the path itself, `models:/NAME@ALIAS` or `models:/NAME/VERSION` of the store
    that MLflow points to, or the name of released weights.

    What is fetched is kept in `cache_folder`; a version's files are checked by their hashes each time.
    UserError naming the `option` where nothing is there.
    """
    text = str(model)
    if text.startswith("models:"):
        return _registered(text, option)
    if is_there(Path(text)):
        return Path(text)
    from rtmpose.released.catalogue import known

    if text in known():
        from rtmpose.released.download import pull

        return pull(text)
    raise UserError(f"{option} {text[:200]}: no such file, and no released weights of that name; {FIX}")


def _registered(text: str, option: str) -> Path:
    """The ONNX file of a version that a URI names, with the version's other files beside it."""
    found = REGISTERED.fullmatch(text)
    if found is None:
        raise UserError(f"{option} {text[:200]}: no URI of a registered model; {FIX}")
    from rtmpose.tracking.models import version_files

    name, alias = found["name"], found["alias"]
    version = found["version"] or _aliased(name, alias)
    folder = cache_folder() / "models" / quote(name, safe="") / version
    with locked(folder.with_suffix(".lock")):
        return version_files(name, version, folder)[ONNX]


def _aliased(name: str, alias: str) -> str:
    """The number of the version that an alias points to; UserError where there is none."""
    from mlflow.exceptions import MlflowException

    from rtmpose.tracking.answers import no_answer, reachable, without_password
    from rtmpose.tracking.runs import client, tracking_uri

    uri = tracking_uri()
    try:
        with reachable(uri):
            return str(client().get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise UserError(
                f"models:/{name}@{alias}: no such model or alias in {without_password(uri)}; "
                "`rtmpose models list` shows what there is"
            ) from None
        raise no_answer(uri, error) from None
