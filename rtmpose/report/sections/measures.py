"""What the sets are judged by besides AP: the metrics that their descriptors name, errors in mm, parts of
whole bodies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from rtmpose.report.blocks import Block, Note, Part, Table
from rtmpose.report.folder import Folder, Told
from rtmpose.report.sections.evaluated import estimated, pooled_of, sets_of

HEAD = ("metric", "value", "95 % interval", "on detector boxes", "its interval")


class _Measured(Told):
    """One metric, as `rtmpose.evaluation.measures` tells it: None where nobody is judged by it."""

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: Literal["share", "px", "norm"] = "share"
    groups: dict[str, float | None] = Field(default_factory=dict)
    keypoints: dict[str, float | None] = Field(default_factory=dict)


class _Radial(Told):
    """Errors in mm, as `rtmpose.evaluation.radial` tells them."""

    MRE: float | None
    MRE_low: float | None
    MRE_high: float | None
    SD: float | None
    SDR: dict[str, float | None]
    SDR_low: dict[str, float | None]
    SDR_high: dict[str, float | None]
    landmarks: dict[str, float | None] = Field(default_factory=dict)


class _Part(Told):
    AP: float
    AR: float


class Judged(Told):
    """What is said of one set besides COCO's figures."""

    measures: dict[str, _Measured] = Field(default_factory=dict)
    detector_measures: dict[str, _Measured] = Field(default_factory=dict)
    unmeasured: dict[str, str] = Field(default_factory=dict)
    mre: _Radial | None = None
    parts: dict[str, _Part] = Field(default_factory=dict)

    def radial_rows(self) -> tuple[tuple[str, ...], ...]:
        """Rows of the errors in mm, if there are any."""
        return () if self.mre is None else tuple(_radial(self.mre))


class _Pooled(Judged):
    """What is said of all sets together."""

    name: str
    persons: int = 0


def measured(run: Folder) -> Part:
    """A table for each set that is judged by more than AP, and what AP by estimated sigmas is worth."""
    params = run.params()
    blocks: list[Block] = []
    if found := estimated(params):
        blocks.append(
            Note(
                f"AP of {', '.join(found)} is by estimated sigmas, since none are published: it compares "
                "only models that are measured with the same ones.",
                "warning",
            )
        )
    for key, judged in sets_of(run, params, Judged).items():
        blocks += _of_a_set(key, judged)
    if (together := pooled_of(run, _Pooled)) is not None:
        blocks += _of_a_set(f"{together.name}, {together.persons} persons of all sets together", together)
    return Part(tuple(blocks))


def _of_a_set(key: str, judged: Judged) -> Iterator[Block]:
    rows = [*_rows(judged), *judged.radial_rows()]
    if rows:
        yield Table.of(f"{key}: what it is judged by besides AP", HEAD, rows)
    if judged.parts:
        parts = [(part, f"{100 * of.AP:.1f}", f"{100 * of.AR:.1f}") for part, of in judged.parts.items()]
        yield Table.of(f"{key}: AP and AR of each part", ("part", "AP", "AR"), parts)
    points = {name: (one.keypoints, one.unit) for name, one in judged.measures.items() if one.keypoints}
    names = list(dict.fromkeys(point for shares, _ in points.values() for point in shares))
    if names:
        by_point = [
            (point, *(_plain(shares.get(point), unit) for shares, unit in points.values())) for point in names
        ]
        yield Table.of(f"{key}: by point", ("point", *points), by_point)
    if judged.mre is not None and judged.mre.landmarks:
        each = [(name, _mm(value)) for name, value in judged.mre.landmarks.items()]
        yield Table.of(f"{key}: mean radial error by landmark", ("landmark", "MRE"), each)
    for name, why in judged.unmeasured.items():
        yield Note(f"{key}: {name} is not measured: {why}.", "missing")


def _rows(judged: Judged) -> Iterator[tuple[str, ...]]:
    """Each metric, on both kinds of boxes where it is known on both; its groups under it."""
    for name in dict.fromkeys((*judged.measures, *judged.detector_measures)):
        ours, theirs = judged.measures.get(name), judged.detector_measures.get(name)
        yield (name, *in_cells(ours), *in_cells(theirs))
        known = ours or theirs
        assert known is not None
        for group in known.groups:
            both = [_plain(one.groups.get(group), one.unit) if one else "–" for one in (ours, theirs)]
            yield (f"{name}, {group}", both[0], "–", both[1], "–")


def in_cells(one: _Measured | None) -> tuple[str, str]:
    """A metric's value and its interval."""
    if one is None or one.value is None:
        return "–", "–"
    return _plain(one.value, one.unit), _interval(one.low, one.high, 1 if one.unit == "px" else 100, 2)


def unit_of(name: str) -> str:
    """The unit that a metric is published in, by its name."""
    return {"EPE": "px", "MRE": "mm"}.get(name, "%")


def _plain(value: float | None, unit: str) -> str:
    """As it is published: shares and norms in %, px as px."""
    if value is None:
        return "–"
    return f"{value:.2f} px" if unit == "px" else f"{100 * value:.2f} %"


def _interval(low: float | None, high: float | None, factor: float, digits: int) -> str:
    if low is None or high is None:
        return "–"
    return f"{factor * low:.{digits}f} to {factor * high:.{digits}f}"


def _radial(mre: _Radial) -> Iterator[tuple[str, ...]]:
    spread = "" if mre.SD is None else f" ± {mre.SD:.3f}"
    value = "–" if mre.MRE is None else f"{mre.MRE:.3f}{spread} mm"
    yield "MRE", value, _interval(mre.MRE_low, mre.MRE_high, 1, 3), "–", "–"
    for at, rate in mre.SDR.items():
        interval = _interval(mre.SDR_low.get(at), mre.SDR_high.get(at), 100, 1)
        yield f"SDR at {at}", "–" if rate is None else f"{100 * rate:.1f} %", interval, "–", "–"


def _mm(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f} mm"
