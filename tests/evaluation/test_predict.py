from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.coco import evaluate_keypoints
from rtmpose.evaluation.mean_pose import mean_pose, mean_pose_predictions
from rtmpose.evaluation.predict import Pose, predict_poses, to_results
from rtmpose.evaluation.scoring import pose_score
from rtmpose.files import UserError
from rtmpose.models import build_pose_net
from rtmpose.skeleton import Skeleton
from rtmpose.targets import Codec, SimCC, UDPHeatmap
from tests.support import assert_golden, det_input, det_tensor, golden, realdata

COCO17 = load_skeleton("coco17")


def predict(
    model: nn.Module, codec: Codec, images: Any, boxes: Any, skeleton: Skeleton, nms: Any = "oks", **how: Any
) -> list[dict[str, Any]]:
    """Poses in every box as COCO results, as the evaluation makes them."""
    return to_results(predict_poses(model, codec, images, boxes, skeleton, **how), skeleton.sigmas, nms=nms)


@dataclass(frozen=True)
class Photo:
    image: np.ndarray
    image_id: int = 1
    annotations: list[dict[str, Any]] = field(default_factory=list)


def reference_net(size: str, head: str) -> nn.Module:
    """The network of the reference vectors, its weights by formula."""
    model = build_pose_net(size, head)
    state = model.state_dict()
    model.load_state_dict(
        {key: torch.from_numpy(det_tensor(key, tuple(value.shape))) for key, value in state.items()}
    )
    return model.eval()


@pytest.fixture(scope="module", params=["simcc", "heatmap"])
def case(request: pytest.FixtureRequest) -> Iterator[tuple[nn.Module, Codec, dict[str, np.ndarray]]]:
    if request.param == "simcc":
        reference = dict(np.load(golden("flip_e2e_rtmpose-t_coco_256x192.npz")))
        yield reference_net("t", "simcc"), SimCC((192, 256)), reference
    else:
        reference = dict(np.load(golden("flip_e2e_cspnext-m_udp_coco_256x192.npz")))
        yield reference_net("m", "heatmap"), UDPHeatmap((192, 256)), reference


@torch.inference_mode()
def test_flip_test_equals_the_reference(case: tuple[nn.Module, Any, dict[str, np.ndarray]]) -> None:
    model, codec, reference = case
    images = torch.from_numpy(det_input((2, 3, 256, 192)))
    plain, mirrored = model(images), model(images.flip(-1))
    merged = codec.flip_average(plain, mirrored, COCO17.flip)
    assert list(COCO17.flip) == reference["flip_indices"].tolist()
    if isinstance(merged, Tensor):
        difference = np.abs(merged[:1].numpy() - reference["merged_heatmaps"]).max()
        assert difference < 1e-4 * np.abs(reference["merged_heatmaps"]).max()
    else:
        for axis, output in zip("xy", merged, strict=True):
            assert_golden(output[:1], reference[f"merged_simcc_{axis}"])
    for outputs, kind in ((plain, "noflip"), (merged, "flip")):
        keypoints, scores = codec.decode(outputs)
        np.testing.assert_allclose(keypoints, reference[f"decode_{kind}_kpts"], atol=0.05)
        np.testing.assert_allclose(scores, reference[f"decode_{kind}_scores"], rtol=1e-4)


@pytest.mark.parametrize("flip_test", [True, False])
def test_end_to_end_on_a_photograph_equals_the_reference(
    case: tuple[nn.Module, Codec, dict[str, np.ndarray]], flip_test: bool
) -> None:
    model, codec, reference = case
    pixels = cv2.imread(str(realdata("coco_wholebody/val2017/000000000785.jpg")))
    assert pixels is not None
    photo = Photo(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    corners = reference["bboxes"].astype(np.float64)
    boxes = {1: [(np.concatenate([box[:2], box[2:] - box[:2]]), 1.0) for box in corners]}
    results = predict(model, codec, [photo], boxes, COCO17, batch_size=2, flip_test=flip_test, nms="none")
    actual = np.array([result["keypoints"] for result in results]).reshape(3, 17, 3)
    kind = f"e2e_flip{int(flip_test)}"
    np.testing.assert_allclose(actual[..., 2], reference[f"{kind}_scores"], rtol=5e-3)
    # Another OpenCV warps a few pixels by a grey level or two, which tips the few bins that are nearly tied.
    same = np.abs(actual[..., :2] - reference[f"{kind}_kpts"]) < 0.1
    assert same.mean() >= 0.97, f"{(~same).sum()} of {same.size} coordinates differ"


class Bright(nn.Module):
    """Finds the brightest pixel of each of the three colours in the crop: a stand-in that needs
    no training.
    """

    def __init__(self, codec: Codec, points: int = 3) -> None:
        super().__init__()
        self.codec, self.points = codec, points
        self.anchor = nn.Parameter(torch.zeros(()))
        self.batches: list[int] = []
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Any:
        self.batches.append(len(images))
        self.modes.append(self.training)
        maps = (images + 2.2).clamp_min(0)[:, [0, 1, 2, 0][: self.points]]  # (B, points, H, W), black is 0
        if isinstance(self.codec, UDPHeatmap):
            size = (images.shape[2] // 4, images.shape[3] // 4)
            return nn.functional.interpolate(maps, size, mode="bilinear", align_corners=True)
        x, y = maps.amax(-2).repeat_interleave(2, -1), maps.amax(-1).repeat_interleave(2, -1)
        return x, y


# Green and blue are a mirrored pair.
COLOURS = Skeleton(
    name="colours", names=("red", "left_green", "right_blue"), limbs=(), flip=(0, 2, 1), sigmas=(0.05, 0.05,
    0.05), upper=(), lower=(),
)  # fmt: skip


def spots(*spots: tuple[int, int, int], size: tuple[int, int] = (300, 200)) -> np.ndarray:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for channel, (x, y, radius) in enumerate(spots):
        yy, xx = np.mgrid[: size[1], : size[0]]
        falloff = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * radius**2))
        image[..., channel] = np.round(255 * falloff)
    return image


