"""A registered version as MLflow serves it: photographs in, people with named points out.

`served_program.py` is the file that a version carries. MLflow runs it where the version is loaded, and
unpickles nothing. What is asked for wrongly is one line and HTTP 400; what goes wrong here is one line and
HTTP 500, and the log has its traceback.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INTERNAL_ERROR
from mlflow.pyfunc import PythonModel

from rtmpose.config import setup_environment
from rtmpose.files import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rtmpose.deploy.card import ModelCard
    from rtmpose.inference.photo import Box
    from rtmpose.topdown import TopDown

MODEL = "rtmpose.onnx"
FAR = 1e9  # px; no image reaches there
LOG = logging.getLogger(__name__)
DATA_URL = re.compile(r"data:[\w.+/-]*;base64,")


class OneLine(MlflowException):
    """What went wrong with a request, in one line. MLflow's server would put the whole input before it and
    sends this alone.
    """

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line, error_code=code)
        self.line = line

    def serialize_as_json(self) -> str:
        return json.dumps({"error_code": self.error_code, "message": self.line})


class BadInput(OneLine):
    """What a caller has to mend: HTTP 400."""

    def __init__(self, line: str) -> None:
        super().__init__(line, BAD_REQUEST)


class ServedPose(PythonModel):
    """People in photographs, by the exported file of a registered version.

    A row of the input is one photograph: `image`, a JPEG, PNG or WebP in base64, and if wanted `boxes`, a
    list of [x, y, w, h]. Without `boxes` one person fills the picture; an empty list is a picture with nobody
    in it. For each row the result has

        {"people": [{"box": [x, y, w, h], "score": s, "keypoints": {name: [x, y, score]}}]}

    where s is the mean of the points' scores. All are in px of the upright picture, as viewers show it.

    MLflow calls both methods by the names of their arguments.
    """

    def load_context(self, context: Any) -> None:
        """Open the version's ONNX file; `context.artifacts` says where its files lie."""
        setup_environment()
        from rtmpose.inference.photo import open_model

        self.path = Path(context.artifacts[MODEL])
        self.card: ModelCard
        self.way: TopDown
        self.card, self.way = open_model(self.path)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """The people of each row. BadInput naming the photograph, if one of them cannot be used; OneLine
        with HTTP 500 where the model or this machine is at fault.
        """
        rows = model_input.to_dict("records")
        # One after the other: of many large photographs only one at a time is in memory.
        return [self._answer(row, _called(number, len(rows))) for number, row in enumerate(rows, 1)]

    def _answer(self, row: dict[str, Any], image: Path) -> dict[str, Any]:
        try:
            pixels, boxes = _asked(row, image)
        except UserError as error:
            raise BadInput(str(error)) from None
        except Exception as error:
            raise _ours(error, image) from None
        try:
            return {"people": self._people(pixels, boxes)}
        except UserError as error:
            raise OneLine(str(error), INTERNAL_ERROR) from None
        except Exception as error:
            raise _ours(error, image) from None

    def _people(self, pixels: NDArray[np.uint8], boxes: Sequence[Box]) -> list[dict[str, Any]]:
        from rtmpose.inference.photo import named, points_of

        if not boxes:
            return []
        found, scores = points_of(self.way, pixels, boxes, self.path)
        return [
            {
                "box": [float(side) for side in box],
                "score": round(float(score.mean()), 4),
                "keypoints": named(self.card.keypoint_names, points, score),
            }
            for box, points, score in zip(boxes, found, scores, strict=True)
        ]


def _ours(error: Exception, image: Path) -> OneLine:
    """What is told of an error that is no caller's mistake, such as memory that ran out; the log has more.
    MLflow's server would answer HTTP 400 with the traceback.
    """
    LOG.error("%s: could not be computed", image, exc_info=error)
    kind = type(error).__name__
    return OneLine(f"{image}: could not be computed ({kind}); the server's log says more", INTERNAL_ERROR)


def _called(number: int, count: int) -> Path:
    """How messages name a photograph of a request."""
    return Path("image" if count == 1 else f"image {number} of {count}")


def _asked(row: dict[str, Any], image: Path) -> tuple[NDArray[np.uint8], list[Box]]:
    """The pixels (H, W, 3) RGB and the boxes of one row, which are none only where it gives an empty list;
    UserError naming the `image`.
    """
    from rtmpose.data.raw.photograph import decode_photograph
    from rtmpose.inference.photo import boxes_within

    pixels = decode_photograph(_decoded(row.get("image"), image), image, "display")
    boxes = _boxes(row.get("boxes"), image)
    return pixels, [] if boxes == [] else boxes_within(boxes or [], pixels, image)


def _decoded(text: object, image: Path) -> bytes:
    """The bytes of base64 text, with or without line breaks, also of a data URL."""
    if not isinstance(text, str):
        raise UserError(f"{image}: give the file's bytes as base64 text")
    start = DATA_URL.match(text)
    try:
        content = base64.b64decode("".join(text[start.end() if start else 0 :].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"{image}: not base64 ({error}); encode the file's bytes") from None
    if not content:
        raise UserError(f"{image}: has 0 bytes; give the file's bytes as base64 text")
    return content


def _boxes(value: object, image: Path) -> list[Box] | None:
    """Boxes as JSON has them, [[x, y, w, h], …]; None where the value is null or missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    rows = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(rows, list):
        raise UserError(f"{image}: boxes must be a list of [x, y, w, h] in px, not {_shown(value)}")
    return [_box(row, image) for row in rows]


def _box(value: object, image: Path) -> Box:
    row = value.tolist() if hasattr(value, "tolist") else value
    numbers = [
        float(side)
        for side in (row if isinstance(row, list | tuple) else ())
        if isinstance(side, int | float) and not isinstance(side, bool) and abs(side) < FAR
    ]
    if len(numbers) != 4 or not isinstance(row, list | tuple) or len(row) != 4 or min(numbers[2:]) <= 0:
        raise UserError(f"{image}: box {_shown(value)}: give x, y, w, h in px, finite, with w and h above 0")
    x, y, w, h = numbers
    return x, y, w, h


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
