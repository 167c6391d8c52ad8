"""The points of a pose: names, limbs, mirrored pairs, spreads, body halves, and the way into another skeleton."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Skeleton:
    """The points of a pose and how they belong together; every index is a position in `names`.

    `flip[k]` is the point that takes k's place in a mirrored image; `sigmas` are the per-point spreads of OKS (COCO's
    convention); `upper` and `lower` are the halves of the half-body augmentation; `maps[other][own point]` names the
    point of skeleton `other` that an own point stands for, where the names alone do not say it.
    """

    name: str
    names: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    flip: tuple[int, ...]
    sigmas: tuple[float, ...]
    upper: tuple[int, ...]
    lower: tuple[int, ...]
    maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)

    @property
    def num_keypoints(self) -> int:
        return len(self.names)

    def map_to(self, other: Skeleton) -> tuple[int, ...]:
        """For each point of `other` the index of its counterpart here, -1 where there is none (weight 0).

        Goes by `maps[other.name]` when the descriptor has one, else by equal point names.
        """
        mapping = self.maps.get(other.name, {name: name for name in self.names})
        counterpart = {theirs: self.names.index(own) for own, theirs in mapping.items()}
        return tuple(counterpart.get(name, -1) for name in other.names)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` reads them back, so that a shard set carries its own skeleton."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Skeleton:
        lists = {key: tuple(values[key]) for key in ("names", "flip", "sigmas", "upper", "lower")}
        limbs = tuple((int(a), int(b)) for a, b in values["limbs"])
        return cls(name=values["name"], limbs=limbs, maps=values["maps"], **lists)
