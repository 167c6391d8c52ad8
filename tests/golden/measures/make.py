"""Writes reference.json: what MMPose 1.3.2 and xtcocotools 1.14.3 compute from the persons and predictions
that `tests/evaluation/measures/cases.py` draws.

Neither is needed to run the tests. In an environment of its own:

    pip install numpy==1.26.4 xtcocotools==1.14.3 && pip download --no-deps mmpose==1.3.2
    python -m tests.golden.measures.make mmpose-1.3.2-py2.py3-none-any.whl

Of MMPose only the files with its metrics are loaded, with stand-ins for what they import and do not use here.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import tempfile
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import xtcocotools.coco
import xtcocotools.cocoeval

from tests.evaluation.measures import cases

OUT = Path(__file__).parent / "reference.json"
DATASETS = Path(__file__).parents[3] / "datasets"


def metrics_of_mmpose(wheel: str) -> Any:
    """The module with MMPose's metrics of points in 2D."""
    folder = Path(tempfile.mkdtemp())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if "mmpose/evaluation/" in name])

    class Registry:
        def register_module(self) -> Any:
            return lambda metric: metric

    class BaseMetric:
        def __init__(self, collect_device: str = "cpu", prefix: str | None = None) -> None:
            self.results: list[Any] = []

    class MMLogger:
        @staticmethod
        def get_current_instance() -> logging.Logger:
            return logging.getLogger("mmpose")

    stand_ins: dict[str, dict[str, Any]] = {
        "mmengine": {},
        "mmengine.evaluator": {"BaseMetric": BaseMetric},
        "mmengine.logging": {"MMLogger": MMLogger},
        "mmpose": {},
        "mmpose.registry": {"METRICS": Registry()},
        "mmpose.codecs": {},
        "mmpose.codecs.utils": {"get_heatmap_maximum": None, "get_simcc_maximum": None},
        "mmpose.evaluation": {},
        "mmpose.evaluation.functional": {},
        "mmpose.evaluation.metrics": {},
        "mmpose.evaluation.functional.mesh_eval": {"compute_similarity_transform": None},
    }
    for name, content in stand_ins.items():
        module = types.ModuleType(name)
        module.__dict__.update(content | {"__path__": []})
        sys.modules[name] = module
    functional = _load("mmpose.evaluation.functional.keypoint_eval", folder)
    shared = sys.modules["mmpose.evaluation.functional"]
    shared.__dict__.update({key: value for key, value in vars(functional).items() if "keypoint_" in key})
    return _load("mmpose.evaluation.metrics.keypoint_2d_metrics", folder)


def _load(name: str, folder: Path) -> Any:
    path = folder / (name.replace(".", "/") + ".py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def of_points(name: str) -> list[dict[str, Any]]:
    """A drawn case as MMPose's metrics collect it."""
    case = cases.points(name)
    rows = zip(*(case[key] for key in ("predicted", "true", "labelled", "boxes", "heads")), strict=True)
    return [
        {
            "pred_coords": predicted[None],
            "gt_coords": true[None],
            "mask": labelled[None],
            "bbox_size": np.full((1, 2), box[2:].max()),
            "head_size": np.full((1, 2), head),
            "torso_size": np.full((1, 2), np.linalg.norm(true[4] - true[5])),
        }
        for predicted, true, labelled, box, head in rows
    ]


def _with(metric: Any, name: str) -> Any:
    metric.dataset_meta = {"dataset_name": name}
    return metric


def point_metrics(mmpose: Any) -> dict[str, dict[str, float]]:
    hands, bodies, persons = of_points("hand"), of_points("mpii"), of_points("jhmdb")
    # MpiiPCKAccuracy takes true points that count from 1, and adds 1 to the predicted ones.
    from_one = [{**body, "gt_coords": body["gt_coords"] + 1.0} for body in bodies]
    found = {
        "hand": mmpose.PCKAccuracy(thr=0.2, norm_item="bbox").compute_metrics(hands)
        | mmpose.AUC().compute_metrics(hands)
        | mmpose.EPE().compute_metrics(hands),
        "mpii": mmpose.MpiiPCKAccuracy(thr=0.5, norm_item="head").compute_metrics(from_one),
        "jhmdb": mmpose.JhmdbPCKAccuracy(thr=0.2, norm_item=["bbox", "torso"]).compute_metrics(persons),
        **{
            name: _with(mmpose.NME(norm_mode="keypoint_distance"), name).compute_metrics(of_points(name))
            for name in ("wflw", "lapa", "coco_wholebody_face")
        },
    }
    return {name: {key: float(value) for key, value in one.items()} for name, one in found.items()}


def coco_figures(truth: dict[str, Any], results: list[dict[str, Any]], kind: str, sigmas: Any) -> list[float]:
    """All that xtcocotools prints of one kind of keypoints."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "truth.json", Path(folder) / "results.json"]
        for path, content in zip(files, (truth, results), strict=True):
            path.write_text(json.dumps(content))
        wanted = xtcocotools.coco.COCO(str(files[0]))
        crowd = kind == "keypoints_crowd"
        evaluation = xtcocotools.cocoeval.COCOeval(
            wanted, wanted.loadRes(str(files[1])), kind, sigmas, use_area=not crowd
        )
        if crowd:
            evaluation.anno_file = (str(files[0]), str(files[1]))
        evaluation.params.useSegm = None
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def in_fields(result: dict[str, Any]) -> dict[str, Any]:
    flat, start, fields = result["keypoints"], 0, {}
    for name, count in cases.FIELDS.items():
        fields[name] = flat[3 * start : 3 * (start + count)]
        start += count
    return {**result, **fields}


def sigmas_of(name: str) -> Any:
    import yaml

    return np.array(yaml.safe_load((DATASETS / f"{name}.yaml").read_text())["skeleton"]["sigmas"])


def main(wheel: str) -> None:
    parts = {
        "body": (0, 17), "foot": (17, 23), "face": (23, 91), "lefthand": (91, 112), "righthand": (112, 133),
        "wholebody": (0, 133),
    }  # fmt: skip
    whole, found = cases.whole_bodies()
    sigmas = sigmas_of("coco_wholebody")
    reference = {
        "points": point_metrics(metrics_of_mmpose(wheel)),
        "crowdpose": coco_figures(*cases.crowds(), "keypoints_crowd", sigmas_of("crowdpose")),
        "parts": {
            part: coco_figures(whole, list(map(in_fields, found)), f"keypoints_{part}", sigmas[slice(*ends)])
            for part, ends in parts.items()
        },
    }
    OUT.write_text(json.dumps(reference, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
