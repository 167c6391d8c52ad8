"""The keys `metrics` and `metric_options` of a descriptor, and what cannot be measured by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rtmpose.config.metrics import MetricOptions
from rtmpose.descriptors import load_dataset, shipped_datasets
from rtmpose.evaluation.measures import measure, shown
from rtmpose.evaluation.scoring import Pose
from rtmpose.files import UserError, data_file
from tests.evaluation.measures.test_reference import drawn

NAMES = [f"p{number}" for number in range(21)]
BESIDES_AP = {
    "mpii": ("pckh",),
    "onehand10k": ("pck", "auc", "epe"),
    "coco_wholebody_hand": ("pck", "auc", "epe"),
    "wflw": ("nme",),
    "lapa106": ("nme",),
    "lapa106_train": ("nme",),
    "coco_wholebody_face": ("nme",),
    "crowdpose": ("crowd",),
    "coco_wholebody": ("parts",),
    "cephalometric38": ("mre",),
    "cephalometric38_stack": ("mre",),
    **dict.fromkeys(("freihand", "rhd", "halpe_hand"), ("pck", "auc", "epe")),
    **dict.fromkeys(("face300w", "halpe_face", "cofw"), ("nme",)),
    "jhmdb": ("pck", "tpck"),
}


def test_what_each_set_is_judged_by() -> None:
    found = {name: load_dataset(name).metrics for name in shipped_datasets()}
    assert {name: metrics[1:] for name, metrics in found.items() if len(metrics) > 1} == BESIDES_AP
    assert {metrics[0] for metrics in found.values()} == {"ap"}


def birds(tmp_path: Path, **keys: Any) -> Path:
    """The template with further keys."""
    text = yaml.safe_load(data_file("datasets", "TEMPLATE").read_text())
    path = tmp_path / "birds.yaml"
    path.write_text(yaml.safe_dump(text | keys))
    return path


def test_the_example_of_the_template_loads(tmp_path: Path) -> None:
    lines = data_file("datasets", "TEMPLATE").read_text().splitlines()
    start = lines.index("# metrics: [ap, pck, nme, parts]")
    example = yaml.safe_load("\n".join(line.removeprefix("# ") for line in lines[start : start + 5]))
    dataset = load_dataset(str(birds(tmp_path, **example)))
    assert dataset.metrics == ("ap", "pck", "nme", "parts")
    assert dataset.metric_options.pck.at == (0.1, 0.2) and dataset.metric_options.pck.average == "points"
    assert dataset.metric_options.parts == {"head": ("beak", "*_eye"), "wings": ("*_wing",)}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"metrics": ["nme"]}, "metric_options.nme: not given; metrics names it: say norm"),
        ({"metrics": ["parts"]}, "metric_options.parts: not given; metrics names it: say the parts"),
        ({"metrics": ["epe", "epe"]}, "metrics: epe is named twice"),
        ({"metrics": ["pckk"]}, "metrics.0: "),
        ({"metrics": []}, "metrics: "),
        (
            {"metric_options": {"nme": {"norm": ["beak", "toe"]}}},
            "metric_options.nme.norm: toe is not one of",
        ),
        ({"metric_options": {"pck": {"without": ["*_toe"]}}}, r"metric_options.pck.without: \*_toe is not"),
        (
            {"metric_options": {"pckh": {"groups": {"a": ["x"]}}}},
            "metric_options.pckh.groups.a: x is not one",
        ),
        ({"metric_options": {"parts": {"a": ["x"]}}}, "metric_options.parts.a: x is not one of the points"),
        ({"metric_options": {"crowd": {"bounds": [0.8, 0.2]}}}, r"metric_options.crowd: [^\n]*must rise"),
        ({"metric_options": {"pck": {"norm": -3}}}, "metric_options.pck.norm"),
        ({"metric_options": {"pck": {"norms": "box"}}}, "metric_options.pck.norms: unknown key"),
        (
            {"splits": {"val": {"annotations": "a.json", "images": ".", "head_boxes": "h.mat"}}},
            "splits: head_boxes is an option of reader: mpii",
        ),
    ],
)
def test_mistakes_are_one_line(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^[^\n]*birds\.yaml: {said}[^\n]*$"):
        load_dataset(str(birds(tmp_path, **keys)))


def measured(truth: dict[str, Any], poses: list[Pose] | None, *metrics: str, **options: Any) -> Any:
    told = MetricOptions.model_validate(options)
    return measure(
        truth, poses, [], metrics=metrics, options=told, names=NAMES, sigmas=[0.1] * len(NAMES), draws=20
    )


def test_what_cannot_be_measured_says_why() -> None:
    truth, poses = drawn("hand")
    heads = [{key: each[key] for key in each if key != "head_size"} for each in truth["annotations"]]
    metrics = ("pckh", "nme", "crowd", "epe", "mre")
    found, unknown = measured(
        {**truth, "annotations": heads}, poses, *metrics, nme={"norm": ["p0", "another"]}
    )
    assert set(found) == {"EPE"} and set(unknown) == {"pckh", "nme", "crowd"}
    assert "head_size" in unknown["pckh"] and "another" in unknown["nme"] and "crowdIndex" in unknown["crowd"]


def test_a_detectors_boxes_leave_metrics_of_points_out() -> None:
    found, unknown = measured(drawn("hand")[0], None, "ap", "pck", "epe", "mre")
    assert not found and set(unknown) == {"pck", "epe"}
    assert all("add ground_truth to evaluate.boxes" in reason for reason in unknown.values())


def test_a_person_without_a_pose_counts_as_the_mean_pose() -> None:
    truth, poses = drawn("hand")
    all_found, _ = measured(truth, poses, "epe")
    none_found, _ = measured(truth, [], "epe")
    one_lost, _ = measured(truth, poses[1:], "epe")
    values = [each["EPE"].interval.value for each in (all_found, one_lost, none_found)]
    assert values == sorted(values) and values[0] < values[1] < values[2] < 100


def test_nobody_is_judged() -> None:
    found, unknown = measured({"images": [], "annotations": []}, [], "pck", "auc", "epe")
    assert not unknown and set(found) == {"PCK@0.2", "AUC", "EPE"}
    plain = {name: each.as_json() for name, each in found.items()}
    assert all(each["value"] is each["low"] is None for each in plain.values())
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert shown(plain)[2] == "EPE is not known: nobody is judged by it"


def test_the_middle_of_two_points_and_a_norm_in_px() -> None:
    truth, poses = drawn("hand")
    for each in truth["annotations"]:
        each["keypoints"][: 4 * 3] = [0, 0, 2, 10, 0, 2, 0, 40, 2, 10, 40, 2]  # p0 to p3: 40 px apart
    middles, _ = measured(truth, poses, "pck", "epe", pck={"norm": ["p0 + p1", "p2 + p3"], "at": [0.5]})
    px, _ = measured(truth, poses, "pck", pck={"norm": 1, "at": [20]})
    assert middles["PCK@0.5"] == px["PCK@20"]
    assert shown({"EPE": middles["EPE"].as_json()})[0].startswith("EPE ") and px["PCK@20"].unit == "share"
