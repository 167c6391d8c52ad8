"""The receipt that training depends on: which shard sets, how often, for what: `python -m pipelines.mix`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pipelines import stage

SHARDS, OUT = Path("data/shards"), Path("data/mix.json")


def main(argv: list[str]) -> None:
    from rtmpose.config import load_params, write_atomic
    from rtmpose.data.stream import MANIFEST, read_manifest

    params = load_params()
    mix: dict[str, list[dict[str, Any]]] = {"train": [], "tune": [], "val": []}
    for key, dataset in params.datasets.items():
        tuned = dataset.evaluate and params.shard.tune_share > 0
        used = {"train": dataset.repeat > 0, "tune": dataset.repeat > 0 and tuned, "val": dataset.evaluate}
        for part in (part for part, wanted in used.items() if wanted):
            folder = SHARDS / key / part
            manifest = read_manifest(folder, "train" if part == "train" else "eval")
            entry = {
                "dataset": key,
                "dir": str(folder),
                "skeleton": manifest["skeleton"]["name"],
                "samples": manifest["samples"],
                "manifest_sha256": hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest(),
            }
            mix[part].append({**entry, "repeat": dataset.repeat} if part == "train" else entry)
    write_atomic(OUT, json.dumps(mix, indent=1) + "\n")
    shown = sum(entry["samples"] * entry["repeat"] for entry in mix["train"])
    held = ", ".join(f"{entry['dataset']}/{part} {entry['samples']}" for part in ("tune", "val") for entry in mix[part])
    print(f"mix       {shown} samples an epoch from {len(mix['train'])} sets; evaluation images: {held} → {OUT}")


if __name__ == "__main__":
    stage(main)
