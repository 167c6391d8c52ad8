"""AP and slices of what each target gets, beside the champion's on the same images, in one go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rtmpose.data.shards.manifest import manifest_digest
from rtmpose.deploy.quantize.gate import InRuntime, Judge, figure
from rtmpose.deploy.quantize.run import BATCH
from rtmpose.deploy.runtimes.base import NotPossible, Placement, tried_parts
from rtmpose.deploy.runtimes.session import open_session
from rtmpose.deploy.sizes import sources
from rtmpose.deploy.targets import Target
from rtmpose.descriptors import load_dataset
from rtmpose.evaluation.bootstrap import Interval, PairedReference, Ranking, resamples
from rtmpose.evaluation.slices import SliceSums, slices_of
from rtmpose.files import sha256_of
from rtmpose.machine import cores
from rtmpose.promotion.evidence import NOTHING_THERE, Accuracy, SetFigures, SliceFigures
from rtmpose.promotion.files import Deployed


@dataclass(frozen=True)
class OnSet:
    """What one model did on one evaluation set, whose manifest had this hash when it was read."""

    sha256: str
    ranking: Ranking
    slices: Mapping[str, SliceSums]


@dataclass
class Arena:
    """Where models are judged; each runtime and precision of each once, however many targets use it."""

    judge: Judge
    tell: Callable[[str], None] = lambda line: None
    known: dict[tuple[Path, str], dict[str, OnSet] | str] = field(default_factory=dict)

    def judged(self, model: Deployed, picked: str) -> dict[str, OnSet] | str:
        """A model in one runtime and precision on every set, or why it could not be judged here."""
        key = model.files.onnx, picked
        if key not in self.known:
            self.tell(f"{model.files.onnx} in {picked}")
            self.known[key] = self._judge(model, picked)
        return self.known[key]

    def _judge(self, model: Deployed, picked: str) -> dict[str, OnSet] | str:
        runtime, precision, device = tried_parts(picked)
        try:
            session = open_session(runtime, model.files, precision, Placement(device, cores()), BATCH)
        except NotPossible as reason:
            return f"{picked} is not possible here: {reason}"
        hashes = {name: manifest_digest(folder) for name, folder in self.judge.sets.items()}
        # Both by the candidate's descriptor: it may lie where the champion's did not.
        skeleton = self.judge.card.skeleton
        judge = replace(self.judge, card=model.card.with_more(skeleton=skeleton))
        results = judge.results(InRuntime(session.infer, BATCH))
        if results is None:
            return f"{picked} gives points that are not finite"
        descriptor = load_dataset(skeleton)
        sigmas, groups = descriptor.skeleton.sigmas, descriptor.keypoint_groups
        return {
            name: OnSet(
                hashes[name], Ranking.of(truth, poses, sigmas), slices_of(truth, poses, sigmas, groups)
            )
            for name, (poses, truth) in results.items()
        }

    def accuracy(self, target: Target, ours: Deployed, theirs: Deployed | None) -> Accuracy:
        """A candidate as a target gets it, beside the champion as the same target has it (None: there is
        none).
        """
        picked = ours.picked_for(target)
        if picked is None:
            return Accuracy(picked=None, files={}, sets={}, not_compared="nothing passed on this target")
        runtime, precision, _ = tried_parts(picked)
        files = {path.name: sha256_of(path) for path in sources(ours.files, runtime, precision)}
        mine = self.judged(ours, picked)
        other, their_pick = self._other(target, ours, theirs)
        reason = mine if isinstance(mine, str) else other if isinstance(other, str) else None
        sets = {} if isinstance(mine, str) else mine
        beside = other if isinstance(other, dict) else {}
        return Accuracy(
            picked=picked,
            files=files,
            sets={name: self._figures(one, beside.get(name)) for name, one in sets.items()},
            champion_picked=their_pick,
            not_compared=reason,
        )

    def _other(
        self, target: Target, ours: Deployed, theirs: Deployed | None
    ) -> tuple[dict[str, OnSet] | str | None, str | None]:
        """The champion's figures, or why there are none; and what the target runs it in."""
        if theirs is None:
            return None, None
        picked = theirs.picked_for(target)
        if picked is None:
            return NOTHING_THERE, None
        if theirs.card.keypoint_names != ours.card.keypoint_names:
            return "the champion's points are others", picked
        found = self.judged(theirs, picked)
        return (f"the champion's {found}" if isinstance(found, str) else found), picked

    def _figures(self, mine: OnSet, other: OnSet | None) -> SetFigures:
        draws = resamples(len(mine.ranking.persons), self.judge.times, self.judge.seed)
        same = other is not None and other.sha256 == mine.sha256
        own = Interval.of(mine.ranking.ap(), mine.ranking.resampled_ap(draws))
        difference = None
        if other is not None and same:
            difference = figure(PairedReference(other.ranking, draws).compare(mine.ranking).difference)
        slices = {}
        for name, part in mine.slices.items():
            persons = int(part.persons.sum())
            recall = figure(part.interval(draws)) if persons else None
            lost = None
            if other is not None and same and persons:
                lost = figure(part.difference(other.slices[name], draws))
            slices[name] = SliceFigures(persons=persons, recall=recall, difference=lost)
        return SetFigures(
            sha256=mine.sha256,
            images=len(mine.ranking.persons),
            ap=figure(own),
            champion_sha256=None if other is None else other.sha256,
            difference=difference,
            slices=slices,
        )


def accuracies(
    arena: Arena, targets: Sequence[Target], ours: Deployed, theirs: Deployed | None
) -> dict[str, Accuracy]:
    """Of every target, by its name."""
    return {target.name: arena.accuracy(target, ours, theirs) for target in targets}
