"""Runs and registered models in MLflow, through its client: no global "active run", no store that follows the
folder.

Curves, parameters and model versions live in MLflow; data, stages and final metrics live in DVC; the two meet
in the tags that `lineage_tags` makes. MLflow is imported inside the functions: it takes a second.
"""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from rtmpose.config import setup_environment
from rtmpose.files import UserError, home, outside_experiment

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature
    from numpy.typing import NDArray

EXPERIMENT = "rtmpose"
ALIAS = "candidate"
BATCH = 100  # MLflow takes at most this many parameters in one request


def repo_root() -> Path:
    """The checkout this package was installed from, else the current folder (a wheel knows no checkout).

    A DVC experiment's copy below `.dvc/tmp/exps` is deleted afterwards: it stands for the checkout it was
    made from.
    """
    code = code_root()
    return home() if code is None else outside_experiment(code)


def code_root() -> Path | None:
    """The checkout, or a DVC experiment's copy of it, that this very code was loaded from; None for
    a wheel.
    """
    code = Path(__file__).resolve().parent.parent
    return code if (code / "pyproject.toml").exists() else None


def tracking_uri() -> str:
    """Where MLflow points now: `MLFLOW_TRACKING_URI`, else `mlflow.db` in the checkout, always absolute.

    A relative SQLite path is a UserError: it would follow the current folder, and queued DVC experiments run
    elsewhere.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return f"sqlite:///{repo_root() / 'mlflow.db'}"
    if uri.startswith("sqlite:") and not Path(_sqlite_path(uri)).is_absolute():
        raise UserError(
            f"MLFLOW_TRACKING_URI: {uri} is relative; write four slashes, sqlite:////absolute/path/mlflow.db"
        )
    return uri


def git_commit() -> str:
    """The commit of the code: `RTMPOSE_GIT_COMMIT` (cluster jobs carry no .git), else git's HEAD (`-dirty`:
    edited).
    """
    if commit := os.environ.get("RTMPOSE_GIT_COMMIT"):
        return commit
    head = _git("rev-parse", "HEAD")
    if not head:
        return "unknown"
    return f"{head}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else head


def sha256_of(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes; UserError when there is no such file."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def lineage_tags(dvc_lock: Path, data_manifest: Path, fingerprint: str) -> dict[str, str]:
    """The tags by which a run or a model version is traced back to its code, stages, data and
    training store.
    """
    return {
        "git_commit": git_commit(),
        "dvc_lock_sha256": sha256_of(dvc_lock) if dvc_lock.exists() else "none",
        "data_manifest_sha256": sha256_of(data_manifest) if data_manifest.exists() else "none",
        "fingerprint": fingerprint,
    }


def client() -> MlflowClient:
    """A client of the store that `tracking_uri` names; UserError when the store does not answer."""
    setup_environment()
    _quiet()
    from mlflow import MlflowClient

    # An unreachable server should be an error within seconds; MLflow's own default is seven growing pauses.
    # One that takes a request and says nothing has two minutes there.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    uri = tracking_uri()
    with _reachable(uri):
        if uri.startswith("sqlite:"):
            Path(_sqlite_path(uri)).parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def start_or_resume_run(name: str, run_id: str | None = None, tags: Mapping[str, str] | None = None) -> str:
    """Open the run `run_id` again where MLflow points now, or a new one called `name`; its id is returned.

    A `run_id` that this store does not hold (another store is configured since) gives a new run as well.
    """
    store = client()
    with _reachable(tracking_uri()):
        if run_id is not None and has_run(run_id):
            store.update_run(run_id, status="RUNNING")
        else:
            run_id = store.create_run(_experiment(store), run_name=name).info.run_id
        for key, value in (tags or {}).items():
            store.set_tag(run_id, key, value)
    return run_id


def end_run(run_id: str, status: str = "FINISHED") -> None:
    """Mark a run as FINISHED, FAILED or KILLED."""
    store = client()
    with _reachable(tracking_uri()):
        store.set_terminated(run_id, status)


@contextmanager
def finished(run_id: str) -> Iterator[None]:
    """Mark the run as FINISHED when the block succeeds, as FAILED when it raises anything,
    Ctrl-C included.
    """
    try:
        yield
    except BaseException:
        with suppress(UserError):  # a store that is gone must not hide what went wrong first
            end_run(run_id, "FAILED")
        raise
    end_run(run_id)


def has_run(run_id: str) -> bool:
    """Whether MLflow's present store holds this run (and it was not deleted)."""
    from mlflow.exceptions import MlflowException

    try:
        return client().get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def log_params_flat(run_id: str, params: Mapping[str, Any]) -> None:
    """Log nested parameters as `group.key`. Those a run already has stay: MLflow's parameters are written
    once.
    """
    from mlflow.entities import Param

    store = client()
    with _reachable(tracking_uri()):
        known = store.get_run(run_id).data.params
        new = [Param(key, str(value)) for key, value in flatten(params).items() if key not in known]
        for start in range(0, len(new), BATCH):
            store.log_batch(run_id, params=new[start : start + BATCH])


