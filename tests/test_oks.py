import numpy as np
import pytest

from rtmpose.oks import keypoint_similarity, oks_matrix, oks_nms, soft_oks_nms
from tests.support import assert_golden, golden

SIGMAS = [
    0.026,
    0.025,
    0.025,
    0.035,
    0.035,
    0.079,
    0.079,
    0.072,
    0.072,
    0.062,
    0.062,
    0.107,
    0.107,
    0.087,
    0.087,
]
SIGMAS += [0.089, 0.089]


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return dict(np.load(golden("nms.npz")))


@pytest.mark.parametrize("case", range(4))
def test_suppression_equals_the_reference(reference: dict[str, np.ndarray], case: int) -> None:
    keypoints, scores, areas = (reference[f"nms{case}_{name}"] for name in ("keypoints", "score", "area"))
    assert_golden(oks_matrix(keypoints, areas, SIGMAS), reference[f"nms{case}_oksmat"])
    for threshold in (0.9, 0.6):
        kept = oks_nms(keypoints, scores, areas, SIGMAS, threshold)
        assert kept.tolist() == reference[f"nms{case}_oks_keep_{threshold}"].tolist()
        kept = soft_oks_nms(keypoints, scores, areas, SIGMAS, threshold)
        assert kept.tolist() == reference[f"nms{case}_soft_keep_{threshold}"].tolist()
    kept = oks_nms(keypoints, scores, areas, SIGMAS)
    assert kept.tolist() == reference[f"nms{case}_oks_keep_0.9_sigmas"].tolist()
    kept = oks_nms(keypoints, scores, areas, SIGMAS, 0.9, visible_threshold=0.3)
    assert kept.tolist() == reference[f"nms{case}_oks_keep_0.9_vis0.3"].tolist()


def test_soft_suppression_leaves_the_callers_scores_alone(reference: dict[str, np.ndarray]) -> None:
    scores = reference["nms3_score"].copy()
    soft_oks_nms(reference["nms3_keypoints"], scores, reference["nms3_area"], SIGMAS)
    np.testing.assert_array_equal(scores, reference["nms3_score"])
    assert (
        len(soft_oks_nms(reference["nms3_keypoints"], scores, reference["nms3_area"], SIGMAS, max_poses=5))
        == 5
    )


def test_no_poses() -> None:
    for suppress in (oks_nms, soft_oks_nms):
        assert suppress(np.zeros((0, 17, 2)), [], [], SIGMAS).tolist() == []


def test_poses_without_a_point_in_common_are_not_alike() -> None:
    poses = np.zeros((2, 2, 3))
    poses[0, 0, 2] = poses[1, 1, 2] = 1.0
    assert oks_matrix(poses, [1.0, 1.0], [0.1, 0.1], visible_threshold=0.5).tolist() == [
        [1.0, 0.0],
        [0.0, 1.0],
    ]


def test_keypoint_similarity_falls_to_one_over_sqrt_e_at_two_sigma_of_the_area() -> None:
    """COCO's k = 2 sigma: at a distance of k * sqrt(area) the similarity is exp(-1/2)."""
    predicted = np.array([[[0.0, 0.0], [2 * 0.05 * 30, 0.0]]])
    assert keypoint_similarity(predicted, np.zeros((2, 2)), 900.0, [0.05, 0.05])[0].tolist() == pytest.approx(
        [1.0, np.exp(-0.5)]
    )
