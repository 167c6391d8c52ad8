"""AP and AR of the trained model on every evaluation set, beside the mean pose: `python -m
pipelines.evaluate`.

With `--raw DIR` the validation images of any raw folder are evaluated instead, and only printed: `python -m
pipelines.evaluate --raw ../coco --descriptor coco17 --weights models/rtmpose.pt --boxes detections`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pipelines import stage
from pipelines.progress import progress_line

if TYPE_CHECKING:
    from rtmpose.config import Params
    from rtmpose.descriptors import Dataset
    from rtmpose.evaluation.evaluator import Evaluator, Figures, Results
    from rtmpose.evaluation.measures import Pool
    from rtmpose.evaluation.predict import Boxes

MIX, WEIGHTS, SEARCH = Path("data/mix.json"), Path("models/rtmpose.pt"), Path("models/search.json")
METRICS = Path("metrics/evaluate.json")
TABLE = Path("metrics/per_keypoint.csv")
PICTURE = Path("reports/predictions.png")
MISTAKES = Path("reports/mistakes.json")
PX = "correct `area`, which is in px², or leave it out: a share of the box counts then"
DRAWN = 12  # images in the picture
NOBODY = "no annotation is a person with a labelled point (`rtmpose dataset check` says why)"
# px²: COCO's AP counts nobody of a larger area, APM and APL nobody of a smaller one.
LARGEST, SMALL = 10**10, 32**2


def evaluator(params: Params, weights: Path, to: TextIO | None = None) -> Evaluator:
    """The trained network and how the parameters say to evaluate it, which `to` (stdout) is told."""
    import torch

    from rtmpose.evaluation.evaluator import load_evaluator
    from rtmpose.evaluation.measures import Pool
    from rtmpose.precision import announce, choose_here
    from rtmpose.targets import codec_for

    chosen = choose_here(params, on_gpu=torch.cuda.is_available())
    announce("evaluate", chosen, to)
    codec = codec_for(params.model.head, params.input_size)
    judge = load_evaluator(params, weights, codec, chosen.precision)
    if (together := params.evaluate.pooled) is not None:
        judge = replace(judge, pool=Pool.of(together, judge.skeleton.names))
    if params.evaluate.flip_test and not judge.skeleton.mirrors:
        why = f"no flip test: {judge.skeleton.name} has no left and right points"
        print(f"evaluate  {why}", file=to or sys.stdout, flush=True)
    return judge


def detector_boxes(params: Params, key: str) -> Boxes | None:
    """The detector file of a set's raw folder, where it has one."""
    from rtmpose.checkout import home
    from rtmpose.descriptors import load_dataset
    from rtmpose.evaluation.coco import load_detections

    layout = load_dataset(params.datasets[key].descriptor).splits["val"]
    path = home(params.datasets[key].raw) / layout.detections if layout.detections else None
    if path is None or not path.exists():
        return None
    return load_detections(path, category_id=layout.detections_category)


def judging(judge: Evaluator, dataset: Dataset) -> Evaluator:
    """The evaluator by the metrics of a data set's descriptor; stderr says where AP rests on estimates."""
    if dataset.sigmas_estimated:
        print(
            f"evaluate  {dataset.name}: AP is by estimated sigmas, since none are published: it compares "
            "only models that are measured with the same ones",
            file=sys.stderr,
            flush=True,
        )
    only_ap = dataset.metrics == ("ap",) and judge.pool is None
    return judge if only_ap else judge.judging(dataset)


def set_figures(
    judge: Evaluator, params: Params, key: str, folder: Path
) -> tuple[Figures, Results, dict[str, Any]]:
    """Figures on ground-truth boxes and the detector boxes' AP beside them; on detector boxes if only those
    are asked for.
    """
    from rtmpose.descriptors import load_dataset
    from rtmpose.files import UserError

    def show() -> Callable[[int, int], None]:
        return progress_line(f"evaluate  {key}:", "images")

    boxes = detector_boxes(params, key) if "detections" in params.evaluate.boxes else None
    judge = judging(judge, load_dataset(params.datasets[key].descriptor))
    if "ground_truth" in params.evaluate.boxes:
        figures, results, truth = judge.shards(folder, progress=show())
        if boxes is not None:
            detected, _, compared = judge.shards(folder, boxes, show())
            refuse_other_boxes(f"{params.datasets[key].raw}: its detector file", compared)
            figures["detector_AP"] = detected["AP"]
            figures |= {"detector_measures": found} if (found := detected.get("measures")) else {}
    elif boxes is not None:
        figures, results, truth = judge.shards(folder, boxes, show())
        refuse_other_boxes(f"{params.datasets[key].raw}: its detector file", truth)
    else:
        fix = "put its detector file there or add ground_truth to evaluate.boxes"
        raise UserError(f"{params.datasets[key].raw}: has no detector file for data set '{key}'; {fix}")
    refuse_nan(figures)
    tell(key, figures, truth)
    if figures["AP"] < 0:
        why = uncounted(figures, truth)
        raise UserError(f"{params.datasets[key].raw}: data set '{key}': {why}; evaluate another")
    figures["mean_pose_AP"] = judge.mean_pose_ap(truth)
    figures |= in_millimetres(params.datasets[key].descriptor, judge, truth, results)
    return named(figures), results, truth