def annotated(annotation_id: int, box: list[float], **more: Any) -> dict[str, Any]:
    points = [10.0, 10.0, 2.0] * 3
    return {
        "id": annotation_id,
        "image_id": 1,
        "bbox": box,
        "iscrowd": 0,
        "area": 1.0,
        "keypoints": points,
        **more,
    }


@pytest.mark.parametrize("codec", [SimCC((96, 128)), UDPHeatmap((96, 128))])
def test_points_come_back_to_where_they_are_in_the_image(codec: Codec) -> None:
    truth = [(120, 60, 3), (160, 90, 3), (140, 130, 3)]
    photo = Photo(spots(*truth))
    (result,) = predict(
        Bright(codec), codec, [photo], {1: [([90.0, 40.0, 100.0, 110.0], 0.5)]}, COLOURS, flip_test=False
    )
    points = np.array(result["keypoints"]).reshape(3, 3)
    # Half a bin, or half a pixel of the map, at 1.4 image px for each input px.
    assert np.abs(points[:, :2] - np.array(truth)[:, :2]).max() < 2.0
    assert result["bbox"] == [90.0, 40.0, 100.0, 110.0] and "annotation_id" not in result
    assert result["score"] == pytest.approx(0.5 * points[:, 2].mean())


def test_batches_span_images_and_the_mode_is_restored() -> None:
    codec = SimCC((96, 128))
    photos = [Photo(spots((50, 50, 3), (60, 60, 3), (70, 70, 3)), image_id) for image_id in (1, 2, 3)]
    boxes = {
        image_id: [([20.0, 20.0, 80.0, 80.0], 1.0), ([90.0, 90.0, 50.0, 60.0], 0.5)] for image_id in (1, 2, 3)
    }
    model = Bright(codec)
    model.train()
    results = predict(model, codec, iter(photos), boxes, COLOURS, batch_size=4, flip_test=False)
    assert model.batches == [4, 2] and not any(model.modes) and model.training
    assert [result["image_id"] for result in results] == [1, 1, 2, 2, 3, 3]
    assert predict(model, codec, photos, {}, COLOURS) == []
    model.eval()
    other = predict(model, codec, photos, boxes, COLOURS, batch_size=1, flip_test=False)
    assert other == results and not model.training


def test_the_same_person_in_two_boxes_is_one_result() -> None:
    """The two differ by a fraction of a pixel, which is little for a crop of this area."""
    codec = SimCC((96, 128))
    photo = Photo(spots((120, 60, 3), (160, 90, 3), (140, 130, 3)))
    boxes = {1: [([90.0, 40.0, 100.0, 110.0], 0.5), ([89.3, 40.9, 101.0, 112.0], 0.9)]}
    (kept,) = predict(Bright(codec), codec, [photo], boxes, COLOURS, flip_test=False)
    assert kept["bbox"] == [89.3, 40.9, 101.0, 112.0]
    both = predict(Bright(codec), codec, [photo], boxes, COLOURS, flip_test=False, nms="none")
    assert len(both) == 2 and both[0]["keypoints"][:2] != both[1]["keypoints"][:2]


def test_flip_test_runs_the_mirror_image_and_swaps_pairs() -> None:
    """`Bright` tells colours, not sides: without the swap back, green and blue would meet half-way."""
    codec = SimCC((96, 128))
    photo = Photo(spots((140, 60, 3), (110, 90, 3), (165, 120, 3)))
    calls = Bright(codec)
    predict(calls, codec, [photo], {1: [([90.0, 40.0, 100.0, 110.0], 1.0)]}, COLOURS)
    assert calls.batches == [1, 1]

    class Sided(Bright):
        """Names green the left one of green and blue."""

        def forward(self, images: Tensor) -> Any:
            x, y = super().forward(images)
            left_first = x[:, 1].argmax(-1) < x[:, 2].argmax(-1)
            order = torch.tensor([0, 1, 2] if left_first.item() else [0, 2, 1])
            return x[:, order], y[:, order]

    outputs = [
        predict(
            Sided(codec),
            codec,
            [photo],
            {1: [([90.0, 40.0, 100.0, 110.0], 1.0)]},
            COLOURS,
            flip_test=flip_test,
        )
        for flip_test in (False, True)
    ]
    plain, flipped = (np.array(output[0]["keypoints"]).reshape(3, 3)[:, :2] for output in outputs)
    assert np.abs(plain - flipped).max() <= 2.0


