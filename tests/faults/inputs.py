"""The kinds of files that people hand to us: for each a valid one, how it is damaged, who reads it, and what
must hold of what was read.

A kind's `read` returns whether the result is right: equal to the undamaged one where checksums promise that,
else finite and in its bounds. A `UserError` is the other right answer.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
import yaml
from torch import nn

from rtmpose.config import Architecture, AugmentConfig, load_params
from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.raw.annotations import check_unchanged, index_raw, read_images
from rtmpose.data.raw.check import check_split, report
from rtmpose.data.raw.photograph import decode_photograph
from rtmpose.data.shards.manifest import MANIFEST, read_eval
from rtmpose.data.shards.write import write_eval_shards, write_train_shards
from rtmpose.data.stream.mix import MixEntry, read_mix
from rtmpose.data.stream.stream import TrainStream
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.export import export_onnx
from rtmpose.deploy.targets import load_target
from rtmpose.descriptors import load_dataset
from rtmpose.evaluation.coco import load_detections
from rtmpose.files import UserError, read_json
from rtmpose.inference.photo import predict_image
from rtmpose.models import load_weights
from rtmpose.search.choice import chosen_params
from rtmpose.search.ledger import Ledger
from rtmpose.training.checkpoint import Store, read_log
from tests.faults.mutations import MARK, changed, damaged, json_bytes, yaml_bytes
from tests.models.hostile import HOSTILE
from tests.models.test_weights import ATTACKS, OPCODES
from tests.support import ROOT

Rng = np.random.Generator
PLAIN = AugmentConfig(flip=0, half_body=0, shift_prob=0, scale=0, rotate_prob=0)


@dataclass(frozen=True)
class Kind:
    """A kind of input. `spoil(rng)` writes one damaged input and returns the file that a message must name;
    `read()` uses it and says whether the result is right. `share` weighs how often the kind is drawn.
    """

    name: str
    spoil: Callable[[Rng], Path]
    read: Callable[[], bool]
    share: float = 1.0


def of_bytes(path: Path, content: bytes) -> Callable[[Rng], Path]:
    def spoil(rng: Rng) -> Path:
        path.write_bytes(damaged(content, rng))
        return path

    return spoil


def of_tree(path: Path, tree: Any, dump: Callable[[Any], bytes]) -> Callable[[Rng], Path]:
    """Mostly the values are changed, sometimes the bytes too, sometimes the bytes alone."""

    def spoil(rng: Rng) -> Path:
        content = dump(changed(tree, rng) if rng.random() < 0.8 else tree)
        if rng.random() < 0.3:
            content = damaged(content, rng)
        path.write_bytes(content)
        return path

    return spoil


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


# Weights


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def loaded(path: Path, exactly: bool) -> bool:
    """Whether what was loaded is finite; with `exactly` also what was saved."""
    net, saved = small_net(), small_net().state_dict()
    load_weights(net, path)
    found = net.state_dict()
    finite = all(bool(value.isfinite().all()) for value in found.values())
    shapes = all(found[key].shape == value.shape for key, value in saved.items())
    same = all(torch.equal(found[key], value) for key, value in saved.items())
    return finite and shapes and (same or not exactly)


def weights_kinds(folder: Path) -> Iterator[Kind]:
    state = small_net().state_dict()
    for name, zipped in (("zip", True), ("legacy", False)):
        path = folder / f"{name}.pth"
        content = {"state_dict": state, "meta": {"epoch": 3}, "optimizer": {"state": {0: {"step": 1}}}}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        yield Kind(f"weights {name}", of_bytes(path, path.read_bytes()), partial(loaded, path, zipped), 2.0)
    odd, mark = folder / "odd.pth", folder / MARK
    yield Kind("weights odd", lambda rng: odd_weights(odd, rng), lambda: loaded(odd, exactly=False), 2.0)
    evil = folder / "evil.pth"
    yield Kind("weights evil", lambda rng: evil_weights(evil, mark, rng), lambda: loaded(evil, exactly=False))


TENSOR_CHANGES: tuple[Callable[[torch.Tensor], Any], ...] = (
    lambda t: t.float() * float("nan"),
    lambda t: t.float() + float("inf"),
    lambda t: t.half(),
    lambda t: t.bfloat16(),
    lambda t: t.double() * 1e200,
    lambda t: t.to(torch.int32),
    lambda t: t > 0,
    lambda t: t.to(torch.complex64),
    lambda t: t.to("meta"),
    lambda t: t.reshape(-1)[:1].expand(10**9),
    lambda t: t.reshape(-1),
    lambda t: t[None],
    lambda t: t.to_sparse(),
    lambda t: -t.abs(),
    lambda t: t.tolist(),
    lambda t: nn.Parameter(t.float()),
    lambda t: None,
    lambda t: torch.empty(0),
)


def odd_weights(path: Path, rng: Rng) -> Path:
    """Weights of other types, values, layouts, names and wrappers."""
    state: dict[Any, Any] = dict(small_net().state_dict())
    for _ in range(int(rng.integers(1, 4))):
        key = list(state)[rng.integers(len(state))]
        value = state[key]
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_meta:
            continue
        state[key] = TENSOR_CHANGES[rng.integers(len(TENSOR_CHANGES))](value)
        if rng.random() < 0.3:
            names = [f"module.{key}", f"_orig_mod.{key}", 7, None, ("a", key), f"{key}\n", "\ud800", key * 50]
            state[names[rng.integers(len(names))]] = state.pop(key) if rng.random() < 0.5 else state[key]
    wrap = ["state_dict", "ema", "ema_state_dict", "model", "optimizer", "x" * 300, "module"]
    content: Any = state
    for _ in range(int(rng.integers(0, 4))):
        content = {wrap[rng.integers(len(wrap))]: content}
    torch.save(content, path, _use_new_zipfile_serialization=bool(rng.random() < 0.7))
    return path


def evil_weights(path: Path, mark: Path, rng: Rng) -> Path:
    """Files that would run something, or bring their reader down."""
    which = int(rng.integers(len(HOSTILE) + len(ATTACKS) + len(OPCODES)))
    if which < len(HOSTILE):
        list(HOSTILE.values())[which](path)
    elif which < len(HOSTILE) + len(ATTACKS):
        gadget = list(ATTACKS.values())[which - len(HOSTILE)](mark)
        content = {"message_hub": gadget, "state_dict": small_net().state_dict()}
        torch.save(content, path, _use_new_zipfile_serialization=bool(rng.random() < 0.5))
    else:
        path.write_bytes(list(OPCODES.values())[which - len(HOSTILE) - len(ATTACKS)](Path(MARK)))
    if rng.random() < 0.5:
        path.write_bytes(damaged(path.read_bytes(), rng))
    return path


# Raw data


def raw_kinds(folder: Path) -> Iterator[Kind]:
    for layout in ("coco17", "aic", "coco_wholebody"):
        root, dataset = folder / f"raw-{layout}", load_dataset(layout)
        render_dataset(root, layout, images={"train": 2, "val": 1}, size=(96, 80), seed=1, workers=1)
        path = root / dataset.splits["train"].annotations
        tree = json.loads(path.read_text())
        yield Kind(
            f"annotations {layout}", of_tree(path, tree, json_bytes),
            partial(sound, dataset, root), 2.0 if layout == "coco17" else 1.0,
        )  # fmt: skip
    yield mpii_kind(folder)
    root, dataset = folder / "raw-index", load_dataset("coco17")
    render_dataset(root, "coco17", images={"train": 2, "val": 1}, size=(96, 80), seed=1, workers=1)
    path = folder / "coco17.json"
    spoil = of_tree(path, index_raw(dataset, root), json_bytes)
    annotations = root / dataset.splits["train"].annotations

    def indexed(rng: Rng) -> Path:
        spoil(rng)
        return path if read_or_none(path) is None else annotations  # which is taken for changed

    def unchanged() -> bool:
        check_unchanged(dataset, root, read_json(path, "again"), ["train"], "run it again")
        return True

    yield Kind("raw index", indexed, unchanged, 0.5)


def mpii_kind(folder: Path) -> Kind:
    """MPII's layout, which mannequins are not rendered in, with pictures of noise."""
    root, dataset = folder / "raw-mpii", load_dataset("mpii")
    layout = dataset.splits["train"]
    path = root / layout.annotations
    path.parent.mkdir(parents=True)
    (root / layout.images).mkdir(parents=True)
    persons = [
        {
            "image": name, "center": [48.0, 40.0], "scale": 0.3,
            "joints": [[20.0 + 3 * k, 10.0 + 4 * k] for k in range(16)], "joints_vis": [1] * 15 + [0],
        }
        for name in ("005808361.jpg", "frame_a.jpg", "frame_a.jpg")
    ]  # fmt: skip
    for name in {str(person["image"]) for person in persons}:
        noise = np.random.default_rng(0).integers(0, 255, (80, 96, 3), np.uint8)
        cv2.imwrite(str(root / layout.images / name), noise)
    return Kind("annotations mpii", of_tree(path, persons, json_bytes), partial(sound, dataset, root))