def log_metrics(run_id: str, metrics: Mapping[str, Any], step: int = 0) -> None:
    """Log the finite numbers of (nested) `metrics` at `step`, in one request; everything else is left out.

    UserError when the store does not answer: whoever trains may go on without the curve.
    """
    import time

    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    numbers = {
        key: float(value) for key, value in flatten(metrics).items() if isinstance(value, (int, float))
    }
    points = [Metric(key, value, now, step) for key, value in numbers.items() if math.isfinite(value)]
    if points:
        store = client()
        with _reachable(tracking_uri()):
            store.log_batch(run_id, metrics=points)


def log_file(run_id: str, path: Path, folder: str | None = None) -> None:
    """Log a file as an artifact of the run, inside `folder`."""
    if not path.is_file():
        raise UserError(f"{path}: no such file to log")
    store = client()
    with _reachable(tracking_uri()):
        store.log_artifact(run_id, str(path), folder)


def log_image(run_id: str, pixels: NDArray[np.uint8], key: str, step: int) -> None:
    """Log an RGB image (H, W, 3) as `key` at `step`: MLflow shows the images of one key with a slider over
    their steps.
    """
    store = client()
    with _reachable(tracking_uri()):
        store.log_image(run_id, pixels, key=key, step=step, synchronous=True)


def logged_steps(run_id: str, key: str) -> set[int]:
    """The steps at which MLflow has the metric `key` of a run."""
    store = client()
    with _reachable(tracking_uri()):
        return {metric.step for metric in store.get_metric_history(run_id, key)}


def image_steps(run_id: str, key: str) -> set[int]:
    """The steps at which MLflow has the image `key` of a run."""
    store = client()
    with _reachable(tracking_uri()):
        names = [file.path for file in store.list_artifacts(run_id, "images")]
    start = f"images/{key.replace('/', '~')}+step+"
    # The small copy is written last: without it the image is not whole.
    whole = [name for name in names if name.startswith(start) and "+compressed" in name]
    return {int(name.removeprefix(start).partition("+")[0]) for name in whole}


def run_started(run_id: str) -> float:
    """When a run began, in seconds since the epoch of Unix."""
    store = client()
    with _reachable(tracking_uri()):
        return float(store.get_run(run_id).info.start_time) / 1000


