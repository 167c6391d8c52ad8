"""A registered version behind `mlflow models serve`, over HTTP and with no network."""

from __future__ import annotations

import base64
import json
import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.inference.photo import predict_image
from rtmpose.inference.served import OneLine, ServedPose
from rtmpose.tracking import models, runs
from tests.inference.serving import Ask, model_server
from tests.inference.test_photo import BOXES
from tests.support import ROOT

PROGRAM = ROOT / "rtmpose/inference/served_program.py"


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def jpeg(seed: int = 3) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (120, 160, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.GaussianBlur(pixels, (0, 0), 3))[1].tobytes()


def turned(content: bytes) -> bytes:
    """The same JPEG with EXIF's orientation 6: to be turned by a quarter."""
    block = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:]


def bomb() -> bytes:
    """A whole PNG header that claims 50,000 x 50,000 px."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.fixture(scope="module")
def store(files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A local store in which `pose@champion` is the exported model of the deployment's tests."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        models.register(
            [files.onnx], program=PROGRAM, name="pose", run_id=runs.start_or_resume_run("export"), tags={},
            requirements=["onnxruntime==1.31.1"],
        )  # fmt: skip
        runs.client().set_registered_model_alias("pose", "champion", "1")
        yield folder


@pytest.fixture(scope="module")
def ask(store: Path) -> Iterator[Ask]:
    with model_server(store, "models:/pose@champion") as asked:
        yield asked


def test_the_answer_is_that_of_the_command(store: Path, files: ModelFiles) -> None:
    """In three lines of Python, without a server."""
    import mlflow

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    try:
        model = mlflow.pyfunc.load_model("models:/pose@champion")
        boxed, nobody, whole, sideways = model.predict(
            [
                {"image": encoded(jpeg()), "boxes": BOXES},
                {"image": encoded(jpeg()), "boxes": []},
                {"image": encoded(jpeg())},
                {"image": encoded(turned(jpeg()))},
            ]
        )
    finally:
        mlflow.set_tracking_uri(None)
    photo = store / "photo.jpg"
    photo.write_bytes(jpeg())
    expected = predict_image(photo, files.onnx, BOXES)
    assert [one | {"score": None} for one in boxed["people"]] == [one | {"score": None} for one in expected]
    scores = [point[2] for point in expected[0]["keypoints"].values()]
    assert boxed["people"][0]["score"] == pytest.approx(np.mean(scores), abs=1e-3)
    assert nobody == {"people": []}, "no box was given, so nobody is there"
    assert whole["people"][0]["box"] == [0, 0, 160, 120] and sideways["people"][0]["box"] == [0, 0, 120, 160]


def test_a_broken_model_is_not_the_callers_mistake(files: ModelFiles) -> None:
    """HTTP 500 in one line, though MLflow puts the input into the message of whatever is raised."""
    model = ServedPose()
    model.load_context(SimpleNamespace(artifacts={"rtmpose.onnx": str(files.onnx)}))
    model.way = replace(model.way, mean=(math.nan, 0.0, 0.0))
    with pytest.raises(OneLine, match=r"rtmpose\.onnx: gives points that are not finite") as caught:
        model.predict(None, pd.DataFrame([{"image": encoded(jpeg())}]))
    caught.value.message = f"Failed to predict data\n{caught.value.message}"
    said = json.loads(caught.value.serialize_as_json())
    assert caught.value.get_http_status_code() == 500 and said["message"] == caught.value.line
    assert "\n" not in said["message"]


class Exhausted:
    """A network that stops as ONNX Runtime does where memory runs out."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, *_: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("bad\nallocation at 0x1"), cv2.error("resize")]
)
@pytest.mark.parametrize("at", ["network", "decoder"])
def test_what_goes_wrong_here_is_one_line_and_500(
    files: ModelFiles, error: Exception, at: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    model = ServedPose()
    model.load_context(SimpleNamespace(artifacts={"rtmpose.onnx": str(files.onnx)}))
    if at == "network":
        model.way = replace(model.way, network=Exhausted(error))
    else:
        monkeypatch.setattr("rtmpose.data.raw.photograph.decode_photograph", Exhausted(error))
    with pytest.raises(OneLine) as caught:
        model.predict(None, pd.DataFrame([{"image": encoded(jpeg())}]))
    kind = type(error).__name__
    assert caught.value.get_http_status_code() == 500
    assert caught.value.line == f"image: could not be computed ({kind}); the server's log says more"
    assert kind in caplog.text and "Traceback" in caplog.text


@pytest.mark.slow
def test_every_form_of_a_request_is_answered(ask: Ask) -> None:
    rows: list[dict[str, Any]] = [{"image": encoded(jpeg()), "boxes": BOXES}, {"image": encoded(jpeg(4))}]
    nobody = {"image": encoded(jpeg()), "boxes": []}
    assert ask({"dataframe_records": [nobody]}) == (200, {"predictions": [{"people": []}]})
    status, found = ask({"dataframe_records": rows})
    assert status == 200, found
    assert [len(one["people"]) for one in found["predictions"]] == [2, 1]
    assert len(found["predictions"][1]["people"][0]["keypoints"]) == 17
    columns = ["image", "boxes"]
    split = {"columns": columns, "data": [[row.get(key) for key in columns] for row in rows]}
    wrapped = rows[0] | {"image": "data:image/jpeg;base64," + encoded(jpeg())}
    for body in (
        {"dataframe_split": split},
        {"inputs": rows},
        {"dataframe_records": [wrapped, rows[1]]},
    ):
        assert ask(body) == (200, found), list(body)


@pytest.mark.slow
def test_what_cannot_be_read_is_one_line_and_400(ask: Ask) -> None:
    good = {"image": encoded(jpeg())}
    for row, reason in (
        ({"image": encoded(b"no picture at all")}, "image: not an image that can be decoded"),
        ({"image": ""}, "image: has 0 bytes"),
        ({"image": encoded(jpeg()[:-200])}, "image: the JPEG is cut off"),
        ({"image": encoded(bomb())}, "image: its header claims 50000x50000 px, more than 134 million"),
        ({"image": "§ no base64"}, "image: not base64"),
        (
            good | {"boxes": [[0, 0, float("nan"), 9]]},
            "image: box [0, 0, nan, 9]: give x, y, w, h in px, finite",
        ),
        (good | {"boxes": [[0, 0, 10**400, 9]]}, "image: box [0, 0, 1000"),
        (good | {"boxes": [[0, 0, 9, 9, 9]]}, "image: box [0, 0, 9, 9, 9]: give x, y, w, h"),
        (good | {"boxes": [[900, 0, 9, 9]]}, "image: box [900.0, 0.0, 9.0, 9.0] lies outside the image"),
        (good | {"boxes": "all"}, "image: boxes must be a list of [x, y, w, h] in px, not 'all'"),
        (good | {"boxes": [7]}, "image: box 7: give x, y, w, h"),
    ):
        status, said = ask({"dataframe_records": [row]})
        assert status == 400 and set(said) == {"error_code", "message"}, said
        assert said["message"].startswith(reason) and "\n" not in said["message"], said
        assert len(said["message"]) < 200 and "Traceback" not in said["message"]
    status, said = ask({"dataframe_records": [good, {"image": "?"}, good]})
    assert status == 400 and said["message"].startswith("image 2 of 3: not base64")
    assert ask({"dataframe_records": [good]})[0] == 200