def read_or_none(path: Path) -> Any:
    try:
        return [read_json(path)]
    except UserError:
        return None


def sound(dataset: Any, root: Path) -> bool:
    """Whether every person that a raw folder gives can be trained on and evaluated."""
    found = list(read_images(dataset, root, "train"))
    check = check_split(dataset, root, "train", workers=1)
    for line in report(check, (96, 128)):
        assert "\n" not in line
    persons = [person for raw in found for person in raw.persons]
    for raw in found:
        inside = os.path.abspath(raw.path).startswith(os.path.abspath(root) + os.sep)
        if not inside and raw.persons:
            return False
        json.dumps(raw.annotations)
    return all(
        np.isfinite(person.keypoints).all()
        and np.isin(person.visible, (0, 1, 2)).all()
        and np.isfinite(person.box).all()
        and min(person.box[2:]) > 0
        and math.isfinite(person.area)
        and person.area >= 0
        for person in persons
    )


# Shards


def restored(whole: dict[Path, bytes], spoil: Callable[[Rng], Path]) -> Callable[[Rng], Path]:
    """`spoil`, with the files of the case before put back first."""

    def spoilt(rng: Rng) -> Path:
        for path, content in whole.items():
            path.write_bytes(content)
        return spoil(rng)

    return spoilt


