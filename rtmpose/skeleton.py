"""The points of a pose: names, limbs, mirrored pairs, spreads, body halves, and the way into another
skeleton.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

MEAN_OF = " + "  # "a + b" in a map stands for the point halfway between the points a and b


@dataclass(frozen=True)
class Skeleton:
    """The points of a pose and how they belong together; every index is a position in `names`.

    `flip[k]` is the point that takes k's place in a mirrored image; `sigmas` are the per-point spreads of OKS
    (COCO's convention), `sigmas_estimated` where nobody published them; `upper` and `lower` are the halves of
    the half-body augmentation; `mirror` is whether a mirror image shows such a pose as well (None: where
    points change places in it); `maps[other][own point]` names the point of skeleton `other` that an own
    point, or the mean of two ("a + b"), stands for, where the names alone do not say it.
    """

    name: str
    names: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    flip: tuple[int, ...]
    sigmas: tuple[float, ...]
    upper: tuple[int, ...]
    lower: tuple[int, ...]
    maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)
    sigmas_estimated: bool = False
    mirror: bool | None = None

    @property
    def num_keypoints(self) -> int:
        return len(self.names)

    @cached_property
    def mirrors(self) -> bool:
        """Whether images may be mirrored, in augmentation and in the flip test. Without left and right points
        they may not, unless `mirror` says so: a mirrored hand is a hand, a mirrored profile is none.
        """
        paired = any(other != k for k, other in enumerate(self.flip))
        return paired if self.mirror is None else self.mirror

    def map_to(self, other: Skeleton) -> tuple[tuple[int, int], ...]:
        """For each point of `other` the pair of own indices whose mean it is: (k, k) for a plain counterpart
        k, (-1, -1) where there is none (weight 0). A mean is visible where both its points are.

        Goes by `maps[other.name]`, else by `other.maps[self.name]` backwards (but not by its means), else by
        equal names.
        """
        back = {theirs: own for own, theirs in other.maps.get(self.name, {}).items()}
        mapping = self.maps.get(other.name) or back or {name: name for name in self.names}
        own_points = {theirs: own.split(MEAN_OF) for own, theirs in mapping.items()}
        index = {name: k for k, name in enumerate(self.names)}
        pairs = {
            theirs: (index.get(own[0], -1), index.get(own[-1], -1)) for theirs, own in own_points.items()
        }
        return tuple(pairs.get(name, (-1, -1)) for name in other.names)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, which `from_dict` reads back; `mirror` is among them where it is given."""
        return {key: value for key, value in asdict(self).items() if key != "mirror" or value is not None}

    def layout(self) -> dict[str, Any]:
        """`to_dict` without OKS sigmas and limbs: what shards and training depend on. Other sigmas evaluate
        the same data in another way, other limbs draw it in another way.
        """
        without = ("sigmas", "sigmas_estimated", "limbs")
        return {key: value for key, value in self.to_dict().items() if key not in without}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Skeleton:
        """The skeleton of `to_dict`, or of `layout`: that has no sigmas and no limbs."""
        lists = {key: tuple(values[key]) for key in ("names", "flip", "upper", "lower")}
        lists["sigmas"] = tuple(values.get("sigmas", ()))
        limbs = tuple((int(a), int(b)) for a, b in values.get("limbs", ()))
        estimated = bool(values.get("sigmas_estimated", False))
        return cls(
            name=values["name"],
            limbs=limbs,
            maps=values["maps"],
            sigmas_estimated=estimated,
            mirror=values.get("mirror"),
            **lists,
        )
