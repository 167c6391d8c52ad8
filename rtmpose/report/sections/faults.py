"""Where the model errs: by point, by kind of error, and the worst of all."""

from __future__ import annotations

from rtmpose.evaluation.mistakes.kinds import ERRORS, KINDS
from rtmpose.files import UserError
from rtmpose.report import charts
from rtmpose.report.blocks import Chart, Gallery, Note, Part, Picture, Section, Table, section
from rtmpose.report.folder import Folder, Mistakes, SetMistakes
from rtmpose.report.sections.accuracy import MISTAKES

TABLE = "metrics/per_keypoint.csv"
MOST = 24  # points in the chart; the table has all
KINDS_ARE = (
    "A point is good from a similarity of 0.85 to its place on, and jitters from 0.5 on. Below, it is an "
    "inversion where it lies on the same person's other side, a swap where it lies on another person, and a "
    "miss anywhere else (Ronchi & Perona 2017, arXiv 1707.05388, section 3.1; alike are a point and its "
    "mirror image)."
)
PAGE = 100.0


def faults(run: Folder) -> Section:
    return section(
        "errors",
        "Errors",
        lambda: _kinds(run),
        lambda: _by_point(run),
        lambda: _distances(run),
        lambda: _worst(run),
    )


def _sets(run: Folder) -> dict[str, SetMistakes]:
    found = run.read(MISTAKES, Mistakes).sets
    for key, one in found.items():
        if set(one.points) != set(KINDS) or set(one.mended) != {*ERRORS, "all"}:
            raise UserError(f"{MISTAKES}: {key}: other kinds of errors; {run.fix(MISTAKES)}")
        if any(set(row) != set(KINDS) for row in one.keypoints.values()):
            raise UserError(f"{MISTAKES}: {key}: other kinds of errors; {run.fix(MISTAKES)}")
    return found


def _kinds(run: Folder) -> Part:
    """What each kind costs: a chart of the first set, a table of all."""
    found = _sets(run)
    rows = []
    for key, one in found.items():
        labelled = max(sum(one.points.values()), 1)
        for kind in (*ERRORS, "all"):
            count = one.points.get(kind, labelled - one.points["good"])
            gain = 100 * (one.mended[kind] - one.AP.value)
            rows.append((key, kind, str(count), f"{PAGE * count / labelled:.1f} %", f"{gain:+.1f}",
                         f"{100 * one.mended[kind]:.1f}"))  # fmt: skip
    head = ("set", "kind", "points", "share", "AP gained if mended", "AP then")
    table = Table.of("Kinds of errors, and AP without them", head, rows)
    key, first = next(iter(found.items()))
    gains = [(kind, 100 * (first.mended[kind] - first.AP.value)) for kind in ERRORS]
    alt = ", ".join(f"{kind} {gain:+.1f}" for kind, gain in gains)
    svg = charts.bars("chart-kinds", gains, "points of AP gained if mended")
    alone = f"{first.without_prediction} of {first.persons + first.without_prediction} persons have no pose"
    rest = (
        "What is left to 100 with all of them mended is the order of scores and persons without a pose "
        f"({key}: {alone})."
    )
    return Part(
        (
            Note(f"{KINDS_ARE} {rest}"),
            Chart(f"What mending each kind would give ({key})", svg, f"Points of AP: {alt}.", table),
        )
    )


def _by_point(run: Folder) -> Part:
    found = _sets(run)
    key, first = next(iter(found.items()))
    rows = []
    for name, counts in first.keypoints.items():
        labelled = sum(counts.values())
        if labelled:
            rows.append((name, [PAGE * counts[kind] / labelled for kind in KINDS], labelled))
    if not rows:
        raise UserError(f"{MISTAKES}: {key}: no point was judged; {run.fix(MISTAKES)}")
    worst = sorted(rows, key=lambda row: row[1][0])
    shown = [(name, parts) for name, parts, _ in worst[:MOST]]
    table = Table.of(
        f"Kinds of errors by point ({key}), the worst first; percent of labelled points",
        ("point", "labelled", *KINDS),
        [(name, str(count), *(f"{part:.1f}" for part in parts)) for name, parts, count in worst],
    )
    name, parts, _ = worst[0]
    best = worst[-1]
    alt = f"{name} is good in {parts[0]:.0f} %, {best[0]} in {best[1][0]:.0f} %; the table has all points."
    title = f"Kinds of errors by point ({key})" + (f", the worst {MOST}" if len(worst) > MOST else "")
    return Part(
        (Chart(title, charts.shares("chart-points", shown, KINDS, "% of labelled points"), alt, table),)
    )


def _distances(run: Folder) -> Part:
    """Errors in units of the person's size."""
    rows = []
    for row in run.rows(TABLE):
        cells = [row.get(column) for column in ("keypoint", "count", "median_error", "pck", "oks")]
        if None in cells:
            raise UserError(f"{TABLE}: has other columns; {run.fix(TABLE)}")
        try:
            shown = [f"{float(cell):.3f}" if cell else "–" for cell in cells[2:]]
        except ValueError as error:
            raise UserError(f"{TABLE}: {error}; {run.fix(TABLE)}") from None
        rows.append((str(cells[0]), str(cells[1]), *shown))
    caption = (
        "Error by point: median distance over the square root of the person's area, share within 0.1 of it, "
        "mean similarity"
    )
    head = ("point", "labelled", "median error", "within 0.1", "similarity")
    return Part((Table.of(caption, head, rows),))


def _worst(run: Folder) -> Part:
    poses = run.read(MISTAKES, Mistakes).worst
    if not poses:
        raise UserError(f"{MISTAKES}: holds no poses; {run.fix(MISTAKES)}")
    pictures = []
    for one in poses:
        errors = ", ".join(f"{count} {kind}" for kind, count in one.kinds.items() if count) or "no points"
        caption = f"OKS {one.oks:.2f} · image {one.image}, person {one.person} · {errors}"
        who = f"{one.dataset}, image {one.image}, person {one.person}"
        alt = f"{who}: labelled left, predicted right; {errors}."
        pictures.append(Picture(one.jpeg, alt, caption))
    which = f"The {len(pictures)} worst predictions of {poses[0].dataset}"
    caption = f"{which}: as labelled on the left, as predicted on the right"
    return Part((Gallery(caption, tuple(pictures)),))