def test_ground_truth_boxes_are_those_of_annotated_persons_clipped_to_the_image() -> None:
    codec = SimCC((96, 128))
    photo = Photo(
        spots((50, 50, 3), (60, 60, 3), (70, 70, 3)),
        annotations=[
            annotated(5, [-20.0, 10.0, 100.0, 100.0]),
            annotated(6, [10.0, 10.0, 100.0, 100.0], iscrowd=1),
            annotated(7, [10.0, 10.0, 0.0, 100.0]),
            annotated(8, [10.0, 10.0, 50.0, 50.0], keypoints=[0.0] * 9),
        ],
    )
    (result,) = predict(Bright(codec), codec, [photo], "ground truth", COLOURS, flip_test=False)
    assert result["annotation_id"] == 5 and result["bbox"] == [0.0, 10.0, 80.0, 100.0]


def test_a_model_with_more_points_is_cut_to_the_skeleton_and_one_with_fewer_is_refused() -> None:
    codec = SimCC((96, 128))
    photo = Photo(spots((50, 50, 3), (60, 60, 3), (70, 70, 3)))
    boxes = {1: [([20.0, 20.0, 80.0, 80.0], 1.0)]}
    more, exact = (predict(Bright(codec, points), codec, [photo], boxes, COLOURS) for points in (4, 3))
    assert more == exact
    with pytest.raises(UserError, match="the model has 2 keypoints, the skeleton 3"):
        predict(Bright(codec, 2), codec, [photo], boxes, COLOURS)


def test_bf16_finds_the_same_bins_nearly() -> None:
    model, codec = reference_net("t", "simcc"), SimCC((192, 256))
    photo = Photo(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
    boxes = {1: [([50.0, 40.0, 150.0, 200.0], 1.0)]}
    scores = [
        np.array(predict(model, codec, [photo], boxes, COCO17, precision=precision)[0]["keypoints"])[2::3]
        for precision in ("fp32", "bf16")
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=0.1)
    assert (scores[0] != scores[1]).any()


def test_scores_and_duplicates() -> None:
    points = np.arange(6.0).reshape(3, 2) * 10
    pose = Pose(1, points, np.array([0.1, 0.2, 0.8]), 0.5, 1e4)
    assert pose_score(pose) == pytest.approx(0.5 * 0.8)  # 0.2 is not above 0.2
    assert pose_score(pose, keypoint_threshold=0.9) == 0
    assert pose_score(pose, "keypoint") == pytest.approx(1.1 / 3)
    assert pose_score(pose, "bbox") == 0.5
    assert pose_score(pose, "bbox_rle") == pytest.approx(0.5 + 1.1 / 3 + 0.8)
    better = Pose(1, points + 0.1, pose.scores, 0.6, 1e4)
    elsewhere = Pose(2, points, pose.scores, 0.1, 1e4)
    far = Pose(1, points + 500, pose.scores, 0.1, 1e4)
    results = to_results([pose, better, elsewhere, far], COLOURS.sigmas)
    assert [(item["image_id"], round(item["score"], 3)) for item in results] == [
        (1, 0.48),
        (1, 0.08),
        (2, 0.08),
    ]
    assert len(to_results([pose, better, elsewhere, far], COLOURS.sigmas, nms="none")) == 4


def test_mean_pose_is_the_mean_of_labelled_points_in_their_boxes() -> None:
    first, second = np.array([[5.0, 5], [0, 0], [9, 9]]), np.array([[20.0, 15], [0, 0], [9, 9]])
    persons = [
        SimpleNamespace(box=(0, 0, 10, 20), keypoints=first, visible=np.array([2, 1, 0])),
        SimpleNamespace(box=(10, 10, 10, 10), keypoints=second, visible=np.array([1, 0, 0])),
    ]
    mean = mean_pose(persons)
    assert mean.tolist() == [[0.75, 0.375], [0, 0], [0.5, 0.5]]
    with pytest.raises(UserError, match="no person"):
        mean_pose([])
    truth = {"images": [{"id": 1}], "annotations": [annotated(3, [100.0, 100.0, 40.0, 80.0])]}
    (result,) = mean_pose_predictions(mean, truth)
    assert result["annotation_id"] == 3 and result["image_id"] == 1
    assert result["keypoints"] == [130, 130, 1, 100, 100, 1, 120, 140, 1]
    assert evaluate_keypoints(truth, [result], COLOURS.sigmas)["AP"] >= 0
