"""A run's figures beside the published ones, where its recipe is a published one."""

from __future__ import annotations

from rtmpose.config import Params
from rtmpose.report.blocks import Note, Part, Table
from rtmpose.report.folder import Folder
from rtmpose.report.sections.evaluated import pooled_of, sets_of
from rtmpose.report.sections.measures import Judged, in_cells, unit_of
from rtmpose.report.sections.paper import Published, published

WITHIN_CROWDS = "AP "  # how the figures begin that a detector's boxes are asked for


def row_and_note(params: Params) -> tuple[tuple[str, ...] | None, Note]:
    """The published row in the columns of what it is comparable with, AP on a detector's boxes or on those of
    the annotations; None where no AP was published.
    """
    found = published(params)
    if not isinstance(found, Published):
        return None, Note(f"No row of the paper stands beside it: {found}.")
    recipe = found.recipe
    init = (
        f" The run's backbone is that of {found.init}, which stands for the paper's pretraining."
        if found.init is not None
        else ""
    )
    if found.ap is None:
        names = ", ".join(found.others)
        return None, Note(f"Published of {recipe.name}: {names}, which stand below ({recipe.source}).{init}")
    ap, ar = f"{found.ap:.1f}", f"{found.ar:.1f}" if found.ar else "–"
    if params.evaluate.boxes == ["detections"] or not recipe.detector:
        row = ("published", ap, *["–"] * 5, ar, *["–"] * 3)
    else:
        row = ("published", *["–"] * 7, ap, "–", "–")
    recall = f" Its AR there is {ar}." if found.ar else ""
    boxes = "detector" if recipe.detector else "ground-truth"
    text = (
        f"The published row: {recipe.name}, {recipe.boxes}, {recipe.flip} ({recipe.source}). It compares "
        f"with AP on {boxes} boxes of the same images.{recall}{init}"
    )
    return row, Note(text)


def other_figures(run: Folder) -> Part:
    """Published figures besides AP beside the run's: of all sets together, where that is what was published,
    else of the first set.
    """
    params = run.params()
    found = published(params)
    if not isinstance(found, Published) or not found.others:
        return Part(())
    sets, together = sets_of(run, params, Judged), pooled_of(run, Judged)
    first = next(iter(sets))
    alone = f" This run's are of {first} alone." if together is None and len(sets) > 1 else ""
    judged = together or sets[first]
    ours = {name: in_cells(one) for name, one in judged.measures.items()}
    ours |= {
        name: in_cells(one)
        for name, one in judged.detector_measures.items()
        if name.startswith(WITHIN_CROWDS)
    }
    ours |= {row[0]: (row[1], row[2]) for row in judged.radial_rows()}
    rows = [
        (name, f"{value:g} {unit_of(name)}", *ours.get(name, ("–", "–")))
        for name, value in found.others.items()
    ]
    head = ("figure", "published", "this run's", "95 % interval")
    note = Note(
        f"Published figures: {found.recipe.name}, {found.recipe.others} ({found.recipe.source}).{alone}"
    )
    return Part((Table.of(f"{found.recipe.name}: beside the published figures", head, rows), note))
