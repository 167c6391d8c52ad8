"""Mean radial error (MRE) and success detection rate (SDR): how far landmarks lie from their true places in
mm, and how many lie close enough (Wang et al., "Evaluation and Comparison of Anatomical Landmark Detection
Methods for Cephalometric X-Ray Images", IEEE TMI 34(9), 2015, section III-C; CL-Detection 2023 alike).

The radial error of a landmark is its distance in px times the image's spacing in mm per px. MRE is the mean
over all labelled landmarks of all images, given with the standard deviation over the same errors; SDR is the
share of them whose error is at most 2, 2.5, 3 and 4 mm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.raw import fields
from rtmpose.evaluation.bootstrap import Interval, resamples
from rtmpose.evaluation.coco import annotation_keypoints, person_annotations
from rtmpose.files import UserError

Floats = NDArray[np.float64]

SDR_THRESHOLDS = (2.0, 2.5, 3.0, 4.0)  # mm


@dataclass(frozen=True)
class RadialErrors:
    """Errors (P, K) in mm of each labelled instance, and which of `images` (its number, from 0) it lies in.

    NaN is a landmark that is not labelled; infinite is one that nothing was predicted for: no SDR counts it
    as found, and MRE leaves it out, since it has no distance.
    """

    errors: Floats
    image: NDArray[np.int64]
    images: int

    @property
    def labelled(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.errors)

    def mean(self) -> float:
        """MRE in mm; NaN where nothing is labelled and predicted."""
        known = self.errors[np.isfinite(self.errors)]
        return float(known.mean()) if known.size else float("nan")

    def spread(self) -> float:
        """The standard deviation over all errors, in mm, as it is published beside MRE."""
        known = self.errors[np.isfinite(self.errors)]
        return float(known.std()) if known.size else float("nan")

    def rate(self, threshold: float) -> float:
        """SDR: the share of labelled landmarks with an error of at most `threshold` mm."""
        wanted = self.errors[self.labelled]
        return float((wanted <= threshold).mean()) if wanted.size else float("nan")

    def mean_interval(self, draws: NDArray[np.int64]) -> Interval:
        """MRE with its 95 % interval over the images drawn again, (times, images)."""
        known = np.isfinite(self.errors)
        return _interval(self.mean(), self._resampled(np.where(known, self.errors, 0.0), known, draws))

    def rate_interval(self, threshold: float, draws: NDArray[np.int64]) -> Interval:
        """SDR with its 95 % interval over the images drawn again, (times, images)."""
        found = np.nan_to_num(self.errors, nan=np.inf) <= threshold
        return _interval(self.rate(threshold), self._resampled(found, self.labelled, draws))

    def _resampled(
        self, values: NDArray[Any], counted: NDArray[np.bool_], draws: NDArray[np.int64]
    ) -> Floats:
        """The mean of the counted values in each resample (times,); NaN where it holds none."""
        total, count = (
            np.bincount(self.image, part.sum(axis=1), minlength=self.images) for part in (values, counted)
        )
        drawn = draws @ count
        return np.where(drawn > 0, draws @ total / np.maximum(drawn, 1), np.nan)


def _interval(value: float, resampled: Floats) -> Interval:
    """The figure and its interval; all NaN where nobody is judged."""
    return Interval.of(value, resampled) if np.isfinite(value) else Interval(value, value, value)


def _plain(value: float) -> float | None:
    """The value as JSON has it: None where it is no number."""
    return value if np.isfinite(value) else None


def radial_errors(
    truth: Mapping[str, Any], results: Iterable[Mapping[str, Any]], points: int
) -> RadialErrors:
    """The radial errors of COCO results beside the annotations of `truth`, whose key `spacing` is the image's
    mm per px; `points` of each pose are compared.

    An instance is compared with the result that names it (`annotation_id`), else with the best of its image.
    Raises UserError where an annotation has no spacing.
    """
    by_instance: dict[Any, Mapping[str, Any]] = {}
    by_image: dict[Any, Mapping[str, Any]] = {}
    for one in sorted(results, key=lambda each: float(each["score"])):  # the best one comes last
        by_instance[one.get("annotation_id")] = by_image[one["image_id"]] = one
    by_instance.pop(None, None)
    row = {image["id"]: number for number, image in enumerate(truth["images"])}
    persons = [each for each in person_annotations(truth) if each["image_id"] in row]
    errors = np.full((len(persons), points), np.nan)
    for place, annotation in enumerate(persons):
        result = by_instance.get(annotation["id"]) or by_image.get(annotation["image_id"])
        true = annotation_keypoints(annotation)[:points]
        found = (
            np.full((points, 2), np.inf)
            if result is None
            else np.asarray(result["keypoints"], np.float64).reshape(-1, 3)[:points, :2]
        )
        distance = np.hypot(*(found - true[:, :2]).T) * _spacing(annotation)
        errors[place] = np.where(true[:, 2] > 0, distance, np.nan)
    places = np.array([row[each["image_id"]] for each in persons], np.int64)
    return RadialErrors(errors, places, len(row))


def _spacing(annotation: Mapping[str, Any]) -> float:
    where = f"annotation {annotation['id']} of image {annotation['image_id']}: spacing"
    found = fields.positive(annotation.get("spacing"), where)
    if found is None:
        raise UserError(
            f"{where}: {fields.shown(annotation.get('spacing'))}; errors in mm need the image's mm per px: "
            "give `spacing` in its entry under images, or take `mre` out of the descriptor's metrics"
        )
    return found


def radial_figures(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, Any]:
    """MRE (mm) and its standard deviation SD, SDR at each of SDR_THRESHOLDS (fractions of 1), their 95 %
    intervals over images, and each landmark's own MRE; plain JSON values, None where nothing is labelled.
    """
    errors = radial_errors(truth, results, len(names))
    draws = resamples(max(errors.images, 1)) if errors.images else np.zeros((1, 0), np.int64)
    mean = errors.mean_interval(draws)
    rates = {threshold: errors.rate_interval(threshold, draws) for threshold in SDR_THRESHOLDS}
    own = (RadialErrors(errors.errors[:, [k]], errors.image, errors.images) for k in range(len(names)))
    return {
        "MRE": _plain(mean.value),
        "MRE_low": _plain(mean.low),
        "MRE_high": _plain(mean.high),
        "SD": _plain(errors.spread()),
        "SDR": {f"{threshold:g}mm": _plain(rate.value) for threshold, rate in rates.items()},
        "SDR_low": {f"{threshold:g}mm": _plain(rate.low) for threshold, rate in rates.items()},
        "SDR_high": {f"{threshold:g}mm": _plain(rate.high) for threshold, rate in rates.items()},
        "landmarks": {name: _plain(one.mean()) for name, one in zip(names, own, strict=True)},
    }


def radial_line(figures: Mapping[str, Any]) -> str:
    """The figures of `radial_figures` on one line, as they are published."""
    if figures["MRE"] is None:
        return "MRE and SDR are not known: no landmark is labelled and predicted"
    rates = "  ".join(
        f"{threshold} {100 * rate:.1f} % [{100 * figures['SDR_low'][threshold]:.1f}, "
        f"{100 * figures['SDR_high'][threshold]:.1f}]"
        for threshold, rate in figures["SDR"].items()
    )
    interval = f"[{figures['MRE_low']:.3f}, {figures['MRE_high']:.3f}]"
    return f"MRE {figures['MRE']:.3f} ± {figures['SD']:.3f} mm {interval}  SDR {rates}"
