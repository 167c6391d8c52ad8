"""What a recipe asks of this machine: raw data, room, weights, GPUs, packages."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from rtmpose.checkout import home
from rtmpose.config import DatasetParams, Params, load_params, parse, refuse_baseline
from rtmpose.descriptors import Dataset, Split, load_dataset
from rtmpose.doctor.child import ERROR, ask
from rtmpose.doctor.finding import Finding, lack, note
from rtmpose.doctor.machine import existing, free_gb
from rtmpose.files import UserError

PARAMS = Path("params.yaml")
TEACHERS = {"t": "l", "s": "l", "m": "l", "l": "x"}  # the published pairs (arXiv 2307.15880, section 4)
CROP_BYTES = 1.25  # of a stored crop for each pixel of the input: benchmarks/scale.py, 60 kB at 192 × 256
PERSONS_RENDERED = 2.5  # in a rendered image, on average
COPIES = 2  # of each shard: the folder and DVC's cache
MOST_FILES = 200_000  # whose sizes are added up; beyond, their mean stands for the rest


def composed(overrides: Sequence[str]) -> Params:
    """The parameters of `dvc exp run -S …`, or without overrides those of params.yaml; UserError where they
    are none.
    """
    if not overrides:
        return load_params(PARAMS)
    if not Path("conf/config.yaml").is_file():
        raise UserError("conf/config.yaml: no recipes in this folder; run it in the checkout")
    answer = ask("compose", *overrides)
    if ERROR in answer:
        raise UserError(f"{' '.join(overrides)}: {answer[ERROR]}")
    return parse(Params, answer["params"], PARAMS)


def raw(key: str, chosen: DatasetParams) -> Iterator[Finding]:
    """Whether a data set's raw folder holds what its descriptor names, for the splits that are used."""
    from rtmpose.data.raw.annotations import split_layout

    what, root = f"data {key}", home(chosen.raw)
    if chosen.render is not None:
        yield Finding(what, f"rendered by the run into {root}")
        return
    name = f"-S datasets.{key}.raw=FOLDER"
    try:
        dataset = load_dataset(chosen.descriptor)
        if dataset.reader is None:
            raise UserError(f"{chosen.descriptor} is a skeleton without data of its own")
        for split in used(chosen):
            split_layout(dataset, root, split)
    except UserError as error:
        yield lack(what, str(error), name)
        return
    persons = sum(persons_of(dataset, root, split) for split in used(chosen))
    yield Finding(what, f"{root}, about {persons:,} annotations")


def used(chosen: DatasetParams) -> list[str]:
    """The splits of a data set that the parameters use."""
    return [split for split, wanted in (("train", chosen.train), ("val", chosen.evaluate)) if wanted]


def mark(dataset: Dataset) -> tuple[bytes, int]:
    """What stands in a set's annotation file for each annotation, as a regular expression, and how often it
    stands there for one. COCO's form has it once more in a category, which is not counted apart.
    """
    match dataset.reader:
        case "aic":  # {"human_annotations": {"human1": …}, "keypoint_annotations": {"human1": …}}
            return rb'"human\d+"', 2
        case "mpii":
            return rb'"joints"', 1
        case "cl_detection":
            return rb'"point"', dataset.skeleton.num_keypoints
        case _:
            return re.escape(f'"{dataset.instances[0].parts[0].field}"'.encode()), 1


def annotation_count(dataset: Dataset, path: Path) -> int:
    """How many annotations a JSON file holds, about: it is searched, not parsed, which takes a tenth of a
    second for COCO. 0 for what cannot be read.
    """
    pattern, times = mark(dataset)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return sum(1 for _ in re.finditer(pattern, content)) // times
    except (OSError, ValueError):  # an empty file cannot be mapped
        return 0


def room(params: Params) -> Iterator[Finding]:
    """Room for the shards of all data sets, beside what is free where they go."""
    needed = sum(shard_bytes(params, chosen) for chosen in params.datasets.values()) * COPIES / 1e9
    folder = Path("data/shards")
    free = free_gb(folder)
    found = f"shards take about {needed:.2g} GB with DVC's copy, {free:.1f} GB are free at {existing(folder)}"
    if needed > free:
        yield lack(
            "room", found, "make `data` and `.dvc/cache` links to a larger disk, or -S shard.url=s3://…"
        )
    else:
        yield Finding("room", found)


def shard_bytes(params: Params, chosen: DatasetParams) -> float:
    """About how many bytes a data set's shards take; those in an object store take none here."""
    width, height = params.shard.input_size
    crop = CROP_BYTES * width * height
    if chosen.render is not None:
        counts, (columns, rows) = chosen.render.images, chosen.render.size
        train = counts.get("train", 0) * PERSONS_RENDERED * crop
        val = counts.get("val", 0) * columns * rows * 0.5
    else:
        dataset, root = load_dataset(chosen.descriptor), home(chosen.raw)
        train = persons_of(dataset, root, "train") * crop
        val = folder_bytes(dataset, root, "val") if chosen.evaluate else 0.0
        val += params.shard.tune_share * folder_bytes(dataset, root, "train") if chosen.evaluate else 0.0
    return (train if chosen.train and params.shard.url is None else 0.0) + val * chosen.evaluate


