"""AP with its intervals, beside the published one where the recipe is a published one."""

from __future__ import annotations

from functools import partial
from typing import Any

from rtmpose.deploy.quantize.attempt import Attempt
from rtmpose.files import UserError
from rtmpose.promotion.evidence import Comparison
from rtmpose.report import charts
from rtmpose.report.blocks import Block, Chart, Figure, Note, Part, Section, Table, section
from rtmpose.report.folder import Folder, Mistakes, Told
from rtmpose.report.sections.beside import other_figures, row_and_note
from rtmpose.report.sections.evaluated import mirrors, sets_of
from rtmpose.report.sections.measures import measured

MISTAKES = "reports/mistakes.json"
SHOWN = ("AP", "AP50", "AP75", "APM", "APL", "AR")


class _Figures(Told):
    AP: float
    AP50: float
    AP75: float
    APM: float
    APL: float
    AR: float
    persons: int | None = None
    detector_AP: float | None = None
    mean_pose_AP: float | None = None


def accuracy(run: Folder) -> Section:
    parts = (_sets, other_figures, measured, _deployed, _slices)
    return section("accuracy", "Accuracy", *(partial(part, run) for part in parts))


def points(value: float | None) -> str:
    """A share as points of 100; COCO's -1 is nobody of that size."""
    return "–" if value is None or value < 0 else f"{100 * value:.1f}"


def _sets(run: Folder) -> Part:
    """The table of all sets: PyTorch, as COCO counts."""
    params = run.params()
    found = sets_of(run, params, _Figures)
    intervals: dict[str, tuple[float, float]] = {}
    notes: list[Block] = []
    try:
        known = run.read(MISTAKES, Mistakes).sets
        intervals = {key: (100 * one.AP.low, 100 * one.AP.high) for key, one in known.items()}
    except UserError as error:
        notes.append(Note(f"No intervals: {error}.", "missing"))
    rows = []
    for key, one in found.items():
        low, high = intervals.get(key, (None, None))
        interval = "–" if low is None else f"{low:.1f} to {high:.1f}"
        cells = [points(getattr(one, name)) for name in SHOWN]
        more = (points(one.detector_AP), points(one.mean_pose_AP), str(one.persons or "–"))
        rows.append((key, cells[0], interval, *cells[1:], *more))
    row, note = row_and_note(params)
    if row is not None:
        rows.append(row)
    head = ("set", "AP", "95 % interval", *SHOWN[1:], "AP on detector boxes", "mean pose", "persons")
    flip = "with" if params.evaluate.flip_test and mirrors(params) else "without"
    boxes = "ground-truth" if "ground_truth" in params.evaluate.boxes else "detector"
    caption = f"COCO's figures in points of 100: PyTorch, {flip} flip test, on {boxes} boxes"
    first = next(iter(found))
    value = points(found[first].AP)
    shown = (
        f"{first}; {intervals[first][0]:.1f} to {intervals[first][1]:.1f}" if first in intervals else first
    )
    blocks = [Table.of(caption, head, rows), *_whiskers(found, intervals), note, *notes]
    return Part(tuple(blocks), (Figure("AP", value, shown),))


def _whiskers(found: dict[str, _Figures], intervals: dict[str, tuple[float, float]]) -> list[Block]:
    rows = [(key, 100 * found[key].AP, *intervals[key]) for key in found if key in intervals]
    if not rows:
        return []
    alt = "; ".join(f"{key} {ap:.1f}, {low:.1f} to {high:.1f}" for key, ap, low, high in rows)
    table = Table.of(
        "AP and its 95 % interval, over images drawn again 1000 times", ("set", "AP", "low", "high"),
        [(key, f"{ap:.1f}", f"{low:.1f}", f"{high:.1f}") for key, ap, low, high in rows],
    )  # fmt: skip
    svg = charts.whiskers("chart-sets", rows, "AP")
    return [Chart("AP by set", svg, f"AP with its 95 % interval. {alt}.", table)]


def _deployed(run: Folder) -> Part:
    """What was picked for each target, beside PyTorch on the same images."""
    content = run.object("metrics/pick.json")
    rows = []
    for target, one in content.items():
        picked = one.get("picked") if isinstance(one, dict) else None
        for attempt in attempts_of(one, target):
            if attempt.name == picked:
                rows += [
                    (target, f"{attempt.runtime} {attempt.precision}", key, f"{of.ap.value:.1f}",
                     f"{of.ap.low:.1f} to {of.ap.high:.1f}", f"{of.difference.value:+.2f}",
                     f"{of.difference.low:+.2f} to {of.difference.high:+.2f}")
                    for key, of in attempt.sets.items()
                ]  # fmt: skip
        if picked is None:
            rows.append((str(target), "nothing passed", "–", "–", "–", "–", "–"))
    head = ("target", "picked", "set", "AP", "95 % interval", "difference to fp32", "its interval")
    return Part((Table.of("AP of what each target gets, without flip test", head, rows),))


def attempts_of(content: Any, target: str) -> list[Attempt]:
    """What was tried for a target, from its part of `metrics/pick.json`."""
    try:
        return [Attempt.model_validate(one) for one in content["attempts"]]
    except (ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"metrics/pick.json: {target}: {reason}; `dvc repro pick` writes it") from None


def _slices(run: Folder) -> Part:
    """Recall where a mean over all persons hides it."""
    found = run.read("metrics/compare.json", Comparison)
    rows = [
        (target, key, name, str(one.persons), f"{one.recall.value:.1f}",
         f"{one.recall.low:.1f} to {one.recall.high:.1f}")
        for target, accuracy in found.targets.items()
        for key, of in accuracy.sets.items()
        for name, one in of.slices.items()
        if one.recall is not None
    ]  # fmt: skip
    if not rows:
        raise UserError("metrics/compare.json: holds no slices; `dvc repro compare` writes it")
    head = ("target", "set", "slice", "persons", "recall", "95 % interval")
    return Part((Table.of("Recall of kinds of persons and parts of the body, as deployed", head, rows),))
