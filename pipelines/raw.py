"""Find a raw data set, or render one, and write down what it holds: `python -m pipelines.raw KEY`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import stage
from pipelines.progress import progress_line

if TYPE_CHECKING:
    from rtmpose.config import DatasetParams, Params

INDEX = Path("data/index")


def only_key(argv: list[str], stage_name: str, params: Params) -> str:
    """The one argument of a stage that works on one set; `Params.dataset` knows whether there is such
    a set.
    """
    from rtmpose.files import UserError

    if len(argv) != 1:
        known = ", ".join(params.datasets)
        raise UserError(
            f"usage: python -m pipelines.{stage_name} KEY, a key of datasets in params.yaml: {known}"
        )
    return argv[0]


def prepare(key: str, chosen: DatasetParams) -> Path:
    """The set's raw folder, rendered where the parameters say so; no work when it is complete."""
    from rtmpose.checkout import home
    from rtmpose.descriptors import load_dataset

    root, render = home(chosen.raw), chosen.render
    if render is None:
        return root
    if load_dataset(chosen.descriptor).reader == "cl_detection":
        from rtmpose.data.radiographs.dataset import draw_dataset

        draw_dataset(
            root,
            images=sum(render.images.values()),  # one stack, of which splits are shares
            size=render.size,
            seed=render.seed,
            progress=progress_line(f"raw       {key}: drawing", "images"),
        )
    else:
        from rtmpose.data.mannequins.dataset import render_dataset

        render_dataset(
            root,
            chosen.descriptor,
            level=render.level,
            images={str(split): count for split, count in render.images.items()},
            size=render.size,
            seed=render.seed,
            progress=progress_line(f"raw       {key}: rendering", "images"),
        )
    return root


def used_splits(chosen: DatasetParams) -> list[str]:
    """The splits of a raw folder that the parameters use."""
    return [split for split, used in (("train", chosen.train), ("val", chosen.evaluate)) if used]


def main(argv: list[str]) -> None:
    from rtmpose.config import load_params
    from rtmpose.data.raw.annotations import index_raw
    from rtmpose.descriptors import SIGMA_RULE, load_dataset
    from rtmpose.files import write_atomic

    params, start = load_params(), time.perf_counter()
    key = only_key(argv, "raw", params)
    chosen = params.dataset(key)
    dataset = load_dataset(chosen.descriptor)
    index = index_raw(dataset, prepare(key, chosen), used_splits(chosen))
    out = write_atomic(INDEX / f"{key}.json", json.dumps(index, indent=1, sort_keys=True) + "\n")
    found = "; ".join(
        f"{split}: {held['persons']} persons in {held['images']} images"
        for split, held in index["splits"].items()
    )
    print(f"raw       {key}: {found}; {time.perf_counter() - start:.1f} s → {out}")
    for split, held in index["splits"].items():
        if held["skipped"]:
            counts = ", ".join(f"{reason} {count}" for reason, count in held["skipped"].items())
            print(
                f"raw       {key}: {split}: skipped for a defect: {counts} (`rtmpose dataset check` names "
                "them)"
            )
        for line in held["implausible"]:
            print(f"raw       {key}: {split}: implausible: {line}")
    if dataset.sigmas_estimated:
        print(f"raw       {key}: its OKS sigmas are estimated, none are published: {SIGMA_RULE}")


if __name__ == "__main__":
    stage(main)
