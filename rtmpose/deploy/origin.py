"""Which exported file a derived one belongs to: its fp16 and int8 forms name the exported network.

Sizes alone do not tell two trainings of one architecture apart, and the forms of one beside the other's file
would open and compute something else.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx

from rtmpose.deploy.card import PREFIX
from rtmpose.deploy.runtimes.base import NotPossible
from rtmpose.files import UserError

EXPORTED = PREFIX + "exported"  # metadata: the fingerprint of the exported fp32 file


def fingerprint(model: onnx.ModelProto) -> str:
    """Hex SHA-256 of a network's graph: operations and weights. Metadata is left out, so that an exported
    file stays the same when its card is written again (`graphs.save_card`).
    """
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def belonging(exported: Path) -> dict[str, str]:
    """The metadata of a form that belongs to the exported file; UserError where that is damaged."""
    return {EXPORTED: fingerprint(read_onnx(exported))}


def refuse_other(noted: str | None, path: Path, exported: Path, made_by: str) -> None:
    """NotPossible where the form `path`, whose metadata has `noted`, belongs to another exported file, or,
    like those from before this was noted, to none; `made_by` says what writes it again.
    """
    if noted != belonging(exported)[EXPORTED]:
        raise NotPossible(f"{path}: was not made from {exported.name} as that is now; {made_by} again")


def read_onnx(path: Path) -> onnx.ModelProto:
    """A network from its file; UserError where that is damaged or not there."""
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf and onnx each have errors of their own
        reason = (str(error).splitlines() or ["damaged"])[0]
        raise UserError(f"{path}: not a complete ONNX model; write it again ({reason})") from None
