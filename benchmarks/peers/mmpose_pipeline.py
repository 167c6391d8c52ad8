"""MMPose's own training samples, timed: runs in `.peers/mmpose`, started by `data_path.py`.

    python mmpose_pipeline.py COCO_FOLDER SPLIT

The data set and its pipeline are those of the RTMPose-m 256x192 configuration that the package ships; only
the paths are ours. `mmcv.ops` is compiled code that mmcv-lite lacks; mmdet imports it beside the one
transform that is used here, so that a stand-in takes its place; nothing of it is ever called. Reads lines of
JSON {"what": "full" | "no_targets" | "steps", "samples": n}, and answers {"samples", "wall", "cpu"} in
seconds, for "steps" also ms per transform.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import io
import json
import random
import sys
import time
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

CONFIG = ".mim/configs/body_2d_keypoint/rtmpose/coco/rtmpose-m_8xb256-420e_coco-256x192.py"
BATCH = 64


class NotCompiled(types.ModuleType):
    """Any name imported from it is a class of its own."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class Stand(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `mmcv.ops` and what lies in it."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None) -> Any:
        return (
            importlib.machinery.ModuleSpec(name, self, is_package=True)
            if name.startswith("mmcv.ops")
            else None
        )

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return NotCompiled(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def build(root: Path, split: str) -> Any:
    """MMPose's CocoDataset with the shipped configuration's training pipeline."""
    sys.meta_path.insert(0, Stand())
    import cv2
    import mmpose.codecs  # type: ignore[import-not-found]
    import mmpose.datasets  # type: ignore[import-not-found]
    import torch
    from mmengine.config import Config  # type: ignore[import-not-found]
    from mmengine.registry import init_default_scope  # type: ignore[import-not-found]
    from mmpose.registry import DATASETS  # type: ignore[import-not-found]

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    init_default_scope("mmpose")
    settings = Config.fromfile(Path(mmpose.__file__).parent / CONFIG).train_dataloader.dataset
    settings.data_root = str(root)
    settings.ann_file = f"annotations/person_keypoints_{split}2017.json"
    settings.data_prefix = {"img": f"{split}2017/"}
    return DATASETS.build(settings)


def numbers(count: int) -> Iterator[int]:
    """Samples in random order, again and again: every one once per epoch."""
    chance = random.Random(0)
    while True:
        yield from chance.sample(range(count), count)


def timed(dataset: Any, order: Iterator[int], samples: int) -> dict[str, Any]:
    from mmengine.dataset import pseudo_collate  # type: ignore[import-not-found]

    wall, cpu = time.perf_counter(), time.process_time()
    done = 0
    while done < samples:
        pseudo_collate([dataset[next(order)] for _ in range(BATCH)])
        done += BATCH
    return {"samples": done, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def steps(dataset: Any, order: Iterator[int], samples: int) -> dict[str, Any]:
    """ms per sample of fetching the annotation and of each transform."""
    spent = {"annotation": 0.0, **{type(step).__name__: 0.0 for step in dataset.pipeline.transforms}}
    for _ in range(samples):
        start = time.perf_counter()
        sample = dataset.get_data_info(next(order))
        spent["annotation"] += time.perf_counter() - start
        for step in dataset.pipeline.transforms:
            start = time.perf_counter()
            sample = step(sample)
            spent[type(step).__name__] += time.perf_counter() - start
    return {"samples": samples, "ms": {name: 1000 * seconds / samples for name, seconds in spent.items()}}


def main() -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # what loading prints is no answer
        dataset = build(Path(sys.argv[1]), sys.argv[2])
    order = numbers(len(dataset))
    ids = sorted(dataset.get_data_info(i)["id"] for i in range(len(dataset)))
    print(json.dumps({"persons": len(dataset), "ids": ids}), flush=True)
    everything = list(dataset.pipeline.transforms)
    for line in sys.stdin:
        question = json.loads(line)
        without = [step for step in everything if type(step).__name__ != "GenerateTarget"]
        dataset.pipeline.transforms = without if question["what"] == "no_targets" else everything
        answer = (steps if question["what"] == "steps" else timed)(dataset, order, question["samples"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
