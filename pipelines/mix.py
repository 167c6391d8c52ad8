"""The receipt that training depends on: which shard sets, how often, for what: `python -m pipelines.mix`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines import stage

SHARDS, OUT = Path("data/shards"), Path("data/mix.json")


def main(argv: list[str]) -> None:
    from rtmpose.config import load_params
    from rtmpose.data.shards.manifest import MANIFEST, manifest_digest, read_manifest
    from rtmpose.files import UserError, write_atomic
    from rtmpose.provenance.sources import licence_of

    params = load_params()
    mix: dict[str, list[dict[str, Any]]] = {"train": [], "tune": [], "val": []}
    for key, dataset in params.datasets.items():
        tuned = dataset.evaluate and params.shard.tune_share > 0
        used = {"train": dataset.train, "tune": dataset.train and tuned, "val": dataset.evaluate}
        for part in (part for part, wanted in used.items() if wanted):
            folder = SHARDS / key / part
            manifest = read_manifest(folder, "train" if part == "train" else "eval")
            if manifest["samples"] == 0:
                fix = "raise shard.tune_share" if part == "tune" else "look at the raw data"
                raise UserError(f"{folder / MANIFEST}: no {part} samples in data set '{key}'; {fix}")
            entry = {
                "dataset": key,
                "dir": str(folder),
                "skeleton": manifest["skeleton"]["name"],
                "samples": manifest["samples"],
                "manifest_sha256": manifest_digest(folder),
                "licence": manifest.get("licence") or licence_of(dataset),
            }
            mix[part].append({**entry, "repeat": dataset.repeat} if part == "train" else entry)
    write_atomic(OUT, json.dumps(mix, indent=1) + "\n")
    shown = sum(entry["samples"] * entry["repeat"] for entry in mix["train"])
    held = ", ".join(
        f"{entry['dataset']}/{part} {entry['samples']}" for part in ("tune", "val") for entry in mix[part]
    )
    print(
        f"mix       {shown} samples an epoch from {len(mix['train'])} sets; evaluation images: {held} → {OUT}"
    )


if __name__ == "__main__":
    stage(main)