def named(figures: Figures) -> Figures:
    """The figures as they are published: DVC takes a metric named `error` for a file that it cannot read."""
    return {"keypoint_error" if name == "error" else name: value for name, value in figures.items()}


def in_millimetres(descriptor: str, judge: Evaluator, truth: dict[str, Any], results: Results) -> Figures:
    """Errors in mm, for sets whose descriptor names the metric `mre`, told on stderr, too; else nothing."""
    from rtmpose.descriptors import load_dataset
    from rtmpose.evaluation.radial import radial_figures, radial_line

    if "mre" not in load_dataset(descriptor).metrics:
        return {}
    figures = radial_figures(truth, results, judge.skeleton.names)
    print(f"evaluate  {descriptor}: {radial_line(figures)}", file=sys.stderr, flush=True)
    return {"mre": figures}


def pooled_figures(pool: Pool) -> dict[str, Any]:
    """The figures of all sets together, told on stderr, too."""
    from rtmpose.evaluation.measures import shown

    figures = pool.figures()
    unknown = [f"{name} is not measured: {why}" for name, why in figures.get("unmeasured", {}).items()]
    for line in [*shown(figures.get("measures", {})), *unknown]:
        print(f"evaluate  {pool.told.name}, all sets together: {line}", file=sys.stderr, flush=True)
    return figures


def refuse_nan(figures: Figures) -> None:
    """UserError where the figures are not numbers: the network's points are not."""
    from rtmpose.files import UserError

    if math.isnan(figures["AP"]):
        raise UserError(
            "AP is not a number: the network's keypoints are not finite; its weights are damaged, or its "
            "training diverged: evaluate others"
        )


def refuse_other_boxes(name: Path | str, truth: dict[str, Any]) -> None:
    """UserError where none of a detector's boxes is of these images."""
    from rtmpose.files import UserError

    if truth.get("images") and not truth.get("found_boxes", 0):
        raise UserError(
            f"{name}: has no box of these images, whose ids are such as {truth['images'][0]['id']!r}; give "
            "the detections of this split, with the image_id of its annotations"
        )


def tell(key: str, figures: Figures, truth: dict[str, Any]) -> None:
    """The metrics besides AP, and what keeps figures from saying what the network is worth, on stderr."""
    from rtmpose.evaluation.counted import Counted
    from rtmpose.evaluation.measures import shown

    boxes = {"measures": "", "detector_measures": "on the detector's boxes: "}
    lines = [f"{where}{line}" for name, where in boxes.items() for line in shown(figures.get(name, {}))]
    unknown = [f"{name} is not measured: {why}" for name, why in figures.get("unmeasured", {}).items()]
    for line in [*lines, *unknown]:
        print(f"evaluate  {key}: {line}", file=sys.stderr, flush=True)
    for note in Counted.of(truth).notes():
        print(f"evaluate  {key}: {note}", file=sys.stderr, flush=True)
    why = uncounted(figures, truth)
    if why is not None:
        names = "AP is" if figures["AP"] < 0 else "APM and APL are"
        print(f"evaluate  {key}: {names} -1: {why}", file=sys.stderr, flush=True)


def uncounted(figures: Figures, truth: dict[str, Any]) -> str | None:
    """Why AP, or APM and APL alike, are -1, which COCO says where it has counted nobody; None where they are
    not.
    """
    from rtmpose.data.raw.coco_form import is_person

    if max(figures["APM"], figures["APL"]) >= 0 or math.isnan(figures["AP"]):
        return None
    persons = [annotation for annotation in truth["annotations"] if is_person(annotation)]
    if not persons:
        return NOBODY
    areas = [annotation["area"] for annotation in persons]
    bound = f"above {LARGEST:.0e}" if figures["AP"] < 0 else f"below {SMALL}"
    found = f"from {min(areas):.3g} to {max(areas):.3g}"
    return f"all {len(persons)} persons have an area {bound} px² ({found}); {PX}"


