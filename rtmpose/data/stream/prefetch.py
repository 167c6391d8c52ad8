"""Copies of remote shards, made a window before they are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from rtmpose.data.shards.cache import RemoteShard, ShardCache
from rtmpose.data.stream.order import EpochOrder, Rows
from rtmpose.files import UserError

FETCHERS = 4  # downloads at a time


@dataclass(frozen=True)
class RankPart:
    """Which rows of each global batch a rank takes, as shares of it, and thereby which shards of a window."""

    low: float
    high: float
    batch_size: int

    def shards(self, count: int) -> slice:
        """Which of a window's `count` shards the rank reads: its part of them, and three standard deviations
        of where a batch's rows divide.
        """
        spread = 1.5 / self.batch_size**0.5
        return slice(max(0, int(count * (self.low - spread))), int(count * (self.high + spread)) + 1)

    def held(self, count: int, window: int, ranks: int) -> int:
        """How many of a set's `count` shards `ranks` ranks of one machine want at a time: their parts of
        three windows, the one that is being left, the one that is read, and the next.
        """
        size = math.ceil(count / max(1, round(count / window)))
        part = self.shards(size)
        return min(count, 3 * min(size, ranks * (part.stop - part.start)))


class Prefetch:
    """Fetches a rank's part of a window of `remote` sets, and of the next one, when a step begins the window.

    `shard(set, number)` says where a shard lies.
    """

    def __init__(
        self,
        cache: ShardCache,
        remote: Sequence[int],
        part: RankPart,
        shard: Callable[[int, int], Path | RemoteShard],
    ) -> None:
        self.cache, self.remote, self.part, self.shard = cache, remote, part, shard
        self.reached: dict[int, tuple[int, int]] = {}  # the newest (showing, window) of each set

    def step(self, order: EpochOrder, rows: Rows) -> None:
        """What is to be fetched now that a step reads `rows`, in threads that outlive the call."""
        for which in self.remote:
            mine = rows[rows["set"] == which]
            if not len(mine):
                continue
            newest = int(mine["showing"][-1]), int(mine["window"][-1])
            if newest <= self.reached.get(which, (-1, -1)):
                continue
            self.reached[which] = newest
            showing = order.showing(which, newest[0])
            windows = [showing.shards_of(newest[1] + ahead) for ahead in (0, 1)]
            numbers = [int(n) for shards in windows for n in shards[self.part.shards(len(shards))]]
            wanted = [self.shard(which, number) for number in numbers]
            remote = [shard for shard in wanted if isinstance(shard, RemoteShard)]
            # First all that are there count as used, so that no download evicts them.
            missing = [shard for shard in remote if not self.cache.touch(shard)]
            for part in range(min(FETCHERS, len(missing))):
                Thread(target=self.fetch, args=(missing[part::FETCHERS],), daemon=True).start()

    def fetch(self, shards: Sequence[RemoteShard]) -> None:
        """Copy shards, one after the other."""
        for shard in shards:
            with suppress(
                UserError
            ):  # the reader that needs this shard meets the same failure, and reports it
                self.cache.fetch(shard)
