"""Registered versions whose files are a few bytes and whose evidence says whatever a test wants."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from rtmpose.config import PromotionParams
from rtmpose.promotion import evidence
from rtmpose.promotion.decide import Asked
from rtmpose.promotion.evidence import Evidence
from rtmpose.promotion.journal import Entry
from rtmpose.tracking import runs
from rtmpose.tracking.models import digest_tag

NAME, TARGET = "pose", "cpu-x86"
POINTS = ("nose", "left_eye", "right_eye")
FILES = ("rtmpose.onnx", "rtmpose.int8.onnx")
GROUPS = {"head": 500, "arms": 500, "legs": 500}  # slices of the descriptor's groups, persons in each
DATA = {"name": "coco17", "sha256": "d" * 64, "licence": "rendered here"}
ASKED = Asked(
    PromotionParams(min_ap=40, slice_floors={"small": 30, "head": 50}), (TARGET,), who="ada", why="better"
)


def content(version: str, file: str) -> bytes:
    return f"{version} {file}".encode()


def hashes(version: str) -> dict[str, str]:
    return {file: sha256(content(version, file)).hexdigest() for file in FILES}


def figure(value: float, spread: float = 1.0) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


def measured(version: str, champion: str | None, run_id: str, **changes: Any) -> Evidence:
    """Evidence that passes every gate, beside the champion of that number; `changes` are values at dotted
    paths with `__` for the dots.
    """
    made = datetime.now(UTC) - timedelta(hours=1)
    lost = None if champion is None else figure(0.2)
    slices = {
        name: {"persons": persons, "recall": figure(70), "difference": lost}
        for name, persons in {"all": 500, "small": 100, "crowded": 60, "occluded": 8, **GROUPS}.items()
    }
    sets = {
        name: {
            "sha256": "e" * 64, "images": 250, "ap": figure(60), "slices": slices, "difference": lost,
            "champion_sha256": champion and "e" * 64,
        }
        for name in ("easy", "hard")
    }  # fmt: skip
    found: dict[str, Any] = {
        "comparison": {
            "exported_at": made, "compared_at": made + timedelta(minutes=2), "machine": {}, "data": [DATA],
            "mix_sha256": "a" * 64, "keypoint_names": POINTS, "card_problems": [], "training_run": run_id,
            "champion": champion
            and {"version": champion, "sha256": hashes(champion)[FILES[0]], "keypoint_names": POINTS},
            "targets": {
                TARGET: {
                    "picked": "onnxruntime_int8", "files": hashes(version), "sets": sets,
                    "champion_picked": champion and "onnxruntime_int8",
                }
            },
        },
        "costs": {
            TARGET: {
                "measured_at": made + timedelta(minutes=1), "machine": {}, "files": hashes(version),
                "champion_version": champion, "champion_picked": champion and "onnxruntime_int8",
                "not_compared": None, "images": "8 held-out persons", "parity_px": 0.3, "p50_ms": 2.4,
                "memory_mb": 120.0, "file_mb": 6.0, "beside": _beside() if champion else {},
                "budgets": [
                    {"budget": "any runtime threads=1 batch=1", "key": "p95_ms", "limit": 100.0,
                     "measured": 3.1, "by": "onnxruntime_int8_threads1_batch1", "kept": True}
                ],
            }
        },
    }  # fmt: skip
    for path, value in changes.items():
        *parents, last = path.split("__")
        group = found
        for parent in parents:
            group = group[parent]
        group[last] = value
    return Evidence.model_validate(found)


def _beside() -> dict[str, Any]:
    return {
        "latency": {"ratio": 1.0, "low": 0.97, "high": 1.03},
        "memory": {"ratio": 1.01},
        "size": {"ratio": 1.0},
    }


def entry(number: int, action: str, version: str, before: str | None) -> Entry:
    """An entry of a journal."""
    return Entry.model_validate(
        {"number": number, "action": action, "version": version, "before": before, "who": "ada",
         "when": "2026-11-28T01:00:00+00:00", "why": "drill"}
    )  # fmt: skip


def training_run() -> str:
    """A run that versions come from, with the files of the first nine of them."""
    run_id = runs.start_or_resume_run("finetune")
    store = runs.client()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, 10):
            for file in FILES:
                path = Path(folder, str(number), "artifacts", file)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content(str(number), file))
        store.log_artifacts(run_id, folder, "model")
    return run_id


def register(
    run_id: str, champion: str | None = None, name: str = NAME, tags: Mapping[str, str] = {}, **changes: Any
) -> str:
    """A further version of a model, measured beside that champion -> its number."""
    store = runs.client()
    if not store.search_registered_models(f"name = '{name}'"):
        store.create_registered_model(name)
    number = str(len(store.search_model_versions(f"name = '{name}'")) + 1)
    lineage = {
        "git_commit": "0123456789abcdef", "dvc_lock_sha256": "b" * 64, "data_manifest_sha256": "a" * 64,
        "fingerprint": "f00d",
    }  # fmt: skip
    lineage |= {digest_tag(file): digest for file, digest in hashes(number).items()}
    source = f"{store.get_run(run_id).info.artifact_uri}/model/{number}"
    made = store.create_model_version(name, source, run_id=run_id, tags={**lineage, **tags})
    store.set_registered_model_alias(name, "candidate", made.version)
    found = measured(number, champion, run_id, **changes)
    evidence.attach(found, name=name, version=number, run_id=run_id)
    return str(made.version)


def aliases(name: str = NAME) -> dict[str, str]:
    return {key: str(value) for key, value in runs.client().get_registered_model(name).aliases.items()}
