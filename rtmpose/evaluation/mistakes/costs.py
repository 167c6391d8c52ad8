"""What kinds of errors cost: how many points are of each, and AP as it would be without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rtmpose.evaluation.bootstrap import Interval, Ranking, resamples
from rtmpose.evaluation.mistakes.judged import Judged, mended
from rtmpose.evaluation.mistakes.kinds import ERRORS, JITTER, KINDS
from rtmpose.skeleton import Skeleton

TIMES = 1000  # resamples of the images, for the interval of AP


def costs(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    judged: Sequence[Judged],
    missing: int,
    skeleton: Skeleton,
) -> dict[str, Any]:
    """`AP` with its 95 % interval; `persons` judged, and those without a prediction; points of each kind, by
    keypoint and in all; `mended`: AP without each kind and without all of them. Shares are fractions of 1.

    Arguments as in `judged.judge`, whose answer `judged` and `missing` are.
    """
    ranking = Ranking.of(truth, results, skeleton.sigmas)
    ap = Interval.of(ranking.ap(), ranking.resampled_ap(resamples(len(truth["images"]), TIMES)))

    def without(*kinds: int) -> float:
        return Ranking.of(truth, mended(results, judged, kinds), skeleton.sigmas).ap()

    by_point = {
        name: {kind: sum(int(one.kinds[k] == number) for one in judged) for number, kind in enumerate(KINDS)}
        for k, name in enumerate(skeleton.names)
    }
    every = range(JITTER, len(KINDS))
    return {
        "AP": {"value": ap.value, "low": ap.low, "high": ap.high},
        "persons": len(judged),
        "without_prediction": missing,
        "points": {kind: sum(row[kind] for row in by_point.values()) for kind in KINDS},
        "keypoints": by_point,
        "mended": {kind: without(number) for number, kind in zip(every, ERRORS, strict=True)}
        | {"all": without(*every)},
    }