def persons_of(dataset: Dataset, root: Path, split: str) -> int:
    """About how many persons a split has."""
    if split not in dataset.splits:
        return 0
    layout = dataset.splits[split]
    return round(annotation_count(dataset, root / layout.annotations) * _share(layout))


def folder_bytes(dataset: Dataset, root: Path, split: str) -> float:
    """The bytes of a split's images, which lie in one file or a folder (of a very large one, estimated)."""
    if split not in dataset.splits:
        return 0.0
    layout = dataset.splits[split]
    place = root / layout.images
    if place.is_file():
        return place.stat().st_size * _share(layout)
    sizes: list[int] = []
    count = 0
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                count += 1
                if count <= MOST_FILES and entry.is_file():
                    sizes.append(entry.stat().st_size)
    except OSError:
        return 0.0
    return sum(sizes) * max(count / MOST_FILES, 1.0) * _share(layout)


def _share(layout: Split) -> float:
    """The part of its files that belongs to a split."""
    first, last = layout.share or (0.0, 1.0)
    return last - first


def weights(params: Params) -> Iterator[Finding]:
    """Whether the weights that the stages start from are there."""
    named = {"finetune.init": params.finetune.init}
    if params.pretrain.enabled or params.finetune.init is None:
        named["pretrain.init"] = params.pretrain.init
    for key, path in named.items():
        if path is not None:
            yield _there(key, path, released(params, params.model.size, "coco17"))
    if (distill := params.finetune.distill) is not None and distill.teacher is not None:
        larger = TEACHERS.get(params.model.size, "")
        yield _there("finetune.distill.teacher", distill.teacher, released(params, larger, params.skeleton))
    if not any(named.values()) and not params.pretrain.enabled:
        yield note("weights", "none are named: finetuning starts from random ones", "-S finetune.init=FILE")


def _there(key: str, path: str, fix: str) -> Finding:
    found = home(path)
    if found.is_file():
        return Finding("weights", f"{key}: {found}, {found.stat().st_size / 1e6:.0f} MB")
    return lack("weights", f"{key}: {found} is missing", f"-S {key}={fix}")


def released(params: Params, size: str, skeleton: str) -> str:
    """What to write where weights are missing: released ones of that size, those points and the recipe's
    input, as the shell fetches them, or else a placeholder.
    """
    from rtmpose.released.catalogue import catalogue

    for name, each in catalogue().weights.items():
        fits = (each.network, each.size, each.skeleton) == ("rtmpose", size, skeleton)
        if fits and each.pth is not None and each.input == params.input_size:
            return f"$(rtmpose weights pull {name}.pth)"
    return "FILE"


def last_stage(params: Params) -> Iterator[Finding]:
    """Where a run ends that does not go on to the registry: a baseline is not exported."""
    try:
        refuse_baseline(params)
    except UserError as error:
        reason = str(error).partition(": ")[2].partition(";")[0]
        if params.search.enabled:
            yield lack("stages", f"ends at the stage search: {reason}", "-S search.enabled=false")
        else:
            found = f"ends at the stage evaluate: {reason}"
            yield note("stages", found, "name that stage: dvc exp run -S … evaluate")


def devices(params: Params, answer: dict[str, Any], address: str) -> Iterator[Finding]:
    """Whether the GPUs that `hardware` asks for are here; a cluster has its own."""
    hardware = params.hardware
    wanted = ceil(hardware.workers * hardware.gpus_per_worker)
    asked = f"workers {hardware.workers} × gpus_per_worker {hardware.gpus_per_worker:g}"
    here = len(answer.get("gpus", ()))
    if address:
        yield Finding("hardware", f"{asked}, of the cluster at {address}")
    elif wanted > here:
        yield lack(
            "hardware",
            f"{asked} ask for {wanted} GPU(s), PyTorch sees {here}",
            f"-S hardware={'gpu1' if here else 'cpu'}",
        )
    else:
        yield Finding("hardware", asked)
    place = existing(home(hardware.storage))
    if os.access(place, os.W_OK):
        yield Finding("storage", f"{home(hardware.storage)} can be written")
    else:
        yield lack("storage", f"{place} cannot be written", "-S hardware.storage=FOLDER that all workers see")


def of(params: Params, answer: dict[str, Any], address: str) -> list[tuple[str, partial[Iterator[Finding]]]]:
    """Every question about a recipe, by what a line calls it."""
    return [
        *((f"data {key}", partial(raw, key, chosen)) for key, chosen in params.datasets.items()),
        ("room", partial(room, params)),
        ("weights", partial(weights, params)),
        ("stages", partial(last_stage, params)),
        ("hardware", partial(devices, params, answer, address)),
    ]
