"""What a detector learns from, and that it learns through the loop of the poses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from rtmpose.cli.app import app
from rtmpose.config import AugmentConfig
from rtmpose.detection.evaluate import Photograph, read_people
from rtmpose.detection.loss import Corners, assign, detection_loss, overlaps
from rtmpose.detection.network import RTMDet, load_rtmdet, points, strides
from rtmpose.detection.stream import PhotographStream
from rtmpose.detection.train import STRONG, WEAK, Training, sources, train_detector
from rtmpose.ending import run_command
from rtmpose.files import UserError, read_json
from rtmpose.models import normalise, read_weights, save_tensors
from rtmpose.provenance.sources import UNKNOWN
from rtmpose.released.checkpoint import sources_in
from rtmpose.tracking import runs
from tests.support import realdata
from tests.tracking.conftest import store

__all__ = ["store"]

SIZE = (64, 64)
CORNERS, CELLS = points(*SIZE), strides(*SIZE)


@pytest.fixture
def photographs(tmp_path: Path) -> list[Photograph]:
    """Four bright rectangles on dark ground, which are the persons, and one image without any."""
    found = []
    for number, box in enumerate(([8, 8, 40, 56], [30, 10, 60, 60], [4, 20, 30, 62], [20, 4, 50, 44], None)):
        image = np.full((64, 64, 3), 20, np.uint8)
        boxes = np.empty((0, 4)) if box is None else np.array([box], np.float64)
        own = []
        for x1, y1, x2, y2 in boxes.astype(int):
            image[y1:y2, x1:x2] = (200, 120, 60)
            own.append({
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0,
                "category_id": 1,
            })  # fmt: skip
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), image)
        found.append(Photograph(number, path, 64, 64, boxes, tuple(own)))
    return found


def test_overlaps_are_those_of_the_papers() -> None:
    a = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    b = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10]])
    torch.testing.assert_close(overlaps(a, b), torch.tensor([1.0, 1 / 3, 0.0]))
    torch.testing.assert_close(overlaps(a, b, enclosing=True), torch.tensor([1.0, 1 / 3, -1 / 3]))


def test_cells_inside_answer_for_a_box_as_many_as_overlap_it() -> None:
    truth = torch.tensor([[8.0, 8.0, 56.0, 56.0], [0.5, 0.5, 9.5, 9.5]])
    found = torch.zeros(len(CORNERS), 4)
    inside = (CORNERS.gt(truth[0, :2]) & CORNERS.lt(truth[0, 2:])).all(1)
    near = inside.nonzero()[:5, 0]
    found[near] = truth[0]
    cell, box, overlap = assign(torch.zeros(len(CORNERS)), found, truth, CORNERS, CELLS)
    # Five perfect boxes: five cells. The small box has one cell, the only one inside of it.
    assert cell[box == 0].tolist() == near.tolist() and overlap[box == 0].tolist() == [1.0] * 5
    assert CORNERS[cell[box == 1]].tolist() == [[8.0, 8.0]]


def test_a_cell_that_two_boxes_want_answers_for_the_cheaper() -> None:
    truth = torch.tensor([[7.0, 7.0, 9.0, 9.0], [6.0, 6.0, 11.0, 11.0]])
    found = truth[1].repeat(len(CORNERS), 1)
    _, box, _ = assign(torch.zeros(len(CORNERS)), found, truth, CORNERS, CELLS)
    assert box.tolist() == [1]


def test_the_loss_is_least_where_all_is_right() -> None:
    truth = torch.tensor([[[8.0, 8.0, 56.0, 56.0], [0.0, 0.0, 0.0, 0.0]]])
    there = torch.tensor([[True, False]])
    found = truth[:, :1].expand(1, len(CORNERS), 4).clone()
    cell, _, _ = assign(torch.zeros(len(CORNERS)), found[0], truth[0, :1], CORNERS, CELLS)
    logits = torch.full((1, len(CORNERS), 1), -12.0)

    def loss(logits: torch.Tensor, found: torch.Tensor, there: torch.Tensor = there) -> float:
        return float(detection_loss(logits, found, truth, there, CORNERS, CELLS))

    blind = loss(logits, found)
    logits[0, cell] = 12.0
    right = loss(logits, found)
    assert right < 1e-3 < loss(logits, found * 0.9) < blind
    assert loss(logits * 0 - 12.0, found, there & False) < 1e-3  # nobody there, nobody found


def test_boxes_travel_as_two_points() -> None:
    boxes = torch.arange(16.0).view(2, 2, 4)
    there = torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 1]])
    back, weights = Corners().encode(boxes.view(2, 4, 2), there)
    assert torch.equal(back, boxes) and weights.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("augment", [WEAK, STRONG, AugmentConfig(flip=1.0, scale=0.3, shift=0.0)])
def test_boxes_follow_the_pixels(photographs: list[Photograph], augment: AugmentConfig) -> None:
    stream = PhotographStream(photographs, SIZE, batch_size=4, seed=0)
    plain = augment.model_copy(update={"hue": 0, "saturation": 0, "value": 0})
    for batch in (next(stream.epoch(epoch, plain)) for epoch in range(3)):
        for image, box, weight in zip(*batch[:3], strict=True):
            if weight[0]:
                inner = (image[..., 2] > 150).nonzero()  # y, x
                edges = torch.cat([inner.min(0).values.flip(0), inner.max(0).values.flip(0) + 1])
                np.testing.assert_allclose(box, edges.view(2, 2), atol=1.6)


def test_an_epoch_is_the_same_wherever_it_goes_on(photographs: list[Photograph]) -> None:
    one = PhotographStream(photographs, SIZE, batch_size=2, seed=3)
    two = PhotographStream(photographs, SIZE, batch_size=2, seed=3, threads=3)
    assert one.steps_per_epoch == 2  # the image without a person is not among them
    whole, rest = list(one.epoch(1, STRONG)), list(two.epoch(1, STRONG, start_step=1))
    assert len(whole) == 2 and len(rest) == 1 and whole[1].keys == rest[0].keys
    for a, b in zip(whole[1][:3], rest[0][:3], strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    assert whole[0].keys != next(iter(one.epoch(2, STRONG))).keys
    with pytest.raises(UserError, match="no photograph with a person"):
        PhotographStream(photographs[4:], SIZE, batch_size=2, seed=0)


def _best_overlap(weights: Path, photographs: list[Photograph], stream: PhotographStream) -> float:
    """How far the persons are covered by the best cell inside of them, a mean over the images."""
    network, found = load_rtmdet(weights), []
    for one in photographs[:4]:
        image, boxes = stream.sample(one, WEAK.model_copy(update={"flip": 0.0}), np.random.default_rng(0))
        with torch.inference_mode():
            _, rows = network(normalise(torch.from_numpy(image)[None]))
        truth = torch.from_numpy(boxes).float()
        inside = (CORNERS.gt(truth[0, :2]) & CORNERS.lt(truth[0, 2:])).all(1)
        found.append(float(overlaps(rows[0, inside], truth).max()))
    return float(np.mean(found))


def test_a_detector_learns_a_few_images_and_goes_on(photographs: list[Photograph], tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    training = Training(SIZE, 20, batch_size=4, lr=4e-3, weak_epochs=20, evaluate_every=20)
    place: dict[str, Any] = {"root": tmp_path / "runs", "weights": tmp_path / "best.pt"}
    torch.manual_seed(training.seed)
    save_tensors(tmp_path / "first.pt", RTMDet("nano").state_dict())
    done = train_detector(training, "nano", photographs, photographs, report=lines.append, **place)
    assert done.step == 20 and len([line for line in lines if "loss" in line]) == 20
    stream = PhotographStream(photographs, SIZE, batch_size=4, seed=0)
    before, after = (
        _best_overlap(tmp_path / f"{name}.pt", photographs, stream) for name in ("first", "best")
    )
    assert before < 0.02 and after > 0.04, (before, after)  # 0.08 and more, by the order of sums
    (source,) = sources_in(tmp_path / "best.pt") or ()
    assert (source.name, source.licence, source.use) == (tmp_path.name, UNKNOWN, "training")
    again = train_detector(training, "nano", photographs, photographs, report=lines.append, **place)
    assert again == done and len([line for line in lines if "loss" in line]) == 20  # nothing left to do
    [folder] = (tmp_path / "runs").iterdir()
    run = runs.client().get_run(read_json(folder / "run.json")["run_id"])
    assert run.info.status == "FINISHED" and run.data.tags["stage"] == "detector"
    assert run.data.params["detector.epochs"] == "20" and run.data.params["detector.init"] == "nano"
    assert runs.logged_steps(run.info.run_id, "detector/loss") == {*range(1, 21)}
    assert runs.logged_steps(run.info.run_id, "detector/AP") == {20}


def test_a_detector_whose_training_was_killed_ends_with_the_same_bits(
    photographs: list[Photograph], tmp_path: Path
) -> None:
    training = Training(SIZE, 4, batch_size=2, lr=4e-3, weak_epochs=1, evaluate_every=2)

    def trained(name: str, killed_at: int | None = None) -> None:
        def report(line: dict[str, Any]) -> None:
            if line["step"] == killed_at:
                raise KeyboardInterrupt

        train_detector(
            training, "nano", photographs, photographs,
            root=tmp_path / name, weights=tmp_path / f"{name}.pt", report=report,
        )  # fmt: skip

    trained("whole")
    for step in (4, 6):
        with pytest.raises(KeyboardInterrupt):
            trained("killed", step)
    assert not (tmp_path / "killed.pt").exists()
    trained("killed")
    whole, killed = (read_weights(tmp_path / f"{name}.pt") for name in ("whole", "killed"))
    assert all(torch.equal(value, killed[key]) for key, value in whole.items())
    [folder] = (tmp_path / "killed").iterdir()
    assert runs.logged_steps(read_json(folder / "run.json")["run_id"], "detector/loss") == {2, 4, 6, 8}


def test_the_commands_train_export_and_judge_on_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = realdata("coco")
    content = json.loads((coco / "annotations/person_keypoints_train2017.json").read_text())
    content["images"] = content["images"][:4]
    ids = {one["id"] for one in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in ids]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(content))
    data = ["--annotations", str(truth), "--images", str(coco / "train2017")]
    tune = ["--tune-annotations", str(truth), "--tune-images", str(coco / "train2017")]
    weights, file = str(tmp_path / "person.pt"), str(tmp_path / "person.onnx")

    def command(*arguments: str) -> list[str]:
        monkeypatch.setattr("sys.argv", ["rtmpose", "detector", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_command(app)
        said = capsys.readouterr()
        assert not ended.value.code, said.err
        return said.out.splitlines()

    size = ["--input", "96x64"]
    init = ["--init", str(realdata("detectors/rtmdet-nano_320_person.onnx"))]
    place = ["--weights", weights, "--storage", str(tmp_path / "runs")]
    short = ["--batch", "2", "--epochs", "1", "--licence", "our own"]
    said = command("train", *data, *tune, *size, *init, *place, *short)
    assert json.loads(said[0])["step"] == 2 and said[-1].startswith(f"{weights}: AP ")
    assert "after epoch 1" in said[-1]
    first, own, before = command("export", weights, file, *size)
    assert (
        first == f"{file}: RTMDet-nano, 96x64, 1 class(es)" and own == "data: train2017 (training): our own"
    )
    assert before == "data: rtmdet-nano_320_person.onnx (initial weights): not known"
    further = sources(Path(file), read_people(truth, coco / "train2017"), "theirs")
    assert [(one.use, one.licence) for one in further] == [
        ("training", "theirs"), ("initial weights", "our own"), ("initial weights", "not known")
    ]  # fmt: skip
    [line] = command("eval", file, *data)
    found = json.loads(line)
    assert found["images"] == 4 and found["persons"] == len(content["annotations"])
    assert found["ap"]["low"] <= found["ap"]["value"] <= found["ap"]["high"] and found["milliseconds"] > 0
    # Trained from published weights, it still finds people: the claim of folding them back into norms.
    assert found["figures"]["AP50"] > 0.05
