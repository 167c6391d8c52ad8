"""MLflow runs: parameters, curves, files and pictures of what is trained, through MLflow's client.

No run is globally "active", and the store does not follow the current folder. Curves, parameters and model
versions live in MLflow; data, stages and final metrics live in DVC; the two meet in the tags that
`fingerprint.lineage_tags` makes. MLflow is imported inside the functions: it takes a second.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtmpose.checkout import code_root, home, in_job, shared
from rtmpose.config import setup_environment
from rtmpose.files import UserError, destination, temporary_beside, writing
from rtmpose.tracking.answers import no_answer, reachable, without_password, without_users

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from numpy.typing import NDArray

EXPERIMENT = "rtmpose"
PARAMS_PER_REQUEST = 100  # MLflow takes no more at once


def tracking_uri() -> str:
    """Where MLflow points now: `MLFLOW_TRACKING_URI`, else `mlflow.db` in the checkout, always absolute.

    It is the code's own checkout, or the current folder where a wheel is installed; inside a Ray job, the
    checkout that the job is a copy of.

    A relative SQLite path is a UserError: it would follow the current folder, and queued DVC experiments run
    elsewhere.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        base = shared("mlflow.db") if in_job() else home("mlflow.db", start=code_root())
        return f"sqlite:///{base}"
    if uri.startswith("sqlite:") and not Path(_sqlite_path(uri)).is_absolute():
        raise UserError(
            f"MLFLOW_TRACKING_URI: {uri} is relative; write four slashes, sqlite:////absolute/path/mlflow.db"
        )
    return uri


def is_there() -> bool:
    """Whether there is a store to ask: a local data base that nothing was written to yet is not made for a
    question.
    """
    uri = tracking_uri()
    return not uri.startswith("sqlite:") or Path(_sqlite_path(uri)).exists()


def refuse_absent(name: str) -> None:
    """UserError where there is no store that could hold the model `name`: none is made for a question."""
    if not is_there():
        raise UserError(
            f"{name}: no such registered model: there is no store at {tracking_uri()} yet; `dvc repro` makes "
            "one, MLFLOW_TRACKING_URI names another"
        )


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
    with reachable(uri):
        if uri.startswith("sqlite:"):
            _prepare(Path(_sqlite_path(uri)))
        elif not uri.startswith(("http:", "https:")):
            _connect(uri)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def start_or_resume_run(name: str, run_id: str | None = None, tags: Mapping[str, str] | None = None) -> str:
    """Open the run `run_id` again where MLflow points now, or a new one called `name`; its id is returned.

    A `run_id` that this store does not hold (another store is configured since) gives a new run as well.
    """
    store = client()
    with reachable(tracking_uri()):
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
    with reachable(tracking_uri()):
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

    if not is_there():
        return False
    try:
        return client().get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise no_answer(tracking_uri(), error) from None


def log_params_flat(run_id: str, params: Mapping[str, Any]) -> None:
    """Log nested parameters as `group.key`, URLs without users and passwords. Those a run already has stay:
    MLflow's parameters are written once.
    """
    from mlflow.entities import Param

    store = client()
    with reachable(tracking_uri()):
        known = store.get_run(run_id).data.params
        new = [
            Param(key, without_users(str(value)))
            for key, value in flatten(params).items()
            if key not in known
        ]
        for start in range(0, len(new), PARAMS_PER_REQUEST):
            store.log_batch(run_id, params=new[start : start + PARAMS_PER_REQUEST])


def log_metrics(run_id: str, metrics: Mapping[str, Any], step: int = 0) -> None:
    """Log the finite numbers of (nested) `metrics` at `step`, in one request; everything else is left out.

    UserError when the store does not answer: whoever trains may go on without the curve.
    """
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    numbers = {
        key: float(value) for key, value in flatten(metrics).items() if isinstance(value, (int, float))
    }
    points = [Metric(key, value, now, step) for key, value in numbers.items() if math.isfinite(value)]
    if points:
        store = client()
        with reachable(tracking_uri()):
            store.log_batch(run_id, metrics=points)


def log_file(run_id: str, path: Path, folder: str | None = None) -> None:
    """Log a file as an artifact of the run, inside `folder`."""
    if not path.is_file():
        raise UserError(f"{path}: no such file to log")
    store = client()
    with reachable(tracking_uri()):
        store.log_artifact(run_id, str(path), folder)


