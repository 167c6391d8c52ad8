"""What the endpoint answers is what the pipeline gives, and what it refuses is told in one line."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest

from rtmpose.files import UserError
from rtmpose.inference.pipeline import PosePipeline
from rtmpose.page.answers import ImageAnswer, ModelAnswer, VideoAnswer
from rtmpose.page.app import page
from rtmpose.page.guard import known_hosts
from rtmpose.page.limits import Limits, Refused
from rtmpose.page.line import Gone
from rtmpose.page.poses import video_answer
from tests.inference.clips import clip, picture
from tests.inference.test_served import turned
from tests.page.support import BOX, SIZE, bomb, encoded, running

Query = list[tuple[str, str | int | float | bool | None]]
JPEG = {"Content-Type": "image/jpeg"}


def points(people: list[Any]) -> np.ndarray:
    return np.array([person.keypoints for person in people])


def form(content: bytes) -> dict[str, Any]:
    return {"files": {"file": ("photo.jpg", content, "image/jpeg")}}


def test_a_picture_as_body_and_in_a_form_gives_what_the_pipeline_gives(
    client: httpx.Client, pipeline: PosePipeline, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(encoded("jpeg"))
    (expected,) = pipeline(tmp_path / "photo.jpg")
    for sent in ({"content": encoded("jpeg"), "headers": JPEG}, form(encoded("jpeg"))):
        answer = ImageAnswer.model_validate(client.post("/v1/image", **sent).raise_for_status().json())
        (person,) = answer.people
        np.testing.assert_allclose(points([person])[0], expected.keypoints, atol=0.006)
        np.testing.assert_allclose(person.scores, expected.scores, atol=1e-4)
        np.testing.assert_allclose(person.confidence, expected.confidence, atol=1e-4)
        assert person.box == (10, 20, 60, 80) and person.box_score == BOX[4] and person.identity is None
        assert tuple(answer.names) == pipeline.names and answer.size == SIZE
        assert answer.ms.detection is not None and min(answer.ms.decode, answer.ms.pose) > 0


def test_given_boxes_and_the_threshold(client: httpx.Client, pipeline: PosePipeline) -> None:
    boxes: Query = [("boxes", "0,0,160,120"), ("boxes", "-5,10.5,60,80")]
    answer = ImageAnswer.model_validate(client.post("/v1/image", params=boxes, content=encoded("png")).json())
    assert [person.box for person in answer.people] == [(0, 0, 160, 120), (-5, 10.5, 60, 80)]
    assert answer.ms.detection is None
    confidence = np.array([person.confidence for person in answer.people])
    sure = float(np.sort(confidence[0])[-3])  # three points of the first person reach it
    asked: Query = [*boxes, ("sure", sure)]
    people = client.post("/v1/image", params=asked, content=encoded("png")).json()["people"]
    kept = [[point is not None for point in person["keypoints"]] for person in people]
    assert kept == [row for row in (confidence >= sure).tolist() if any(row)]


def test_a_turn_in_the_exif_is_done(client: httpx.Client) -> None:
    content = turned(encoded("jpeg"))
    assert client.post("/v1/image", content=content, headers=JPEG).json()["size"] == [*SIZE[::-1]]


@pytest.mark.parametrize("name", ["gif", "bmp", "webp", "cmyk", "deep"])
def test_forms_of_pictures(client: httpx.Client, name: str) -> None:
    answer = client.post("/v1/image", content=encoded(name))
    assert answer.status_code == 200 and answer.json()["size"] == [*SIZE]


def test_a_video_gives_what_the_pipeline_gives(
    client: httpx.Client, pipeline: PosePipeline, video: Path
) -> None:
    expected = [*pipeline.video(video, every=2)]
    sent = {"file": ("clip.mp4", video.read_bytes(), "video/mp4")}
    found = client.post("/v1/video", params={"every": 2}, files=sent).raise_for_status().json()
    answer = VideoAnswer.model_validate(found)
    assert [frame.index for frame in answer.frames] == [frame.index for frame in expected]
    np.testing.assert_allclose(
        [frame.time for frame in answer.frames], [frame.time for frame in expected], atol=1e-3
    )
    for ours, theirs in zip(answer.frames, expected, strict=True):
        assert [one.identity for one in ours.people] == [one.identity for one in theirs.persons]
        np.testing.assert_allclose(points(ours.people), [one.keypoints for one in theirs.persons], atol=0.006)
    assert any(frame.people for frame in answer.frames) and answer.remark is None


def test_the_facts(client: httpx.Client, pipeline: PosePipeline) -> None:
    model = ModelAnswer.model_validate(client.get("/v1/model").json())
    assert (model.name, tuple(model.names)) == ("tiny.onnx", pipeline.names)
    assert model.input_size == pipeline.card.input_size and model.limits.image_bytes == 200_000
    assert [tuple(limb) for limb in model.limbs] == [*pipeline.skeleton.limbs]
    assert client.get("/healthz").json() == {"status": "ok", "waiting": 0}


@pytest.mark.parametrize(
    ("sent", "status", "told"),
    [
        ({"content": b""}, 400, "0 bytes"),
        ({"content": b"text"}, 400, "no JPEG"),
        ({"content": encoded("jpeg")[:-200]}, 400, "cut off"),
        ({"content": encoded("png")[:90]}, 400, "not an image"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "oundary"),
        ({"files": {"x": (None, "text")}}, 400, "has no file"),
        ({"content": bomb()}, 413, "50000x50000"),
        ({"content": bytes(200_001)}, 413, "larger than"),
        ({"content": iter([bytes(150_000)] * 2)}, 413, "larger than"),
        (form(bytes(200_001)), 413, "larger than"),
        (form(bytes(400_000)), 413, "larger than"),
        ({"content": encoded("tiff")}, 415, "TIFF"),
        ({"content": b"\0\0\0\x18ftypheic"}, 415, "HEIC"),
        ({"content": b"{}", "headers": {"Content-Type": "application/json"}}, 415, "application/json"),
        ({"content": encoded("png"), "params": {"boxes": "1,2,3"}}, 422, "1,2,3"),
        ({"content": encoded("png"), "params": {"boxes": "1,2,3,0"}}, 422, "no size"),
        ({"content": encoded("png"), "params": {"boxes": "170,2,3,4"}}, 422, "outside"),
        ({"content": encoded("png"), "params": [("boxes", "1,2,3,4")] * 5}, 422, "at most 4"),
        ({"content": encoded("png"), "params": {"sure": "nan"}}, 422, "sure"),
    ],
)  # fmt: skip
def test_what_is_refused(client: httpx.Client, sent: dict[str, Any], status: int, told: str) -> None:
    answer = client.post("/v1/image", **sent)
    assert answer.status_code == status
    (line,) = answer.json()["error"].splitlines()
    assert told in line


def test_videos_that_are_refused(client: httpx.Client, tmp_path: Path, video: Path) -> None:
    long = clip(tmp_path / "long.mp4", times=[0.5 * n for n in range(9)]).read_bytes()
    for content, status, told in (
        (long, 413, "at most 3 s"),
        (video.read_bytes()[:300], 400, "video: cannot be read"),
        (encoded("jpeg")[:50], 400, "video"),
        (bytes(200_001), 413, "larger than"),
    ):
        answer = client.post("/v1/video", content=content)
        assert answer.status_code == status and told in answer.json()["error"], answer.text
    assert client.post("/v1/video", content=long, params={"every": 0}).status_code == 422
    assert client.post("/v1/other").json() == {"error": "Not Found"}


def test_a_video_that_begins_late_is_as_long_as_it_is(client: httpx.Client, tmp_path: Path) -> None:
    late = clip(tmp_path / "late.mkv", times=[3600 + 0.1 * n for n in range(4)]).read_bytes()
    frames = client.post("/v1/video", content=late).raise_for_status().json()["frames"]
    assert [frame["time"] for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3], abs=2e-3)


def test_limits_hold_for_pictures_that_cannot_be_decoded(pipeline: PosePipeline, tmp_path: Path) -> None:
    """Each of them is quick, but there may be a great many."""
    path, limits = tmp_path / "a.mkv", Limits(video_frames=50)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        (packet,) = stream.encode(av.VideoFrame.from_ndarray(picture(90), format="rgb24"))
        file.mux(packet)
        for number in range(1, 200):
            empty = av.Packet(bytes(8))
            empty.stream, empty.pts, empty.dts, empty.time_base = stream, number, number, Fraction(1, 25)
            file.mux(empty)
    with pytest.raises(Refused, match="goes on after 50 frames"):
        video_answer(pipeline, path, 5, 0.3, limits, 0.0, threading.Event())
    stop = threading.Event()
    stop.set()
    with pytest.raises(Gone):
        video_answer(pipeline, path, 5, 0.3, Limits(), 0.0, stop)


def test_frames_that_are_larger_than_the_header_says_are_not_decoded(
    pipeline: PosePipeline, tmp_path: Path
) -> None:
    path = clip(tmp_path / "a.mkv")
    with pytest.raises(Refused, match="more than"):
        video_answer(pipeline, path, 5, 0.3, Limits(video_pixels=64 * 48 - 1), 0.0, threading.Event())


def test_a_models_defect_is_not_the_senders(
    pipeline: PosePipeline, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(pixels: np.ndarray, boxes: np.ndarray) -> list[Any]:
        raise UserError("m.onnx: gives points that are not finite")

    monkeypatch.setattr(pipeline, "persons", broken)
    with running(page(pipeline)) as client:
        assert client.post("/v1/video", content=video.read_bytes()).status_code == 500
        assert client.post("/v1/image", content=encoded("png")).status_code == 500


def test_temporary_files_go_with_each_request_and_the_folder_with_the_server(
    pipeline: PosePipeline, video: Path
) -> None:
    app = page(pipeline)
    with running(app) as client:
        folder: Path = app.state.folder
        assert folder.is_dir()
        for content in (video.read_bytes(), b"damaged"):
            client.post("/v1/video", content=content)
            assert list(folder.iterdir()) == []
    assert not folder.exists()


def test_other_names_and_other_sites_are_refused(client: httpx.Client) -> None:
    origins = ({"Origin": origin} for origin in ("http://evil.example", "null", "http://["))
    for headers in ({"Host": "evil.example"}, *origins):
        answer = client.post("/v1/image", content=encoded("png"), headers=headers)
        assert answer.status_code == 403 and "error" in answer.json()
    for host in ("localhost:1", "[::1]:7860", "127.0.0.1"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        answer = client.get("/v1/model", headers=headers)
        assert answer.status_code == 200 and "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert known_hosts("0.0.0.0", []) is None
    assert "pose.example" in (known_hosts("0.0.0.0", ["Pose.example"]) or ())