def one_of(paths: list[Path], whole: dict[Path, bytes]) -> Callable[[Rng], Path]:
    """Damages one file of `paths`, removes it, or puts another one's content into it."""

    def spoil(rng: Rng) -> Path:
        path = paths[rng.integers(len(paths))]
        if rng.random() < 0.1:
            path.write_bytes(whole[paths[rng.integers(len(paths))]])
        elif rng.random() < 0.1:
            path.unlink()
        else:
            path.write_bytes(damaged(whole[path], rng))
        return path

    return restored(whole, spoil)


def shard_kinds(folder: Path) -> Iterator[Kind]:
    root, dataset = folder / "raw-shards", load_dataset("coco17")
    render_dataset(root, "coco17", images={"train": 6, "val": 1}, size=(96, 80), seed=2, workers=1)
    images = list(read_images(dataset, root, "train"))
    train, val = folder / "train", folder / "val"
    write_train_shards(images, train, dataset=dataset, input_size=(96, 128), workers=1, shard_bytes=9_000)
    write_eval_shards(images, val, dataset=dataset, workers=1)
    whole = {path: path.read_bytes() for path in (*train.iterdir(), *val.iterdir()) if path.is_file()}
    expected = {skip: epoch(train, dataset.skeleton, skip) for skip in (False, True)}
    truth = photographs(val)

    def streamed(skip: bool) -> bool:
        """Every sample is the one that was written, or is named as damaged and black."""
        rows, wanted = epoch(train, dataset.skeleton, skip), expected[skip]
        return len(rows) == len(wanted) and all(
            row == right or (skip and row[0] == "" and not any(row[1]))
            for row, right in zip(rows, wanted, strict=True)
        )

    manifest = json.loads(whole[train / MANIFEST])
    for skip in (False, True):
        ending = "skipping" if skip else "strict"
        yield Kind(f"tar {ending}", one_of(sorted(train.glob("*.tar")), whole), partial(streamed, skip))
        yield Kind(f"idx {ending}", one_of(sorted(train.glob("*.idx")), whole), partial(streamed, skip))

    # Whatever a manifest may be changed to say, the stream must go through it or refuse it.
    def within(place: Path, tree: Any) -> Callable[[Rng], Path]:
        spoil = restored(whole, of_tree(place / MANIFEST, tree, json_bytes))

        def spoilt(rng: Rng) -> Path:
            spoil(rng)
            return place  # a shard that is not as the manifest says is named instead of it

        return spoilt

    spoil = within(train, manifest)
    yield Kind("manifest", spoil, lambda: bool(epoch(train, dataset.skeleton, False)) or True)
    yield Kind(
        "tar of evaluation", one_of(sorted(val.glob("*.tar")), whole), lambda: photographs(val) == truth, 0.5
    )
    spoil = within(val, json.loads(whole[val / MANIFEST]))
    yield Kind("manifest of evaluation", spoil, lambda: bool(photographs(val)) or True, 0.5)


