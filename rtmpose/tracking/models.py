"""Registered models in MLflow: an exported network becomes a version with its lineage, and is found again."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtmpose.files import UserError, sha256_of, temporary_beside, writing
from rtmpose.tracking.answers import no_answer, reachable, without_password
from rtmpose.tracking.runs import client, refuse_absent, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

ALIAS = "candidate"
ONNX = "rtmpose.onnx"
DIGEST = "sha256"  # the tag with the hash of rtmpose.onnx
PICKED = "picked."  # the beginning of tags: what runtime and precision each deploy target gets
NOTHING = "nothing"  # passed there


def register(
    files: Sequence[Path],
    *,
    program: Path,
    name: str,
    run_id: str,
    tags: Mapping[str, str],
    requirements: Sequence[str],
) -> dict[str, Any]:
    """Register deployed files as a new version of `name` with the alias `candidate`, logged within the run
    `run_id`. MLflow serves the version by the Python file `program`, which finds the files as artifacts.

    One of the files is `rtmpose.onnx`. Each file's hash is a tag of the version: `sha256` of that one,
    `sha256.<file name>` of the others. Returns the receipt {name, version, run_id, tracking_uri, alias,
    sha256}; UserError when a file is missing or no complete ONNX model, and when the store does not answer.
    """
    import mlflow.pyfunc

    for path in files:
        if path.suffix == ".onnx":
            _check_onnx(path)
    hashes = {digest_tag(path.name): sha256_of(path) for path in files}
    store, tags = client(), {**tags, **hashes}
    signature, example = _asked_and_answered()
    # MLflow's flavors, and the registry's resolution of a model's own id, know only the global store.
    with _pointing(tracking_uri()), reachable(tracking_uri()):
        with mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(program),
                artifacts={path.name: str(path.absolute()) for path in files},
                signature=signature,
                input_example=example,
                pip_requirements=list(requirements),
                tags=tags,
            )
        _create_name(store, name)
        version = store.create_model_version(
            name, info.model_uri, run_id=run_id, tags=tags, model_id=info.model_id
        ).version
        store.set_registered_model_alias(name, ALIAS, version)
    return {
        "name": name,
        "version": int(version),
        "run_id": run_id,
        "tracking_uri": without_password(tracking_uri()),
        "alias": ALIAS,
        "sha256": hashes[DIGEST],
    }


def digest_tag(file: str) -> str:
    """The tag of a version that holds a deployed file's hash."""
    return DIGEST if file == ONNX else f"{DIGEST}.{file}"


def digests(tags: Mapping[str, str]) -> dict[str, str]:
    """Hashes of a version's deployed files by their names, from its tags."""
    return {
        ONNX if tag == DIGEST else tag.removeprefix(f"{DIGEST}."): digest
        for tag, digest in tags.items()
        if tag.partition(".")[0] == DIGEST
    }


def picked_tags(picked: Mapping[str, str | None]) -> dict[str, str]:
    """Tags of a version that say what was picked for each target, such as "onnxruntime_int8"; None: nothing
    passed there.
    """
    return {f"{PICKED}{target}": NOTHING if name is None else name for target, name in picked.items()}


def picks(name: str, version: int | str) -> dict[str, str | None]:
    """What `picked_tags` of a version say, by target; nothing of a version from before there were such tags.
    UserError where the store has no such version.
    """
    tags = _tags(name, version)
    found = {key.removeprefix(PICKED): value for key, value in tags.items() if key.startswith(PICKED)}
    return {target: None if value == NOTHING else value for target, value in found.items()}


def version_files(name: str, version: int | str, folder: Path) -> dict[str, Path]:
    """Fetch the deployed files of a registered version into `folder` -> where each lies, by its name.

    Each file appears whole and as its hash among the version's tags says, or not at all. One that is there
    already is not fetched again. UserError where the store has no such version, or other bytes.
    """
    wanted = digests(_tags(name, version))
    if ONNX not in wanted:
        raise UserError(
            f"{name} version {version}: has no tag '{DIGEST}'; register the model by the workflow"
        )
    for file, digest in wanted.items():
        _fetch(f"models:/{name}/{version}/artifacts/{file}", folder / file, digest)
    return {file: folder / file for file in wanted}


def _tags(name: str, version: int | str) -> dict[str, str]:
    """The tags of a version; UserError where the store has none such."""
    from mlflow.exceptions import MlflowException

    refuse_absent(name)
    uri = tracking_uri()
    try:
        return dict(client().get_model_version(name, str(version)).tags)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise UserError(f"{name} version {version}: no such version in {without_password(uri)}") from None
        raise no_answer(uri, error) from None


def _fetch(source: str, path: Path, digest: str) -> None:
    """The artifact `source` as the file `path`, whose hash must be `digest`."""
    import mlflow.artifacts

    if path.is_file() and sha256_of(path) == digest:
        return
    new = temporary_beside(path)
    with writing(path):
        new.mkdir(parents=True)
    try:
        with _pointing(tracking_uri()), reachable(tracking_uri()):
            found = Path(mlflow.artifacts.download_artifacts(source, dst_path=str(new)))
        if sha256_of(found) != digest:
            raise UserError(
                f"{source}: has not the hash that the version's tags give; register the model again"
            )
        with writing(path):
            found.replace(path)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _create_name(store: MlflowClient, name: str) -> None:
    """The registered model, unless it is there: another process may create it at the same moment."""
    from mlflow.exceptions import MlflowException

    try:
        store.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def still_registered(receipt: Mapping[str, Any]) -> bool:
    """Whether the version a receipt names exists where MLflow points now, and holds the same file."""
    from mlflow.exceptions import MlflowException

    try:
        version = client().get_model_version(str(receipt["name"]), str(receipt["version"]))
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise no_answer(tracking_uri(), error) from None
    return version.tags.get("sha256") == receipt["sha256"]


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


def _check_onnx(path: Path) -> None:
    """UserError when an ONNX file is missing or cut short."""
    import onnx

    try:
        onnx.checker.check_model(onnx.load(str(path)))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the export stage") from None
    except Exception as error:  # protobuf and the checker raise unrelated classes for a damaged file
        reason = type(error).__name__
        raise UserError(f"{path}: not a complete ONNX model ({reason}); run the export stage again") from None


def _asked_and_answered() -> tuple[ModelSignature, list[dict[str, Any]]]:
    """What a served version takes and gives (`rtmpose.inference.served`), as MLflow's signature, and an
    example of its input. Boxes are checked where the version is served: there the message is one line.
    """
    import cv2
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType

    takes = Schema(
        [ColSpec(DataType.string, "image"), ColSpec(AnyType(), "boxes", required=False)],
    )
    gives = Schema([ColSpec(AnyType(), "people")])
    picture = cv2.imencode(".jpg", np.full((64, 48, 3), 128, np.uint8))[1].tobytes()
    example = [{"image": base64.b64encode(picture).decode(), "boxes": [[4, 6, 40, 52]]}]
    return ModelSignature(takes, gives), example
