"""Cut a raw data set into training and evaluation shards: `python -m pipelines.shard KEY`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from pipelines import stage
from pipelines.progress import progress_line
from pipelines.raw import INDEX, only_key, prepare, used_splits


def main(argv: list[str]) -> None:
    from rtmpose.checkout import home
    from rtmpose.config import load_params
    from rtmpose.data.raw.annotations import RawImage, check_unchanged, read_images
    from rtmpose.data.shards.complete_folders import resumable_folder
    from rtmpose.data.shards.write import in_tune, write_eval_shards, write_train_shards
    from rtmpose.descriptors import load_dataset
    from rtmpose.files import read_json
    from rtmpose.fingerprint import forced_by_dvc
    from rtmpose.provenance.sources import licence_of

    params, start = load_params(), time.perf_counter()
    key = only_key(argv, "shard", params)
    chosen, shard, out = params.dataset(key), params.shard, Path("data/shards") / key
    dataset = replace(load_dataset(chosen.descriptor), licence=licence_of(chosen))
    again = f"run `dvc repro -f raw@{key}`"
    index = read_json(INDEX / f"{key}.json", again)
    root = prepare(key, chosen)
    check_unchanged(dataset, root, index, used_splits(chosen), again)
    # Only a set that is evaluated gives up a part of its training images for choices.
    share = shard.tune_share if chosen.evaluate else 0.0
    size, url = int(shard.shard_mb * 1e6), f"{shard.url.rstrip('/')}/{key}/train" if shard.url else None
    # Outside data/shards, which later stages depend on as a whole, and where every worker of a cluster sees
    # it.
    work = home(params.hardware.storage) / "sharding" / key
    fresh = forced_by_dvc()
    done: list[str] = []

    def label(part: str) -> str:
        return f"shard     {key}/{part}:"

    parts = {"train": chosen.train, "tune": chosen.train and share > 0, "val": chosen.evaluate}
    with resumable_folder(out, work, [part for part, wanted in parts.items() if wanted]) as (
        folder,
        receipts,
    ):

        def evaluation(part: str, images: list[RawImage]) -> None:
            manifest = write_eval_shards(
                images, folder / part, dataset=dataset, split=part, shard_bytes=size, workers=shard.workers,
                progress=progress_line(label(part), "images"), resume=receipts / part, fresh=fresh,
            )  # fmt: skip
            done.append(f"{part} {manifest['samples']} images")

        if parts["train"]:
            images = list(read_images(dataset, root, "train"))
            manifest = write_train_shards(
                [raw for raw in images if not in_tune(raw.image_id, share)], folder / "train",
                dataset=dataset, input_size=shard.input_size, reach=shard.reach, shard_bytes=size,
                quality=shard.quality, workers=shard.workers,
                progress=progress_line(label("train"), "persons"), max_skipped=shard.max_skipped,
                url=url, resume=receipts / "train", fresh=fresh,
            )  # fmt: skip
            skipped = f" ({sum(manifest['skipped'].values())} skipped)" if manifest["skipped"] else ""
            done.append(f"train {manifest['samples']} persons{skipped} in {manifest['bytes'] / 1e6:.0f} MB")
            if parts["tune"]:
                evaluation("tune", [raw for raw in images if in_tune(raw.image_id, share)])
        if parts["val"]:
            evaluation("val", list(read_images(dataset, root, "val")))
    print(f"shard     {key}: {', '.join(done)}; {time.perf_counter() - start:.1f} s → {out}")


if __name__ == "__main__":
    stage(main)
