"""What a data set's descriptor says of its own points, said of those of the network that is judged on it.

`evaluation.mapped` puts the annotations of another skeleton into the network's points. The same names may
stand for other points there (WFLW, COFW and LaPa all count kpt-0, kpt-1 ...), so names go by the same map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from glob import escape
from typing import Any

from rtmpose.config.metrics import MEAN, MetricOptions, Norm, Pck, chosen
from rtmpose.skeleton import Skeleton


def in_points(options: MetricOptions, own: Skeleton, wanted: Skeleton) -> MetricOptions:
    """The options of a set with the points of `own`, in those of `wanted`, by `Skeleton.map_to`; as they are
    where the two have the same points.

    The end of a norm that has no counterpart is named "SET's POINT", which is a point of nobody: a metric
    that needs it is unknown. A list of points keeps the counterparts that there are. A point that is the mean
    of two own points belongs to a list where both of them do.
    """
    if own.names == wanted.names:
        return options
    names = _Names(own, wanted)
    changed: dict[str, Any] = {}
    for name in ("pck", "tpck", "pckh", "auc", "nme"):
        told = getattr(options, name)
        if told is None:
            continue
        changed[name] = told.model_copy(update={"norm": names.norm(told.norm)})
        if isinstance(told, Pck):
            more = {"without": names.among(told.without), "groups": names.lists(told.groups)}
            changed[name] = changed[name].model_copy(update=more)
    if options.parts is not None:
        changed["parts"] = names.lists(options.parts)
    return options.model_copy(update=changed)


def sigmas_in(own: Skeleton, wanted: Skeleton) -> tuple[float, ...]:
    """The spreads of OKS by which a set with the points of `own` is judged, for each point of `wanted`: the
    set's own where the point is one of it, that of `wanted` where it is the mean of two or has no
    counterpart.
    """
    if own.names == wanted.names:
        return own.sigmas
    pairs = zip(own.map_to(wanted), wanted.sigmas, strict=True)
    return tuple(own.sigmas[a] if a == b and a >= 0 else sigma for (a, b), sigma in pairs)


class _Names:
    """The own points by name, and what they are called among the wanted ones."""

    def __init__(self, own: Skeleton, wanted: Skeleton) -> None:
        self.own = own
        self.made_of = {
            name: frozenset(pair)
            for name, pair in zip(wanted.names, own.map_to(wanted), strict=True)
            if min(pair) >= 0
        }  # each wanted point: the positions of the own points that it is the mean of

    def norm(self, norm: Norm) -> Norm:
        return (self._end(norm[0]), self._end(norm[1])) if isinstance(norm, tuple) else norm

    def _end(self, end: str) -> str:
        """A point, or the mean of several: as one point where there is such a one, else part by part."""
        points = end.split(MEAN)
        return self._called(points) or MEAN.join(
            self._called([point]) or f"{self.own.name}'s {point}" for point in points
        )

    def _called(self, points: Sequence[str]) -> str | None:
        """The wanted point that is the mean of these own ones, all of them and no other."""
        places = frozenset(self.own.names.index(point) for point in points)
        return next((name for name, parts in self.made_of.items() if parts == places), None)

    def among(self, patterns: Sequence[str]) -> tuple[str, ...]:
        places = frozenset(chosen(self.own.names, patterns))
        return tuple(escape(name) for name, parts in self.made_of.items() if parts <= places)

    def lists(self, patterns: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        return {key: self.among(points) for key, points in patterns.items()}