def log_image(run_id: str, pixels: NDArray[np.uint8], key: str, step: int) -> None:
    """Log an RGB image (H, W, 3) as `key` at `step`: MLflow shows the images of one key with a slider over
    their steps.
    """
    store = client()
    with reachable(tracking_uri()):
        store.log_image(run_id, pixels, key=key, step=step, synchronous=True)


def logged_steps(run_id: str, key: str) -> set[int]:
    """The steps at which MLflow has the metric `key` of a run."""
    store = client()
    with reachable(tracking_uri()):
        return {metric.step for metric in store.get_metric_history(run_id, key)}


def image_steps(run_id: str, key: str) -> set[int]:
    """The steps at which MLflow has the image `key` of a run."""
    store = client()
    with reachable(tracking_uri()):
        names = [file.path for file in store.list_artifacts(run_id, "images")]
    start = f"images/{key.replace('/', '~')}+step+"
    # The small copy is written last: without it the image is not whole.
    whole = [name for name in names if name.startswith(start) and "+compressed" in name]
    return {int(name.removeprefix(start).partition("+")[0]) for name in whole}


def run_started(run_id: str) -> float:
    """When a run began, in seconds since the epoch of Unix."""
    store = client()
    with reachable(tracking_uri()):
        return float(store.get_run(run_id).info.start_time) / 1000


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}; lists stay values. MLflow refuses some characters in names: those become
    `_`.
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = prefix + "".join(c if c.isalnum() or c in "_-. /" else "_" for c in str(key))
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _sqlite_path(uri: str) -> str:
    return uri.partition("///")[2].partition("?")[0]


def _quiet() -> None:
    """MLflow tells every table it creates at INFO; a stage prints one line of its own."""
    import logging

    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # read when mlflow is imported
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Its lines hold the server's URL, and with it the password.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])


def _experiment(store: MlflowClient) -> str:
    """The id of the project's experiment; a local store keeps its artifacts beside its data base."""
    found = store.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    return str(store.create_experiment(EXPERIMENT, artifact_location=_artifacts(tracking_uri())))


def _artifacts(uri: str) -> str | None:
    """Where the experiment's files go: a server knows that itself, a local data base has them beside it.

    MLflow would put those of another data base into a folder of the current folder, on this machine alone.
    """
    if root := os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT"):
        return root
    if uri.startswith("sqlite:"):
        return (Path(_sqlite_path(uri)).parent / "mlruns").as_uri()
    if uri.startswith(("http:", "https:")):
        return None
    raise UserError(
        f"MLFLOW_TRACKING_URI: {without_password(uri)} says not where files go; set "
        "MLFLOW_DEFAULT_ARTIFACT_ROOT, such as s3://bucket/mlflow, or give the address of a server on it"
    )


def _prepare(path: Path) -> None:
    """See to it that a local data base is there and can be written to, before MLflow tries it for minutes.

    A new one appears whole or not at all: a process that is killed while MLflow makes its tables would leave
    one that no later process can use.
    """
    import sqlite3

    path = destination(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _create(path)
    with writing(path), path.open("ab"):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA schema_version").fetchone()


@cache
def _connect(uri: str) -> None:
    """See to it, once, that a data base's server answers: MLflow would try for two minutes and tell of each
    attempt.
    """
    from sqlalchemy import create_engine

    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    engine = create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _create(path: Path) -> None:
    """A data base with MLflow's tables; one that another process has made meanwhile stays."""
    from mlflow import MlflowClient

    for left in path.parent.glob(f".{path.name}.*.tmp*"):  # of a process that was killed over one
        if time.time() - left.stat().st_mtime > 600:
            left.unlink(missing_ok=True)
    temporary = temporary_beside(path)
    try:
        with writing(path):
            temporary.touch()
        uri = f"sqlite:///{temporary}"
        MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
        with writing(path):
            _link(temporary, path)
    finally:
        with suppress(OSError):  # the first error is the one to be told
            temporary.unlink(missing_ok=True)


def _link(new: Path, path: Path) -> None:
    """Give a whole file its name `path`, unless another one has it."""
    try:
        os.link(new, path)
    except OSError:  # somebody was faster, or the file system has no hard links
        if not path.exists():
            new.rename(path)
