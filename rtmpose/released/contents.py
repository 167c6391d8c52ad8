"""Whether a file is what the catalogue says: read as data only, and held against the network it should be."""

from __future__ import annotations

from pathlib import Path

from rtmpose.files import UserError
from rtmpose.released.catalogue import Released, Weights
from rtmpose.released.transfer import Failed


def fit(released: Released, path: Path) -> None:
    """Hold the file at `path` against its entry, and give the ONNX file of a pose network our card. Raises
    Failed where it cannot be these weights.
    """
    weights = released.weights
    try:
        if released.form == "pth":
            _refuse_other_checkpoint(weights, path)
        elif weights.kind == "pose":
            _adopt(released, path)
        else:
            _refuse_other_graph(path)
    except UserError as error:
        reason = str(error).removeprefix(f"{path}: ").partition("; ")[0]
        raise Failed(f"not these weights: {reason}") from None


def _refuse_other_checkpoint(weights: Weights, path: Path) -> None:
    from rtmpose.descriptors import load_skeleton
    from rtmpose.models import read_weights
    from rtmpose.models.shapes import shapes_of

    tensors = read_weights(path)
    if weights.network not in ("rtmpose", "rtmw", "cspnext"):
        return  # networks that are none of ours: that they can be read is all that is known of them
    shapes = shapes_of(tensors)
    expected: list[tuple[str, object, object]] = [("size", shapes.architecture.size, weights.size)]
    if weights.skeleton is not None:
        points = load_skeleton(weights.skeleton).num_keypoints
        expected.append(("number of points", shapes.num_keypoints, points))
        expected.append(("input", shapes.input_size, weights.input))
    for what, found, wanted in expected:
        if found != wanted:
            raise Failed(f"not these weights: their {what} is {found}, not {wanted}")


def _adopt(released: Released, path: Path) -> None:
    from rtmpose.released.adopt import adopt
    from rtmpose.released.checkpoint import released_sources

    weights = released.weights
    assert weights.skeleton is not None and weights.kind == "pose"
    data = released_sources(released, path)
    adopt(path, path, weights.skeleton, size=weights.size, input_size=weights.input, data=data)


def _refuse_other_graph(path: Path) -> None:
    from rtmpose.deploy.runtimes.onnxruntime import open_file

    open_file(path, threads=1)
