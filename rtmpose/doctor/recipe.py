"""What a recipe asks of this machine: raw data, room, GPUs; its weights are in `weights`."""

from __future__ import annotations

import difflib
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
from rtmpose.doctor.fixes import CONF, Command
from rtmpose.doctor.machine import existing, free_gb
from rtmpose.doctor.weights import weights
from rtmpose.files import UserError

PARAMS = Path("params.yaml")
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
    if not (CONF / "config.yaml").is_file():
        raise UserError("conf/config.yaml: no recipes in this folder; run it in the checkout")
    for key, _, name in (text.partition("=") for text in overrides):
        if key == "recipe":
            refuse_unknown(name)
    answer = ask("compose", *overrides)
    if ERROR in answer:
        raise UserError(f"{' '.join(overrides)}: {answer[ERROR]}")
    return parse(Params, answer["params"], PARAMS)


def recipes(folder: Path = CONF / "recipe") -> list[str]:
    """The names of all recipes, without what they are made of."""
    names = (path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    return sorted(name for name in names if name != "published" and not name.startswith("parts/"))


def refuse_unknown(name: str) -> None:
    """UserError with the names that come near, where there is no recipe of that name."""
    known = recipes()
    if name in known:
        return
    last = name.rpartition("/")[2].lower()
    near = [each for each in known if last and last in each.rpartition("/")[2].lower()]
    near += difflib.get_close_matches(name, known, 3, 0.6)
    which = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else f"there are {', '.join(known)}"
    raise UserError(f"recipe {name[:80]!r}: no such recipe in conf/recipe/; {which}")


def raw(key: str, chosen: DatasetParams, command: Command) -> Iterator[Finding]:
    """Whether a data set's raw folder holds what its descriptor names, for the splits that are used."""
    what, root = f"data {key}", home(chosen.raw)
    if chosen.render is not None:
        yield Finding(what, f"rendered by the run into {root}")
    elif (reason := missing(chosen)) is not None:
        yield lack(what, reason, command.to(f"datasets.{key}.raw=FOLDER"))
    else:
        dataset = load_dataset(chosen.descriptor)
        persons = sum(persons_of(dataset, root, split) for split in used(chosen))
        yield Finding(what, f"{root}, about {persons:,} annotations")


def missing(chosen: DatasetParams) -> str | None:
    """What a data set's raw folder lacks of the splits that are used; None where all is there, or will be
    rendered.
    """
    from rtmpose.data.raw.annotations import split_layout

    if chosen.render is not None:
        return None
    try:
        dataset = load_dataset(chosen.descriptor)
        if dataset.reader is None:
            raise UserError(f"{chosen.descriptor} is a skeleton without data of its own")
        for split in used(chosen):
            split_layout(dataset, home(chosen.raw), split)
    except UserError as error:
        return str(error)
    return None


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


def room(params: Params, command: Command) -> Iterator[Finding]:
    """Room for the shards of all data sets, beside what is free where they go; not known before their raw
    data is there.
    """
    lost = [key for key, chosen in params.datasets.items() if missing(chosen) is not None]
    there = [chosen for key, chosen in params.datasets.items() if key not in lost]
    needed = sum(shard_bytes(params, chosen) for chosen in there) * COPIES / 1e9
    folder = Path("data/shards")
    free = free_gb(folder)
    least = "at least" if lost else "about"
    is_free = f"{free:.1f} GB are free at {existing(folder)}"
    found = f"shards take {least} {needed:.2g} GB with DVC's copy, {is_free}"
    if needed > free:
        elsewhere = command.to("shard.url=s3://BUCKET/PREFIX")
        yield lack("room", found, f"make `data` and `.dvc/cache` links to a larger disk, or: {elsewhere}")
    elif lost:
        yield note("room", f"not known until the data is there ({', '.join(lost)}); {is_free}")
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


def last_stage(params: Params, command: Command) -> Iterator[Finding]:
    """Where a run ends that does not go on to the registry: a baseline is not exported."""
    try:
        refuse_baseline(params)
    except UserError as error:
        reason = str(error).partition(": ")[2].partition(";")[0]
        if params.search.enabled:
            yield lack("stages", f"ends at the stage search: {reason}", command.to("search.enabled=false"))
        else:
            found = f"ends at the stage evaluate: {reason}"
            yield note("stages", found, command.to(stage="evaluate"))


def devices(params: Params, answer: dict[str, Any], address: str, command: Command) -> Iterator[Finding]:
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
            command.to(f"hardware={'gpu1' if here else 'cpu'}"),
        )
    else:
        yield Finding("hardware", asked)
    place = existing(home(hardware.storage))
    if os.access(place, os.W_OK):
        yield Finding("storage", f"{home(hardware.storage)} can be written")
    else:
        found = f"{place} cannot be written; name a folder that all workers see"
        yield lack("storage", found, command.to("hardware.storage=FOLDER"))


def of(
    params: Params, answer: dict[str, Any], address: str, command: Command
) -> list[tuple[str, partial[Iterator[Finding]]]]:
    """Every question about a recipe, by what a line calls it."""
    return [
        *((f"data {key}", partial(raw, key, chosen, command)) for key, chosen in params.datasets.items()),
        ("room", partial(room, params, command)),
        ("weights", partial(weights, params, command)),
        ("stages", partial(last_stage, params, command)),
        ("hardware", partial(devices, params, answer, address, command)),
    ]