def register(
    onnx_path: Path, *, name: str, run_id: str, tags: Mapping[str, str], requirements: Sequence[str]
) -> dict[str, Any]:
    """Register an exported model as a new version of `name` with the alias `candidate`, logged within the run
    `run_id`.

    The signature (batch dimension -1) is read from the ONNX graph, the input example is a batch of two mean
    images. Returns the receipt {name, version, run_id, tracking_uri, alias, sha256}; UserError when the file
    is no ONNX model.
    """
    import mlflow.onnx

    model, digest = _load_onnx(onnx_path), sha256_of(onnx_path)
    signature, example = _signature(model)
    store = client()
    # MLflow's flavors, and the registry's resolution of a model's own id, know only the global store.
    with _pointing(tracking_uri()):
        with mlflow.start_run(run_id=run_id):
            info = mlflow.onnx.log_model(
                model,
                name="model",
                signature=signature,
                input_example=example,
                pip_requirements=list(requirements),
                save_as_external_data=False,
                onnx_execution_providers=["CPUExecutionProvider"],
                tags={**tags, "sha256": digest},
            )
        if not store.search_registered_models(f"name = '{name}'"):
            store.create_registered_model(name)
        version = store.create_model_version(
            name, info.model_uri, run_id=run_id, tags={**tags, "sha256": digest}, model_id=info.model_id
        ).version
        store.set_registered_model_alias(name, ALIAS, version)
    return {
        "name": name,
        "version": int(version),
        "run_id": run_id,
        "tracking_uri": without_password(tracking_uri()),
        "alias": ALIAS,
        "sha256": digest,
    }


def still_registered(receipt: Mapping[str, Any]) -> bool:
    """Whether the version a receipt names exists where MLflow points now, and holds the same file."""
    from mlflow.exceptions import MlflowException

    try:
        version = client().get_model_version(str(receipt["name"]), str(receipt["version"]))
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise _no_answer(tracking_uri(), error) from None
    return version.tags.get("sha256") == receipt["sha256"]


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}; lists stay values. MLflow refuses some characters in names: those become
    `_`.
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = prefix + "".join(c if c.isalnum() or c in "_-. /" else "_" for c in str(key))
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def without_password(uri: str) -> str:
    """The URI without the user and password some tracking servers need: receipts are committed."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.username else uri


def _sqlite_path(uri: str) -> str:
    return uri.partition("///")[2].partition("?")[0]


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(code_root() or Path.cwd()), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _quiet() -> None:
    """MLflow tells every table it creates at INFO; a stage prints one line of its own."""
    import logging

    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # read when mlflow is imported
    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])


def _experiment(store: MlflowClient) -> str:
    """The id of the project's experiment; a local store keeps its artifacts beside its data base."""
    found = store.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    uri = tracking_uri()
    artifacts = (Path(_sqlite_path(uri)).parent / "mlruns").as_uri() if uri.startswith("sqlite:") else None
    return str(store.create_experiment(EXPERIMENT, artifact_location=artifacts))


@contextmanager
def _reachable(uri: str) -> Iterator[None]:
    """A store that does not answer is the user's to mend: one line instead of MLflow's traceback."""
    import sqlite3

    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, sqlite3.Error, OSError) as error:
        raise _no_answer(uri, error) from None


def _no_answer(uri: str, error: Exception) -> UserError:
    shown = without_password(uri)
    reason = str(error).partition("\n")[0].replace(uri.rstrip("/"), shown.rstrip("/"))
    return UserError(f"MLFLOW_TRACKING_URI: {shown} does not answer ({reason})")


@contextmanager
def _pointing(uri: str) -> Iterator[None]:
    """Point MLflow's global store at `uri` for one block and put everything back, the
    environment included.
    """
    import mlflow

    environment = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if environment is not None:
            os.environ["MLFLOW_TRACKING_URI"] = environment


def _load_onnx(path: Path) -> Any:
    """The ONNX model of a file, checked; UserError when it is missing or cut short."""
    import onnx

    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the export stage") from None
    except Exception as error:  # protobuf and the checker raise unrelated classes for a damaged file
        reason = type(error).__name__
        raise UserError(f"{path}: not a complete ONNX model ({reason}); run the export stage again") from None
    return model


def _signature(model: Any) -> tuple[ModelSignature, dict[str, Any]]:
    """MLflow signature of an ONNX graph, free dimensions as -1, and a batch-2 example of its input."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(values: Any) -> Schema:
        return Schema([TensorSpec(np.dtype(np.float32), _shape(value), value.name) for value in values])

    (image,) = model.graph.input
    example = {image.name: np.zeros([2, *_shape(image)[1:]], np.float32)}
    return ModelSignature(schema(model.graph.input), schema(model.graph.output)), example


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)
