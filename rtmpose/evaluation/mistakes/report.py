"""`reports/mistakes.json`: kinds of errors on every evaluation set, and the worst poses of the first one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rtmpose.data.shards.manifest import read_eval
from rtmpose.evaluation.mistakes.costs import costs
from rtmpose.evaluation.mistakes.judged import judge
from rtmpose.evaluation.mistakes.worst import Worst, drawn, worst_of
from rtmpose.files import write_atomic
from rtmpose.skeleton import Skeleton


class Mistakes:
    """Gathers sets as they are evaluated."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        self.sets: dict[str, dict[str, Any]] = {}
        self.worst: list[Worst] = []

    def add(
        self, key: str, folder: Path, truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
    ) -> None:
        """A set's ground truth and COCO results; `folder` are its shards, whose photographs are read again
        where poses of the first set are drawn.
        """
        judged, missing = judge(truth, results, self.skeleton)
        if not self.sets:
            chosen = worst_of(judged)
            ids = {one.person.annotation["image_id"] for one in chosen}
            self.worst = drawn(key, chosen, read_eval(folder, ids), results, self.skeleton)
        self.sets[key] = costs(truth, results, judged, missing, self.skeleton)

    def write(self, path: Path) -> None:
        content = {"sets": self.sets, "worst": [asdict(one) for one in self.worst]}
        write_atomic(path, json.dumps(content, indent=1) + "\n")
