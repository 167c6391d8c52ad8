"""What was measured of a candidate, beside the champion of that moment: an artifact of its version.

Accuracy comes from the stage `compare`, costs from the stage `benchmark` on each target's machine. Both say
of which files, by hash, and when. A version and its evidence belong together for good: `register` attaches
it, and whoever measures again registers again.
"""

from __future__ import annotations

import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from rtmpose.config import Strict, parse
from rtmpose.deploy.quantize.attempt import Figure
from rtmpose.deploy.runtimes.base import DeviceKind
from rtmpose.files import UserError, parse_json, read_bytes
from rtmpose.promotion.registry import Version
from rtmpose.provenance.sources import DataSource
from rtmpose.tracking.answers import reachable
from rtmpose.tracking.runs import client, tracking_uri

DIGEST_TAG = "promotion.measured_sha256"
NAME = "evidence.json"
NOTHING_THERE = "nothing of the champion passed on this target"
AGAIN = "run `dvc repro -f -s register` where it was measured"


class Champion(Strict):
    """Whom a candidate was measured beside."""

    version: str
    sha256: str = Field(description="of its rtmpose.onnx")
    keypoint_names: tuple[str, ...]


class SliceFigures(Strict):
    """Recall of a slice, points of 100; `difference` to the champion's."""

    persons: int
    recall: Figure | None
    difference: Figure | None = None


class SetFigures(Strict):
    """One evaluation set: the hash of its manifest when either was measured, AP in points of 100."""

    sha256: str
    images: int
    ap: Figure
    champion_sha256: str | None = None
    difference: Figure | None = None
    slices: dict[str, SliceFigures] = Field(default_factory=dict)


class Accuracy(Strict):
    """Of the file, runtime and precision that were picked for one target; `not_compared` says why there is no
    difference to the champion.
    """

    picked: str | None
    files: dict[str, str]
    sets: dict[str, SetFigures]
    champion_picked: str | None = None
    not_compared: str | None = None


class Comparison(Strict):
    """`metrics/compare.json`."""

    compared_at: AwareDatetime
    exported_at: AwareDatetime
    machine: dict[str, Any]
    mix_sha256: str
    keypoint_names: tuple[str, ...]
    card_problems: tuple[str, ...]
    data: tuple[DataSource, ...]
    training_run: str | None
    champion: Champion | None
    targets: dict[str, Accuracy]


class Beside(Strict):
    """One cost in times of the champion's, where the champion was measured in the same run."""

    ratio: float
    low: float | None = None
    high: float | None = None


class BudgetKept(Strict):
    """A limit of the target beside what the picked configuration needs."""

    budget: str
    key: str
    limit: float
    measured: float | None
    by: str | None
    kept: bool


class Cost(Strict):
    """What the picked configuration costs on one target, for the target's own calls, beside the champion in
    the runtime and precision `champion_picked` (None: it has nothing there). `parity_px` is None where it was
    not measured on persons; `images` says what else it was measured on (None: not said).
    `memory_mb` is the process's; of a GPU it holds `gpu_memory_mb` besides (None: not told).
    """

    measured_at: AwareDatetime
    machine: dict[str, Any]
    files: dict[str, str]
    champion_version: str | None
    champion_picked: str | None = None
    not_compared: str | None
    images: str | None = None
    parity_px: float | None
    p50_ms: float
    memory_mb: float
    device: DeviceKind = "cpu"
    gpu_memory_mb: float | None = None
    file_mb: float
    beside: dict[Literal["latency", "memory", "gpu_memory", "size"], Beside]
    budgets: tuple[BudgetKept, ...]


class Evidence(Strict):
    """All of it."""

    format: Literal[1] = 1
    comparison: Comparison
    costs: dict[str, Cost]


def attach(evidence: Evidence, *, name: str, version: str, run_id: str) -> None:
    """Make it an artifact of the version's run, and say its hash on the version."""
    text = evidence.model_dump_json(indent=1) + "\n"
    store = client()
    with reachable(tracking_uri()):
        store.log_text(run_id, text, f"{folder(name, version)}/{NAME}")
        digest = sha256(text.encode()).hexdigest()
        store.set_model_version_tag(name, version, DIGEST_TAG, digest)


def fetch(version: Version, fix: str = AGAIN) -> tuple[Evidence, str]:
    """The evidence of a version, and its hash; UserError, which tells the fix, where there is none, or not
    what was attached.
    """
    digest = version.tags.get(DIGEST_TAG)
    if digest is None:
        raise UserError(f"{version}: nothing was measured of it (no tag '{DIGEST_TAG}'); {fix}")
    place = f"{folder(version.name, version.number)}/{NAME}"
    try:
        with tempfile.TemporaryDirectory() as here, reachable(tracking_uri()):
            content = read_bytes(client().download_artifacts(version.run_id, place, here))
    except UserError as error:
        raise UserError(f"{version}: artifact {place} cannot be read: {error}; {fix}") from None
    if sha256(content).hexdigest() != digest:
        raise UserError(f"{version}: artifact {place} is not what was attached to it; {fix}")
    return parse(Evidence, parse_json(content, place, fix), Path(place)), digest


def folder(name: str, version: str) -> str:
    """Where a version's own artifacts lie in its run, which several versions may share."""
    return f"promotion/{name}/version-{version}"
