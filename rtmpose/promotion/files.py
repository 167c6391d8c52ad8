"""The champion as files: fetched, checked and ready to be measured beside a candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.runtimes.base import ModelFiles, tried_name
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.targets import Target
from rtmpose.promotion import evidence, registry
from rtmpose.promotion.evidence import Champion
from rtmpose.tracking.models import DIGEST, ONNX, version_files
from rtmpose.tracking.runs import is_there

WEIGHTS = "rtmpose.pt"


@dataclass(frozen=True)
class Deployed:
    """A model as it is deployed: its files, its card, and what each target runs it in."""

    files: ModelFiles
    card: ModelCard
    picked: Mapping[str, str | None]

    def picked_for(self, target: Target) -> str | None:
        """A runtime and precision, by name; None where nothing passed. A target that was not known when it
        was measured runs it in its reference.
        """
        reference = tried_name(target.reference.runtime, target.reference.precision, target.device)
        return self.picked.get(target.name, reference)


def champion_of(name: str, folder: Path) -> tuple[Champion, Deployed] | None:
    """Fetch the champion of a registered model into `folder`; None where there is none. UserError where its
    files are not those that were registered, or its evidence cannot be read.
    """
    if (
        not is_there()
        or name not in registry.model_names()
        or (number := registry.stand(name).champion) is None
    ):
        return None
    if number not in (version.number for version in registry.versions(name)):
        return None  # it was deleted
    version = registry.find(name, number)
    found = version_files(name, number, folder)
    card = read_card(found[ONNX])
    who = Champion(version=number, sha256=version.tags[DIGEST], keypoint_names=card.keypoint_names)
    return who, Deployed(ModelFiles(found[ONNX], found.get(WEIGHTS)), card, _picked(version))


def _picked(version: registry.Version) -> dict[str, str | None]:
    """What was picked for each target when the version was measured; nothing where it never was.

    Evidence that is attached and cannot be read is no reason to measure the champion in something else than
    what it runs in: UserError.
    """
    if evidence.DIGEST_TAG not in version.tags:
        return {}
    fix = f"restore the champion's artifacts, or go back: `rtmpose rollback {version.name}`"
    measured, _ = evidence.fetch(version, fix)
    return {target: accuracy.picked for target, accuracy in measured.comparison.targets.items()}
