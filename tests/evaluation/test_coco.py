import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.cocoeval import Params

from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.bootstrap import Ranking
from rtmpose.evaluation.coco import (
    STATISTICS,
    WHOLE_BODY_PARTS,
    annotation_keypoints,
    evaluate_keypoints,
    evaluate_whole_body,
    load_detections,
    matched,
    person_annotations,
)
from rtmpose.evaluation.predict import Pose, to_results
from rtmpose.files import UserError
from tests.support import golden, realdata

COCO17 = load_skeleton("coco17")
UPSTREAM = ("AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)")


def photographs() -> Path:
    return realdata("coco_wholebody/annotations/coco_wholebody_val_v1.0.json")


def person(image_id: int, annotation_id: int, points: np.ndarray, side: float) -> dict[str, Any]:
    labelled = np.concatenate([points, np.full((len(points), 1), 2.0)], axis=1)
    return {
        "id": annotation_id, "image_id": image_id, "category_id": 1, "iscrowd": 0, "area": side * side,
        "bbox": [0.0, 0.0, side, side], "keypoints": labelled.ravel().tolist(), "num_keypoints": len(points),
    }  # fmt: skip


@pytest.fixture
def truth() -> dict[str, Any]:
    """One large person on each of two images."""
    points = np.random.default_rng(0).uniform(0, 200, (2, 17, 2))
    return {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [person(1, 10, points[0], 200.0), person(2, 11, points[1], 200.0)],
        "categories": [{"id": 1, "name": "person"}],
    }


def perfect(truth: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"image_id": item["image_id"], "category_id": 1, "keypoints": item["keypoints"], "score": 1.0}
        for item in truth["annotations"]
    ]


@pytest.mark.parametrize("noise", ["0.0", "0.01", "0.03", "0.08"])
def test_rescoring_suppression_and_figures_equal_the_reference(noise: str) -> None:
    case = json.loads(golden("eval.json").read_text())[f"coco_noise{noise}"]
    poses = []
    for item in case["predictions"]:
        x, y, right, bottom = item["bbox_xyxy"]
        poses.append(Pose(
            item["img_id"], np.array(item["keypoints"]), np.array(item["keypoint_scores"]),
            item["bbox_score"], float(np.prod(item["bbox_scale_wh_padded"])), [x, y, right - x, bottom - y],
        ))  # fmt: skip
    modes = {"bbox_keypoint+oks_nms0.9", "keypoint+none", "bbox+soft_oks_nms0.9", "bbox_rle+oks_nms0.9"}
    assert set(case["results"]) == modes
    for mode, expected in case["results"].items():
        rescore, nms = mode.removesuffix("_nms0.9").split("+")
        results = to_results(poses, COCO17.sigmas, rescore=rescore, nms=nms)
        np.testing.assert_allclose(
            [result["score"] for result in results], expected["kept_scores"], rtol=1e-12
        )
        figures = evaluate_keypoints(photographs(), results)
        assert tuple(figures) == STATISTICS
        for value, name in zip(figures.values(), UPSTREAM, strict=True):
            assert value == pytest.approx(expected[f"coco/{name}"], abs=1e-12), name


def test_parts_of_the_whole_body() -> None:
    """On real annotations: moving the left hand of otherwise perfect predictions costs that hand and the
    whole.
    """
    truth = json.loads(photographs().read_text())
    truth["annotations"] = person_annotations(truth)
    skeleton = load_skeleton("coco_wholebody")

    def predictions(shift: float) -> list[dict[str, Any]]:
        results = []
        for annotation in truth["annotations"]:
            points = annotation_keypoints(annotation)
            assert points.shape == (133, 3)
            points[WHOLE_BODY_PARTS["left_hand"], 0] += shift
            item = {"image_id": annotation["image_id"], "keypoints": points.ravel().tolist(), "score": 1.0}
            results.append(item)
        return results

    good, bad = (evaluate_whole_body(truth, predictions(shift), skeleton.sigmas) for shift in (0.0, 300.0))
    assert set(good) == {"body", "foot", "face", "left_hand", "right_hand", "wholebody"}
    assert all(figures["AR"] == 1 for figures in good.values())
    assert bad["left_hand"]["AR"] < 0.1 and bad["wholebody"]["AR"] < 1
    for part in ("body", "foot", "face", "right_hand"):
        assert bad[part] == good[part]
    assert evaluate_keypoints(truth, predictions(0.0), skeleton.sigmas) == good["wholebody"]
    body = [{**item, "keypoints": item["keypoints"][:51]} for item in predictions(0.0)]
    assert evaluate_keypoints(truth, body)["AR"] == good["body"]["AR"]


