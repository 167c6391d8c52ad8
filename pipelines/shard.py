"""Cut a raw data set into training and evaluation shards: `python -m pipelines.shard KEY`."""

from __future__ import annotations

import time
from pathlib import Path

from pipelines import stage
from pipelines.progress import progress_line
from pipelines.raw import INDEX, only_key, prepare, used_splits


def main(argv: list[str]) -> None:
    from rtmpose.config import load_params, read_json
    from rtmpose.data.annotations import RawImage, check_unchanged, read_images
    from rtmpose.data.shards import complete_folder, in_tune, write_eval_shards, write_train_shards
    from rtmpose.descriptors import load_dataset

    params, start = load_params(), time.perf_counter()
    key = only_key(argv, "shard", params)
    chosen, shard, out = params.dataset(key), params.shard, Path("data/shards") / key
    dataset, again = load_dataset(chosen.descriptor), f"run `dvc repro -f raw@{key}`"
    index = read_json(INDEX / f"{key}.json", again)
    root = prepare(key, chosen)
    check_unchanged(dataset, root, index, used_splits(chosen), again)
    # Only a set that is evaluated gives up a part of its training images for choices.
    share = shard.tune_share if chosen.evaluate else 0.0
    size = int(shard.shard_mb * 1e6)
    done: list[str] = []

    def label(part: str) -> str:
        return f"shard     {key}/{part}:"

    with complete_folder(out) as folder:

        def evaluation(part: str, images: list[RawImage]) -> None:
            manifest = write_eval_shards(
                images, folder / part, dataset=dataset, split=part, shard_bytes=size, workers=shard.workers,
                progress=progress_line(label(part), "images"),
            )  # fmt: skip
            done.append(f"{part} {manifest['samples']} images")

        if chosen.train:
            images = list(read_images(dataset, root, "train"))
            manifest = write_train_shards(
                [raw for raw in images if not in_tune(raw.image_id, share)], folder / "train", dataset=dataset,
                input_size=shard.input_size, shard_bytes=size, quality=shard.quality, workers=shard.workers,
                progress=progress_line(label("train"), "persons"),
            )  # fmt: skip
            done.append(f"train {manifest['samples']} persons in {manifest['bytes'] / 1e6:.0f} MB")
            if share > 0:
                evaluation("tune", [raw for raw in images if in_tune(raw.image_id, share)])
        if chosen.evaluate:
            evaluation("val", list(read_images(dataset, root, "val")))
    print(f"shard     {key}: {', '.join(done)}; {time.perf_counter() - start:.1f} s → {out}")


if __name__ == "__main__":
    stage(main)