def evaluate_sets(params: Params) -> None:
    """The stage: figures of every set into METRICS, errors per point into TABLE, kinds of errors into
    MISTAKES, a picture of the first set's predictions.
    """
    from rtmpose.data.stream.mix import read_mix
    from rtmpose.drawing import draw_predictions
    from rtmpose.evaluation.breakdown import breakdown, per_keypoint_error
    from rtmpose.evaluation.coco import evaluate_whole_body
    from rtmpose.evaluation.evaluator import sample_images
    from rtmpose.evaluation.mistakes.report import Mistakes
    from rtmpose.files import UserError, write_atomic, write_csv

    judge, mix = evaluator(params, WEIGHTS), read_mix(MIX)
    if not mix.val:
        raise UserError("params.yaml: datasets: none has `evaluate: true`; mark the one to report AP on")
    report: dict[str, Any] = {}
    mistakes = Mistakes(judge.skeleton)
    for number, (key, folder) in enumerate(mix.val.items()):
        figures, results, truth = set_figures(judge, params, key, folder)
        shown = "  ".join(f"{name} {value:.3f}" for name, value in figures.items() if "AP" in name)
        print(f"evaluate  {key}: {shown}", flush=True)
        if judge.skeleton.name == "coco_wholebody":
            parts = evaluate_whole_body(truth, results, judge.skeleton.sigmas)
            figures["parts"] = {part: {"AP": of["AP"], "AR": of["AR"]} for part, of in parts.items()}
        groups = breakdown(truth, results, judge.skeleton.sigmas)
        figures["recall"] = {f"{row['attribute']} {row['value']}": row["recall"] for row in groups}
        mistakes.add(key, folder, truth, results)
        if number == 0:
            report = figures
            rows = per_keypoint_error(truth, results, judge.skeleton)
            write_csv(TABLE, list(rows[0]), rows)
            draw_predictions(sample_images(folder, DRAWN), results, judge.skeleton, PICTURE)
        else:
            report[key] = figures
    if judge.pool is not None:
        report["pooled"] = pooled_figures(judge.pool)
    mistakes.write(MISTAKES)
    write_atomic(METRICS, json.dumps(report, indent=1) + "\n")
    print(
        f"evaluate  figures → {METRICS}; `rtmpose report` puts the run on one page, report.html", flush=True
    )


def evaluate_raw(params: Params, options: argparse.Namespace) -> None:
    """AP on a raw folder's validation images, printed as one JSON object; what is doubtful goes to stderr."""
    from rtmpose.checkout import home
    from rtmpose.data.raw.annotations import split_layout
    from rtmpose.data.raw.doubts import Doubts
    from rtmpose.descriptors import load_dataset
    from rtmpose.evaluation.coco import load_detections
    from rtmpose.files import UserError

    dataset, root = load_dataset(options.descriptor), home(options.raw)
    boxes: Boxes = "ground truth"
    if options.boxes == "detections":
        detections = dataset.splits["val"].detections
        if detections is None:
            raise UserError(
                f"datasets/{dataset.name}.yaml: splits.val.detections: not given; use --boxes ground_truth"
            )
        boxes = load_detections(root / detections, category_id=dataset.splits["val"].detections_category)
    doubts = Doubts(dataset, root / split_layout(dataset, root, "val").annotations)
    judge = judging(evaluator(params, options.weights, to=sys.stderr), dataset)
    figures, results, truth = judge.raw(dataset, root, boxes, doubts)
    if boxes != "ground truth":
        refuse_other_boxes(root / str(dataset.splits["val"].detections), truth)
    refuse_nan(figures)
    for line in doubts.lines():
        print(f"evaluate  implausible: {line}", file=sys.stderr, flush=True)
    tell(dataset.name, figures, truth)
    figures |= in_millimetres(options.descriptor, judge, truth, results)
    print(json.dumps(named(figures)))


def main(argv: list[str]) -> None:
    from rtmpose.config import load_params
    from rtmpose.search.choice import chosen_params

    parser = argparse.ArgumentParser(prog="python -m pipelines.evaluate", description=__doc__)
    parser.add_argument(
        "--raw", type=Path, help="a raw folder whose validation split to evaluate (default: the stage's sets)"
    )
    parser.add_argument(
        "--descriptor", default="coco17", help="the raw folder's data set: a name in datasets/ or a YAML file"
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--boxes", choices=["ground_truth", "detections"], default="ground_truth")
    options = parser.parse_args(argv)
    params = load_params()
    if options.weights == WEIGHTS:
        params = chosen_params(params, SEARCH)
    evaluate_raw(params, options) if options.raw else evaluate_sets(params)


if __name__ == "__main__":
    stage(main)
