"""The order of an epoch's samples: a function of (seed, epoch), of the shards and of their window.

An epoch that shows COCO twice and AIC once, with windows of two shards:

    COCO, showing 0    shards 3 0 | 2 1        each showing has an order of shards of its own,
    COCO, showing 1    shards 1 3 | 0 2        and shuffles the samples of a window (between the bars)
    AIC,  showing 0    shards 2 0 | 1
    the epoch          C C A C C A C C A ...   evenly interleaved, so that any stretch holds the mix
    step 0             C C A C C A             the first rows of the epoch, as many as the global batch has,
    rank 0, rank 1     C C A | C C A           sorted by their place in the window: each rank reads its own
                                               part of the window's shards and needs no others
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Rows = NDArray[np.void]  # of the columns ROW

# One sample of an epoch: its set, shard and row in the shard; its place in the window, from 0 for the first
# stored sample of the window to PLACES for what would follow its last; and which window of which showing.
ROW = np.dtype([(name, np.int64) for name in ("set", "shard", "row", "place", "window", "showing")])
PLACES = 1 << 20
CHUNK = 4096  # samples of all sets that are interleaved at a time


class Purpose(IntEnum):
    """What a random generator is for: the first word of its seed."""

    SHOWING = 0
    SAMPLE = 1
    WINDOW = 2
    CHUNK = 3


class SetSize(NamedTuple):
    """The number of samples in each shard (S,) of a set, and how often an epoch shows it."""

    shards: Ints
    repeat: int


class Showing:
    """One showing of a set: its shards in an order of its own, a window of them at a time, shuffled within
    the window.
    """

    def __init__(self, shards: Ints, window: int, seed: tuple[int, ...]) -> None:
        self.seed = seed
        self.order = np.random.default_rng((Purpose.SHOWING, *seed)).permutation(len(shards))
        self.ends = np.cumsum(shards[self.order])
        # Windows of equal numbers of shards: a short last one would mix badly.
        self.cuts = np.linspace(0, len(shards), max(1, round(len(shards) / window)) + 1).astype(int)
        self.window_ends = np.concatenate([[0], self.ends[self.cuts[1:] - 1]])
        self._shuffled: tuple[int, Ints] = (-1, np.empty(0, np.int64))

    def shards_of(self, window: int) -> Ints:
        """The shards of a window in the showing's order; none beyond the last."""
        if window >= len(self.cuts) - 1:
            return self.order[:0]
        return self.order[self.cuts[window] : self.cuts[window + 1]]

    def rows(self, numbers: Ints) -> Rows:
        """The rows of this showing's samples `numbers` (n,), which ascend; `set` and `showing` are left 0."""
        windows = np.searchsorted(self.window_ends[1:], numbers, side="right")
        stored = np.empty_like(numbers)  # the sample's number in the stored order of all shards
        for window in np.unique(windows).tolist():
            mine = windows == window
            stored[mine] = self._window(window)[numbers[mine] - self.window_ends[window]]
        at = np.searchsorted(self.ends, stored, side="right")
        begins, lengths = self.window_ends[windows], np.diff(self.window_ends)[windows]
        rows = np.zeros(len(numbers), ROW)
        rows["shard"] = self.order[at]
        rows["row"] = stored - np.where(at > 0, self.ends[at - 1], 0)
        rows["place"] = (stored - begins) * PLACES // lengths
        rows["window"] = windows
        return rows

    def _window(self, window: int) -> Ints:
        """The stored numbers of a window's samples in the order they are shown; the last one is kept."""
        if self._shuffled[0] != window:
            rng = np.random.default_rng((Purpose.WINDOW, *self.seed, window))
            first, end = self.window_ends[window], self.window_ends[window + 1]
            self._shuffled = (window, first + rng.permutation(end - first))
        return self._shuffled[1]


class EpochOrder:
    """The samples of one epoch in order, at any position; opening takes time that grows with shards, not
    samples.

    A set is shown `repeat` times, each time in another permutation; showings of all sets are interleaved
    evenly, so any stretch of the epoch holds every set in its proportion.
    """

    def __init__(self, sets: Sequence[SetSize], seed: int, epoch: int, window: int) -> None:
        self.sets, self.seed, self.window = sets, (seed, epoch), window
        self.once = [int(size.shards.sum()) for size in sets]
        self.shown = [samples * size.repeat for samples, size in zip(self.once, sets, strict=True)]
        self.chunks = max(1, sum(self.shown) // CHUNK)
        self._showings: dict[int, tuple[int, Showing]] = {}
        self._chunk: tuple[int, Rows] = (-1, np.empty(0, ROW))

    def rows(self, start: int, stop: int) -> Rows:
        """The samples (n,) of the positions from `start` to before `stop`."""
        parts = [np.empty(0, ROW)]
        chunk = bisect_right(range(self.chunks), start, key=self._chunk_start) - 1
        while start < stop:
            first = self._chunk_start(chunk)
            parts.append(self._interleaved(chunk)[start - first : stop - first])
            start, chunk = start + len(parts[-1]), chunk + 1
        return np.concatenate(parts)

    def showing(self, which: int, number: int) -> Showing:
        """Showing `number` of a set; the last one that was asked for is kept."""
        if self._showings.get(which, (-1, None))[0] != number:
            seed = (*self.seed, which, number)
            self._showings[which] = (number, Showing(self.sets[which].shards, self.window, seed))
        return self._showings[which][1]

    def _chunk_start(self, chunk: int) -> int:
        return sum(chunk * shown // self.chunks for shown in self.shown)

    def _interleaved(self, chunk: int) -> Rows:
        """The samples of a chunk, each at a random time within its share of the epoch."""
        if self._chunk[0] != chunk:
            rng = np.random.default_rng((Purpose.CHUNK, *self.seed, chunk))
            rows, times = [], []
            for which, shown in enumerate(self.shown):
                numbers = np.arange(chunk * shown // self.chunks, (chunk + 1) * shown // self.chunks)
                rows.append(self._of_set(which, numbers))
                times.append((numbers + rng.random(len(numbers))) / max(shown, 1))
            self._chunk = (chunk, np.concatenate(rows)[np.argsort(np.concatenate(times), kind="stable")])
        return self._chunk[1]

    def _of_set(self, which: int, numbers: Ints) -> Rows:
        """The rows of a set's samples, counted through all its showings."""
        rows = np.zeros(len(numbers), ROW)
        showings = numbers // max(self.once[which], 1)
        for number in np.unique(showings).tolist():
            mine = showings == number
            rows[mine] = self.showing(which, number).rows(numbers[mine] - number * self.once[which])
        rows["set"], rows["showing"] = which, showings
        return rows
