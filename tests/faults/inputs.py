"""All kinds of files that people hand to us, and among them those of text and those of a run's store."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml

from rtmpose.config import load_params
from rtmpose.data.stream.mix import read_mix
from rtmpose.deploy.targets import load_target
from rtmpose.descriptors import load_dataset
from rtmpose.evaluation.coco import load_detections
from rtmpose.search.choice import chosen_params
from rtmpose.search.ledger import Ledger
from rtmpose.training.checkpoint import Store, read_log
from tests.faults.data_inputs import image_kinds, raw_kinds, shard_kinds
from tests.faults.kind import Kind, Rng, finite, of_bytes, of_tree
from tests.faults.model_inputs import model_kinds, weights_kinds
from tests.faults.mutations import json_bytes, yaml_bytes
from tests.support import ROOT


def kinds(folder: Path) -> list[Kind]:
    """All kinds, their files below `folder`. Relative paths in them are meant from `folder`."""
    os.chdir(folder)
    return [
        *weights_kinds(folder),
        *raw_kinds(folder),
        *shard_kinds(folder),
        *image_kinds(folder),
        *model_kinds(folder),
        *text_kinds(folder),
        *store_kinds(folder),
    ]


# Parameters, descriptors, targets, detections


def text_kinds(folder: Path) -> Iterator[Kind]:
    params = folder / "params.yaml"
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    params.write_bytes(yaml_bytes(tree))
    good = load_params(params)
    yield Kind(
        "params", of_tree(params, tree, yaml_bytes), lambda: finite(load_params(params).model_dump()), 1.5
    )
    for name in ("coco17", "coco_wholebody", "crowdpose"):
        path = folder / f"{name}.yaml"
        tree = yaml.safe_load((ROOT / f"datasets/{name}.yaml").read_text())
        yield Kind(
            f"descriptor {name}", of_tree(path, tree, yaml_bytes), partial(descriptor_holds, path), 0.7
        )
    target = folder / "cpu-x86.yaml"
    tree = yaml.safe_load((ROOT / "deploy_targets/cpu-x86.yaml").read_text())
    yield Kind("target", of_tree(target, tree, yaml_bytes), lambda: bool(load_target(str(target))), 0.7)
    boxes = folder / "detections.json"
    rows = [{"image_id": i, "category_id": 1, "bbox": [1.0, 2, 30, 40], "score": 0.5} for i in range(6)]
    yield Kind("detections", of_tree(boxes, rows, json_bytes), lambda: boxes_hold(boxes))
    chosen = folder / "search.json"
    content = {"chosen": {"finetune.tau": 0.1, "finetune.optim.lr": 0.001}, "note": "2 trials"}
    yield Kind(
        "search result", of_tree(chosen, content, json_bytes),
        lambda: finite(chosen_params(good, chosen).model_dump()),
    )  # fmt: skip
    mix = folder / "mix.json"
    entry = {"dataset": "coco17", "dir": "train", "repeat": 2, "samples": 5, "skeleton": "coco17"}
    receipt = {"train": [entry], "tune": [entry], "val": [entry]}
    yield Kind(
        "mix", of_tree(mix, receipt, json_bytes), lambda: all(e.repeat >= 1 for e in read_mix(mix).train)
    )


def descriptor_holds(path: Path) -> bool:
    skeleton = load_dataset(str(path)).skeleton
    count = skeleton.num_keypoints
    indices = [i for limb in skeleton.limbs for i in limb] + [*skeleton.upper, *skeleton.lower]
    return (
        sorted(skeleton.flip) == list(range(count))
        and len(skeleton.sigmas) == count
        and all(0 < sigma < math.inf for sigma in skeleton.sigmas)
        and all(0 <= i < count for i in indices)
    )


def boxes_hold(path: Path) -> bool:
    found = load_detections(path)
    rows = [row for boxes in found.values() for row in boxes]
    return all(np.isfinite(box).all() and min(box[2:]) > 0 and math.isfinite(score) for box, score in rows)


# Run stores


def store_kinds(folder: Path) -> Iterator[Kind]:
    with contextlib.redirect_stderr(io.StringIO()):
        store = Store.open(folder, "run", fresh=True)
    for step in (1, 2):
        store.save({"step": step, "x": torch.full((4,), float(step))})
    sha = store.save_best({"x": torch.ones(2)})
    receipt = {"sha256": sha, "steps": 2, "best_AP": 0.5}
    store.finish(receipt)
    whole = {path: path.read_bytes() for path in store.folder.iterdir() if path.is_file()}

    def restored(spoil: Callable[[Rng], Path]) -> Callable[[Rng], Path]:
        def spoilt(rng: Rng) -> Path:
            for path, content in whole.items():
                path.write_bytes(content)
            spoil(rng)
            return store.folder  # a damaged checkpoint is told with its folder

        return spoilt

    def goes_on() -> bool:
        with contextlib.redirect_stderr(io.StringIO()):
            state = store.load()
        return state is None or bool((state["x"] == state["step"]).all())

    latest = store.folder / "latest.json"
    yield Kind("latest.json", restored(of_tree(latest, json.loads(whole[latest]), json_bytes)), goes_on)
    newest = store.folder / "step-00000002.pt"
    yield Kind("checkpoint", restored(of_bytes(newest, whole[newest])), goes_on)
    finished = store.folder / "finished.json"

    def known() -> bool:
        found = store.finished()
        return found is None or found["sha256"] == sha

    yield Kind("finished.json", restored(of_tree(finished, receipt, json_bytes)), known, 0.7)
    log = folder / "logged" / "train.log"
    log.parent.mkdir()
    lines = b"".join(json_bytes({"step": i, "loss": 1.0 / (i + 1)}) + b"\n" for i in range(9))
    yield Kind("train.log", of_bytes(log, lines), lambda: isinstance(read_log(log.parent), list), 0.5)
    ledger = folder / "ledger.jsonl"
    first = Ledger(ledger)
    for number in range(3):
        first.start({"finetune.tau": 0.1 * number}, seed=number, kind="searched")
        first.report(number, {"report": 1, "step": 2, "AP": 0.5, "error": 3.0})
    lines = ledger.read_bytes()
    yield Kind("ledger", of_bytes(ledger, lines), lambda: isinstance(Ledger(ledger).running(), list), 0.7)
