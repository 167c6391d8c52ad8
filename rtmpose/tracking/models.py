"""Registered models in MLflow: an exported network becomes a version with its lineage, and is found again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtmpose.files import UserError, sha256_of
from rtmpose.tracking.runs import client, no_answer, tracking_uri, without_password

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

ALIAS = "candidate"


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