def epoch(folder: Path, skeleton: Any, skip: bool) -> list[tuple[str, bytes, bytes]]:
    """Key, pixels and points of every sample of an epoch."""
    stream = TrainStream(
        [MixEntry(folder, 1)],
        skeleton,
        (96, 128),
        batch_size=4,
        seed=0,
        on_corrupt="skip" if skip else "error",
    )
    rows = []
    for batch in stream.epoch(0, PLAIN):
        for i, key in enumerate(batch.keys):
            rows.append((key, batch.images[i].numpy().tobytes(), batch.keypoints[i].numpy().tobytes()))
    return rows


def photographs(folder: Path) -> list[tuple[Any, bytes]]:
    return [(image.image_id, image.image.tobytes()) for image in read_eval(folder)]


# Images


def image_kinds(folder: Path) -> Iterator[Kind]:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".gif", ".tiff"):
        path = folder / f"photo{suffix}"
        content = cv2.imencode(suffix, pixels)[1].tobytes()

        yield Kind(f"image {suffix}", of_bytes(path, content), partial(shows, path), 0.5)


def shows(path: Path) -> bool:
    found = decode_photograph(path.read_bytes(), path, "display")
    return found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8


# Exported models


@cache
def exported() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        card = ModelCard.of(Architecture(size="t", hidden=32), (64, 64), "coco17")
        return export_onnx(card.network(), (64, 64), Path(folder) / "m.onnx", card=card).read_bytes()


def model_kinds(folder: Path) -> Iterator[Kind]:
    path, photo = folder / "model.onnx", folder / "person.jpg"
    photo.write_bytes(cv2.imencode(".jpg", np.full((90, 80, 3), 128, np.uint8))[1].tobytes())
    content = exported()

    def predicted() -> bool:
        [person] = predict_image(photo, path, [])
        return len(person["keypoints"]) == 17 and finite(list(person["keypoints"].values()))

    yield Kind("onnx", of_bytes(path, content), predicted, 0.5)
    whole = onnx.load_from_string(content)
    card = {prop.key: prop.value for prop in whole.metadata_props}
    values = {key: json.loads(value) for key, value in card.items()}

    def of_another(rng: Rng) -> Path:
        """The metadata or the graph's inputs and outputs of another model."""
        model = onnx.ModelProto()
        model.CopyFrom(whole)
        if rng.random() < 0.7:
            told = changed(values, rng)
            told = told if isinstance(told, dict) else {"rtmpose.size": told}
            texts = {str(key).encode("utf-8", "replace").decode(): json.dumps(told[key]) for key in told}
            if rng.random() < 0.2:
                texts[str(rng.choice(list(card)))] = str(rng.choice(["", "{", "NaN", "[" * 50_000, "\0"]))
            del model.metadata_props[:]
            onnx.helper.set_model_props(model, texts)
        else:
            ends = [*model.graph.input, *model.graph.output]
            end = ends[rng.integers(len(ends))]
            if rng.random() < 0.5:
                end.name = str(rng.choice(["input", "simcc_x", "x", ""]))
            else:
                shape = end.type.tensor_type.shape
                shape.dim[int(rng.integers(len(shape.dim)))].dim_value = int(rng.choice([0, 1, 3, 7, 10**6]))
        path.write_bytes(model.SerializeToString())
        return path

    yield Kind("onnx of another", of_another, predicted)


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


def finite(tree: Any) -> bool:
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    return (not isinstance(tree, float) or math.isfinite(tree)) and all(map(finite, values))


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