def test_perfect_and_no_predictions(truth: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    figures = evaluate_keypoints(truth, perfect(truth))
    assert figures["AP"] == pytest.approx(1) and figures["APL"] == pytest.approx(1)
    assert figures["APM"] == figures["ARM"] == -1  # nobody of that size
    figures = evaluate_keypoints(truth, [])
    assert figures["AP"] == figures["AR"] == 0 and figures["APM"] == -1
    assert capsys.readouterr() == ("", "")


def test_annotations_may_be_numbered_from_zero_or_twice_alike(truth: dict[str, Any]) -> None:
    for numbers in ((0, 1), (5, 5)):
        for annotation, number in zip(truth["annotations"], numbers, strict=True):
            annotation["id"] = number
        assert evaluate_keypoints(truth, perfect(truth))["AP"] == pytest.approx(1.0)


def test_inputs_are_left_as_they_were(truth: dict[str, Any]) -> None:
    predictions = perfect(truth)
    before = json.dumps([truth, predictions])
    evaluate_keypoints(truth, predictions)
    assert json.dumps([truth, predictions]) == before


def test_sigmas_decide(truth: dict[str, Any]) -> None:
    predictions = perfect(truth)
    for item in predictions:
        item["keypoints"] = (np.array(item["keypoints"]) + 8).tolist()
    strict, loose = (evaluate_keypoints(truth, predictions, [sigma] * 17)["AP"] for sigma in (0.01, 0.5))
    assert strict == 0 and loose == pytest.approx(1)


def test_bad_predictions_are_one_clear_line(truth: dict[str, Any]) -> None:
    short, elsewhere, unscored = perfect(truth), perfect(truth), perfect(truth)
    short[1]["keypoints"] = short[1]["keypoints"][:-1]
    elsewhere[1]["image_id"] = 99
    del unscored[0]["score"]
    for predictions, message in (
        (short, r"^prediction 1 \(image_id 2\): keypoints has length 50, expected 51[^\n]*$"),
        (elsewhere, r"^prediction 1 \(image_id 99\): no such image[^\n]*$"),
        (unscored, r"^prediction 0 \(image_id 1\): key 'score' is missing$"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate_keypoints(truth, predictions)


def test_bad_ground_truth_is_one_clear_line_naming_the_file(truth: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    with pytest.raises(UserError, match=r"truth\.json: no such file[^\n]*$"):
        evaluate_keypoints(path, [])
    path.write_text(json.dumps(truth)[:-40])
    with pytest.raises(UserError, match=r"truth\.json: not valid JSON[^\n]*$"):
        evaluate_keypoints(path, [])
    path.write_text("[]")
    with pytest.raises(UserError, match=r"truth\.json: must be a COCO annotation file[^\n]*$"):
        evaluate_keypoints(path, [])
    path.write_text(json.dumps({"images": []}))
    with pytest.raises(UserError, match=r"truth\.json: key 'annotations' is missing[^\n]*$"):
        evaluate_keypoints(path, [])
    del truth["annotations"][1]["area"]
    path.write_text(json.dumps(truth))
    with pytest.raises(UserError, match=r"truth\.json: annotation 11: key 'area' is missing$"):
        evaluate_keypoints(path, [])
    with pytest.raises(UserError, match=r"annotation 10: has 17 keypoints, expected 3$"):
        evaluate_keypoints(truth, [], [0.1] * 3)


def test_detections_by_image_above_a_score(tmp_path: Path) -> None:
    rows = load_detections(
        realdata("coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json")
    )
    sure = load_detections(
        realdata("coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json"), 0.5
    )
    assert 0 < sum(map(len, sure.values())) < sum(map(len, rows.values()))
    assert all(score >= 0.5 and box.shape == (4,) for boxes in sure.values() for box, score in boxes)

    path = tmp_path / "detections.json"
    row = {"bbox": [1, 2, 3, 4], "category_id": 1, "image_id": 7, "score": 0.5}
    path.write_text(json.dumps([row, {**row, "category_id": 2}]))
    ((box, score),) = load_detections(path)[7]
    assert box.tolist() == [1, 2, 3, 4] and score == 0.5
    path.write_text(json.dumps([row])[:-5])
    with pytest.raises(UserError, match=r"detections\.json: not valid JSON[^\n]*$"):
        load_detections(path)
    path.write_text(json.dumps([row, {"bbox": [1, 2], "image_id": 7, "score": 1}]))
    with pytest.raises(UserError, match=r"detections\.json: entry 1: must be an object with image_id, bbox"):
        load_detections(path)
    path.write_text(json.dumps({"a": 1}))
    with pytest.raises(UserError, match=r"detections\.json: entry 0"):
        load_detections(path)


def test_whom_a_pose_is_predicted_for(truth: dict[str, Any]) -> None:
    first, second = truth["annotations"]
    crowd, flat, unlabelled = (
        {**first, "iscrowd": 1},
        {**first, "bbox": [0, 0, 0, 5]},
        {**first, "keypoints": [0] * 51},
    )
    assert person_annotations([crowd, first, flat, unlabelled, second]) == [first, second]


def test_images_with_numbers_and_texts_for_ids() -> None:
    pose = [[10.0 + 3 * k, 20.0 + 2 * k, 2] for k in range(17)]
    flat = [number for point in pose for number in point]
    one = {"bbox": [10, 20, 50, 40], "area": 1500.0, "keypoints": flat}
    ids = [7, "frame_a", "a", 3]
    truth = {
        "images": [{"id": given} for given in ids],
        "annotations": [{**one, "id": k, "image_id": given} for k, given in enumerate(ids, 1)],
    }
    found = [{"image_id": given, "keypoints": flat, "score": 1.0} for given in ids]
    assert evaluate_keypoints(truth, found)["AP"] == pytest.approx(1)
    assert evaluate_keypoints(truth, found[:1])["AR"] == pytest.approx(0.25)
    items = [item for item in matched(truth, found).evalImgs if item is not None]
    assert {item["image_id"] for item in items} == {*ids}
    sigmas = Params(iouType="keypoints").kpt_oks_sigmas
    ranking = Ranking.of(truth, found, sigmas)
    assert sorted(ranking.image.tolist()) == [0, 1, 2, 3] and ranking.persons.tolist() == [1] * 4
