"""The gate that a precision passes or not, judged on what it costs at worst.

AP of a candidate and of PyTorch in fp32 is measured on the same images and boxes, the way that evaluation
measures it. What counts is the unfavourable end of the difference's paired 95 % interval: with few images it
is wide, and the gate then says no where nobody can tell. Latency is judged on what a benchmark measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtmpose.config import EvaluateParams
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.quantize.attempt import Attempt, Figure, SetFigures, refused
from rtmpose.deploy.runtimes.base import Infer, Precision
from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.bootstrap import Compared, Interval, PairedReference, Ranking, resamples
from rtmpose.evaluation.evaluator import Evaluator, Results
from rtmpose.files import UserError
from rtmpose.models import PoseOutput
from rtmpose.topdown import ThroughArrays

# Points of AP (of 100) that a precision may lose, at the unfavourable end of the interval. bf16 and int8, of
# about eight significant bits, may cost something in return for their speed. The others compute the same
# network.
MAY_LOSE: dict[Precision, float] = {"fp32": 0.1, "fp16": 0.1, "bf16": 0.5, "int8": 0.5}
# What two files of one model may say differently of themselves.
OF_A_FILE = frozenset({"precision", "measured", "quantization", "weight_bits", "git_commit", "version"})
SIGMA_DIGITS = 1e-3  # relative


class InRuntime(nn.Module):
    """A runtime's session as the network that an evaluator takes. Batches are filled up to the size that the
    session was opened for.
    """

    def __init__(self, infer: Infer, batch: int) -> None:
        super().__init__()
        self.network, self.batch = ThroughArrays(infer), batch

    def forward(self, images: Tensor) -> PoseOutput:
        count = len(images)
        parts = []
        for part in images.split(self.batch):
            parts.append(self.network(F.pad(part, (0, 0, 0, 0, 0, 0, 0, self.batch - len(part)))))
        if isinstance(parts[0], Tensor):
            return torch.cat([part for part in parts if isinstance(part, Tensor)])[:count]
        x, y = (torch.cat([part[axis] for part in parts])[:count] for axis in (0, 1))
        return x, y


@dataclass(frozen=True)
class Judge:
    """Measures AP on evaluation sets, in ground-truth boxes and without flip test: what a deployed file does
    by itself.
    """

    card: ModelCard
    sets: Mapping[str, Path]
    params: EvaluateParams
    times: int = 1000
    seed: int = 0

    def results(self, network: nn.Module) -> dict[str, tuple[Results, dict[str, Any]]] | None:
        """A network's poses on every set as COCO results, and the set's ground truth; None where a pose is
        not finite.
        """
        skeleton = load_skeleton(self.card.skeleton)
        judge = Evaluator(network, self.card.codec(), skeleton, self.params, "fp32", torch.device("cpu"))
        found = {}
        for name, folder in self.sets.items():
            figures, results, truth = judge.without_flip().shards(folder)
            if math.isnan(figures["AP"]):
                return None
            if figures["AP"] < 0:
                raise UserError(f"{folder}: no annotation is a person with a labelled point; judge on others")
            found[name] = results, truth
        return found

    def rankings(self, network: nn.Module) -> dict[str, Ranking] | None:
        """The ranking of a network's poses on every set; None where they are not finite."""
        sigmas = load_skeleton(self.card.skeleton).sigmas
        found = self.results(network)
        if found is None:
            return None
        return {name: Ranking.of(truth, poses, sigmas) for name, (poses, truth) in found.items()}

    def reference(self, network: nn.Module) -> Reference:
        """What candidates are compared with; UserError where its own poses are not finite."""
        rankings = self.rankings(network)
        if rankings is None:
            raise UserError("the network itself gives points that are not finite; train or export it again")
        return Reference(
            self,
            {
                name: PairedReference(ranking, resamples(len(ranking.persons), self.times, self.seed))
                for name, ranking in rankings.items()
            },
        )


@dataclass(frozen=True)
class Reference:
    """The network in PyTorch fp32 on every set."""

    judge: Judge
    sets: Mapping[str, PairedReference]

    def figures(self) -> dict[str, Figure]:
        """Its own AP on every set."""
        return {name: figure(Interval.of(one.ranking.ap(), one.resampled)) for name, one in self.sets.items()}

    def compared(self, network: nn.Module) -> dict[str, SetFigures] | None:
        """A candidate's figures on every set; None where its points are not finite."""
        rankings = self.judge.rankings(network)
        if rankings is None:
            return None
        return {name: _figures(one, one.compare(rankings[name])) for name, one in self.sets.items()}


def _figures(reference: PairedReference, compared: Compared) -> SetFigures:
    images = len(reference.ranking.persons)
    return SetFigures(images=images, ap=figure(compared.ap), difference=figure(compared.difference))


def figure(interval: Interval) -> Figure:
    """Fractions of 1 as points of 100."""
    value, low, high = (round(100 * part, 4) for part in (interval.value, interval.low, interval.high))
    return Figure(value=value, low=low, high=high)


def judged(attempt: Attempt, figures: Mapping[str, SetFigures] | None) -> Attempt:
    """The attempt with its figures and the reasons why accuracy refuses it. The first set decides: it is the
    one whose AP is reported; others are recorded beside it.
    """
    if figures is None:
        return refused(attempt, "its points are not finite (NaN or infinity)")
    attempt = attempt.model_copy(update={"sets": dict(figures)})
    name, first = next(iter(figures.items()))
    lost, allowed = first.difference, MAY_LOSE[attempt.precision]
    if not -lost.low <= allowed:
        return refused(
            attempt,
            f"may lose {-lost.low:.2f} points of AP on {name} ({first.images} images; {lost.value:+.2f}, "
            f"interval {lost.low:+.2f} to {lost.high:+.2f}), {allowed} are allowed",
        )
    return attempt


def card_reasons(card: ModelCard, trained: ModelCard, sigma: Sequence[float] | None) -> list[str]:
    """Why a file's card says that it is not the model that was trained: fields that differ from the exported
    model's, and SimCC's σ in bins that is missing or not the training's (`sigma`; None: not known).
    """
    ours, theirs = (one.model_dump(exclude=set(OF_A_FILE)) for one in (card, trained))
    reasons = [
        f"its card says {key} {ours[key]}, the exported model's {theirs[key]}"
        for key in ours
        if ours[key] != theirs[key]
    ]
    if sigma is not None and card.sigma is None:
        reasons.append(f"its card says no σ, training used {list(sigma)}")
    elif sigma is not None and card.sigma is not None and not _alike(card.sigma, sigma):
        reasons.append(f"its card says σ {list(card.sigma)} bins, training used {list(sigma)}")
    return reasons


def _alike(some: Sequence[float], others: Sequence[float]) -> bool:
    return all(
        math.isclose(one, other, rel_tol=SIGMA_DIGITS) for one, other in zip(some, others, strict=True)
    )
