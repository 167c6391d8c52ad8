"""Promote a version that passes every gate, and go back to the one before."""

from __future__ import annotations

import getpass
import json
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rtmpose.config import Params, PromotionParams
from rtmpose.files import UserError
from rtmpose.promotion import evidence, journal, registry
from rtmpose.promotion.gate import Gate, said
from rtmpose.promotion.gates import Case, gates
from rtmpose.promotion.journal import Entry, Standing
from rtmpose.promotion.registry import Version
from rtmpose.tracking.answers import reachable
from rtmpose.tracking.models import DIGEST, digests, version_files
from rtmpose.tracking.runs import client, has_run, tracking_uri


@dataclass(frozen=True)
class Asked:
    """What somebody wants: which gates, on which targets, and who and why."""

    params: PromotionParams
    targets: Sequence[str]
    new_skeleton: bool = False
    again: bool = False
    no_champion: bool = False
    who: str = ""
    why: str = ""

    @classmethod
    def of(cls, params: Params, targets: Sequence[str] = (), **others: Any) -> Asked:
        """As the parameters say; on these targets, without any on those that they require."""
        required = targets or params.promotion.targets or params.targets
        return cls(params.promotion, tuple(required), **others)


@dataclass(frozen=True)
class Judgement:
    """A version beside the champion of one moment: every gate, and the hash of the evidence (None: there is
    none to count).
    """

    version: Version
    standing: Standing
    gates: tuple[Gate, ...]
    evidence_sha256: str | None

    @property
    def failed(self) -> list[Gate]:
        return [gate for gate in self.gates if gate.verdict == "fails"]

    @property
    def is_champion(self) -> bool:
        return self.standing.champion == self.version.number


def judge(name: str, which: str, asked: Asked) -> Judgement:
    """Look at every gate for the version with that number or alias; nothing is changed. UserError where there
    is no such version.
    """
    standing = registry.stand(name)
    version = registry.find(name, which)
    try:
        measured, digest = evidence.fetch(version)
    except UserError as error:
        return Judgement(version, standing, (said("evidence", str(error), ""),), None)
    run = measured.comparison.training_run
    case = Case(
        number=version.number,
        tags=version.tags,
        hashes=digests(version.tags),
        run_found=run is not None and has_run(run),
        damage=_damage(version),
        evidence=measured,
        standing=standing,
        champion_sha256=_digest_of(name, standing.champion),
        params=asked.params,
        targets=asked.targets,
        new_skeleton=asked.new_skeleton,
        now=datetime.now(UTC),
        rolled_back=_gone_back_from(version, standing),
        again=asked.again,
        no_champion=asked.no_champion,
        champions_left=tuple(registry.present_champions(name, standing)),
    )
    return Judgement(version, standing, tuple(gates(case)), digest)


def promote(judgement: Judgement, asked: Asked) -> Standing:
    """Make the judged version champion, provided that nobody else was promoted since it was judged. Run again
    for the champion, it finishes what a killed run left. UserError where a gate fails or somebody was faster.
    """
    version, standing = judgement.version, judgement.standing
    if judgement.is_champion:
        return registry.settle(version.name)
    if failed := judgement.failed:
        which = ", ".join(dict.fromkeys(gate.name for gate in failed))
        raise UserError(
            f"{version} is not promoted: {len(failed)} of {len(judgement.gates)} gates fail ({which}); mend "
            "it and register a new version"
        )
    entry = _entry(version.name, "promote", version.number, standing, asked)
    entry = entry.model_copy(
        update={
            "evidence_sha256": judgement.evidence_sha256,
            "decision": _record(version, entry, judgement.gates, asked),
        }
    )
    return _written(version.name, entry)


def rollback(name: str, asked: Asked) -> Standing:
    """Make the champion before the present one champion again. Versions that were deleted are passed over.
    UserError where there is none to go back to, its files are not whole, or somebody was faster.
    """
    standing = registry.stand(name)
    number = registry.previous(name, standing)
    if number is None:
        raise UserError(f"{name}: no champion before {standing.champion or 'the first one'} to go back to")
    version = registry.find(name, number)
    if (damage := _damage(version)) is not None:
        raise UserError(f"{version}: cannot be champion again: {damage}; restore its artifacts")
    return _written(name, _entry(name, "rollback", number, standing, asked))


def way_out(name: str, standing: Standing) -> str:
    """The command that gives a model a champion again whose champion's version was deleted."""
    if registry.previous(name, standing) is not None:
        return f"`rtmpose rollback {name}`"
    return f"none before it is left: `rtmpose promote {name} VERSION --no-champion`"


def _entry(name: str, action: journal.Action, number: str, standing: Standing, asked: Asked) -> Entry:
    files = standing.sha256 | _files(name)
    return Entry(
        number=standing.next_number,
        action=action,
        version=number,
        before=standing.champion,
        sha256=files.get(number),
        before_sha256=files.get(standing.champion or ""),
        who=asked.who or whoami(),
        when=datetime.now(UTC).replace(microsecond=0),
        why=asked.why[: journal.LONGEST],
    )


def _written(name: str, entry: Entry) -> Standing:
    """The one moment that decides, and what follows from it."""
    if not journal.write(name, entry):
        other = journal.read(name)[entry.number - 1]
        raise UserError(
            f"{name}: meanwhile {other.who} made version {other.version} champion ({other.action}); look at "
            "it, measure beside it (`dvc repro -f -s` benchmark, pick, compare, register), try again"
        )
    return registry.settle(name)


def _record(version: Version, entry: Entry, found: Sequence[Gate], asked: Asked) -> str:
    """Keep the gates as they were told, as an artifact of the version's run -> its path there. It counts only
    once an entry names it.
    """
    content: Mapping[str, object] = {
        "entry": entry.model_dump(mode="json", exclude={"decision", "evidence_sha256"}),
        "targets": list(asked.targets),
        "new_skeleton": asked.new_skeleton,
        "again": asked.again,
        "no_champion": asked.no_champion,
        "thresholds": asked.params.model_dump(mode="json"),
        "gates": [gate.model_dump(mode="json") for gate in found],
    }
    place = f"{evidence.folder(version.name, version.number)}/decision-{entry.attempt}.json"
    store = client()
    with reachable(tracking_uri()):
        store.log_text(version.run_id, json.dumps(content, indent=1) + "\n", place)
    return place


def _damage(version: Version) -> str | None:
    """Why a version's files are not whole where they are registered."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            version_files(version.name, version.number, Path(folder))
        except UserError as error:
            return str(error)
    return None


def _gone_back_from(version: Version, standing: Standing) -> Entry | None:
    """The rollback from a version, or from another one with the same exported file: to register it once more
    mends nothing.
    """
    if (entry := standing.rolled_back.get(version.number)) is not None:
        return entry
    files = _files(version.name) | standing.sha256  # the journal still knows those that were deleted
    mine = version.tags.get(DIGEST)
    same = (entry for number, entry in standing.rolled_back.items() if mine and files.get(number) == mine)
    return next(same, None)


def _files(name: str) -> dict[str, str]:
    """Hashes of the exported files of all versions that exist, by number."""
    return {each.number: each.tags[DIGEST] for each in registry.versions(name) if DIGEST in each.tags}


def _digest_of(name: str, number: str | None) -> str | None:
    """Of the champion's exported file; None where there is none, or its version was deleted."""
    known = {version.number: version.tags.get(DIGEST, "unknown") for version in registry.versions(name)}
    return None if number is None else known.get(number)


def whoami() -> str:
    """Who runs this: user and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{platform.node()}"
