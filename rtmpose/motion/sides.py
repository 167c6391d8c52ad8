"""Left and right over time: limbs whose sides swapped from one frame to the next are found and repaired.

A pose is compared with where the frames before lead, once as it is and once mirrored, for each chain of limbs
(arms, legs, head) and for the whole body. Side views swap most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtmpose.skeleton import Skeleton

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

CLEARLY = 0.5  # of the distance as it is, which the mirrored one must stay below
MARGIN = 0.002  # sizes² per point, by which it must be nearer at least


@dataclass(frozen=True, eq=False)
class Chains:
    """The mirrored pairs of a skeleton, and which chain of limbs each belongs to."""

    left: Ints  # (P,) one point of each pair
    right: Ints  # (P,) the other
    chain: Ints  # (P,) numbers from 0
    member: Floats  # (P, C) 1 where the pair belongs to the chain
    of_point: Ints  # (K,) the chain of each point; C for a point without a mirror

    @property
    def count(self) -> int:
        return int(self.member.shape[1])


def chains_of(skeleton: Skeleton) -> Chains:
    """The chains of a skeleton: each begins at a pair that is joined, by a limb or over a point of the
    midline (eyes, shoulders, hips), and holds the pairs nearest to it along the limbs. Pairs that no limb
    reaches form one chain more.
    """
    pairs = [(k, other) for k, other in enumerate(skeleton.flip) if k < other]
    number = {point: index for index, pair in enumerate(pairs) for point in pair}
    joined = _neighbours(skeleton, number)
    chain = _spread(_roots(skeleton, pairs), joined)
    for index in range(len(pairs)):  # trees of limbs without a root, such as a hand's
        if index not in chain and joined[index]:
            chain |= _spread([index], joined, first=max(chain.values(), default=-1) + 1)
    rest = max(chain.values(), default=-1) + 1
    numbers = np.array([chain.get(index, rest) for index in range(len(pairs))], np.int64)
    count = int(numbers.max()) + 1 if len(pairs) else 0
    of_point = np.full(skeleton.num_keypoints, count, np.int64)
    for point, index in number.items():
        of_point[point] = numbers[index]
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    return Chains(left, right, numbers, np.eye(count)[numbers].reshape(len(pairs), count), of_point)


def _neighbours(skeleton: Skeleton, number: dict[int, int]) -> dict[int, set[int]]:
    """Which pairs a limb joins."""
    joined: dict[int, set[int]] = {index: set() for index in number.values()}
    for a, b in skeleton.limbs:
        if a in number and b in number and number[a] != number[b]:
            joined[number[a]].add(number[b])
            joined[number[b]].add(number[a])
    return joined


def _roots(skeleton: Skeleton, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """The pairs whose two points are joined by a limb or by one point between them."""
    limbs = {frozenset(limb) for limb in skeleton.limbs}
    middle = [k for k, other in enumerate(skeleton.flip) if k == other]
    return [
        index
        for index, (a, b) in enumerate(pairs)
        if frozenset((a, b)) in limbs
        or any(frozenset((a, m)) in limbs and frozenset((b, m)) in limbs for m in middle)
    ]


def _spread(roots: Sequence[int], joined: dict[int, set[int]], first: int = 0) -> dict[int, int]:
    """The nearest root, numbered from `first`, of each pair that one reaches; the earlier of equals."""
    chain = {root: first + place for place, root in enumerate(roots)}
    edge = list(roots)
    while edge:
        reached = [(near, chain[index]) for index in edge for near in sorted(joined[index])]
        edge = []
        for near, value in reached:
            if near not in chain:
                chain[near] = value
                edge.append(near)
    return chain


def swapped(points: Floats, expected: Floats, weights: Floats, size: Floats, chains: Chains) -> Bools:
    """Which chains (N, C) of the poses are swapped: the mirrored pose is clearly nearer to what is expected.

    A chain that cannot be decided goes with the whole body; a body that cannot be decided stays.

    Args:
        points, expected: (N, K, 2) px. weights: (N, K) in [0, 1], 0 for a point that says nothing. size:
        (N,) px.
    """
    left, right = chains.left, chains.right
    scale = weights / (size[:, None] ** 2)
    straight, crossed = (
        scale[:, left] * _squared(points, expected, left, first)
        + scale[:, right] * _squared(points, expected, right, second)
        for first, second in ((left, right), (right, left))
    )
    as_is, mirrored = straight @ chains.member, crossed @ chains.member
    margin = MARGIN * ((weights[:, left] + weights[:, right]) @ chains.member)
    yes, no = _clearly(mirrored, as_is, margin), _clearly(as_is, mirrored, margin)
    body = _clearly(mirrored.sum(1), as_is.sum(1), margin.sum(1))
    return yes | (body[:, None] & ~no & (margin > 0))


def _squared(points: Floats, expected: Floats, of: Ints, to: Ints) -> Floats:
    difference = points[:, of] - expected[:, to]
    return np.asarray(np.einsum("npd,npd->np", difference, difference))


def _clearly(nearer: Floats, other: Floats, margin: Floats) -> Bools:
    return (nearer < CLEARLY * other) & (other - nearer > margin) & (margin > 0)


def sources(swap: Bools, chains: Chains, flip: Ints) -> Ints:
    """For each point (N, K) the point whose place and confidence it takes: its mirror point where its chain
    is in `swap` (N, C), else itself. Taken twice, it is the pose as it was.
    """
    own = np.arange(len(flip))
    padded = np.concatenate([swap, np.zeros((len(swap), 1), bool)], 1)
    return np.where(padded[:, chains.of_point], flip, own)


def believed(swap: Bools, doubt: Floats, elapsed: Floats, patience: float) -> tuple[Bools, Floats]:
    """Which swaps (N, C) are repaired, and the new doubt (N, C) in seconds.

    Doubt in the past grows while a chain keeps being swapped, and shrinks while it is not. Beyond `patience`
    the new sides are believed: it was the past that had them wrong.
    """
    doubt = np.maximum(doubt + np.where(swap, elapsed[:, None], -elapsed[:, None]), 0.0)
    turned = doubt > patience
    return swap & ~turned, np.where(turned, 0.0, doubt)
