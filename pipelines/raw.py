"""Find a raw data set, or render one, and write down what it holds: `python -m pipelines.raw KEY`."""

from __future__ import annotations

import json
import time
from pathlib import Path

from pipelines import stage
from pipelines.progress import progress_line


def main(argv: list[str]) -> None:
    from rtmpose.config import load_params, write_atomic
    from rtmpose.data.annotations import index_raw
    from rtmpose.descriptors import load_dataset

    (key,) = argv
    params, start = load_params().dataset(key), time.perf_counter()
    if params.render is not None:
        from rtmpose.data.mannequins import render_dataset

        render = params.render
        render_dataset(
            Path(params.raw),
            params.descriptor,
            level=render.level,
            images={str(split): count for split, count in render.images.items()},
            size=render.size,
            seed=render.seed,
            progress=progress_line(f"raw       {key}: rendering", "images"),
        )
    splits = [split for split, used in (("train", params.repeat > 0), ("val", params.evaluate)) if used]
    index = index_raw(load_dataset(params.descriptor), Path(params.raw), splits)
    out = write_atomic(Path("data/index") / f"{key}.json", json.dumps(index, indent=1, sort_keys=True) + "\n")
    found = "; ".join(
        f"{split}: {held['persons']} persons in {held['images']} images" for split, held in index["splits"].items()
    )
    print(f"raw       {key}: {found}; {time.perf_counter() - start:.1f} s → {out}")


if __name__ == "__main__":
    stage(main)
