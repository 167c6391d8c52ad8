"""Whether the weights that a recipe starts from are there, and where they come from otherwise."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rtmpose.checkout import home
from rtmpose.config import Params
from rtmpose.descriptors import load_skeleton
from rtmpose.doctor.finding import Finding, lack, note
from rtmpose.doctor.fixes import Command
from rtmpose.released.catalogue import catalogue

TEACHERS = {"t": "l", "s": "l", "m": "l", "l": "x"}  # the published pairs (arXiv 2307.15880, section 4)
PEOPLE = "coco17"  # whose released weights others start from, where there are none of their own points


@dataclass(frozen=True)
class Origin:
    """Where a backbone in `weights/` comes from: the recipe, stage and file that make it, and the name of the
    released weights with {} for the size.
    """

    recipe: str
    stage: str
    file: str
    released: str


#: By the name of the file before its size: the table of docs/recipes.md.
ORIGINS = {
    "udp-aic-coco": Origin("coco17", "pretrain", "models/pretrain.pt", "cspnext-{}-udp-coco"),
    "udp-body8": Origin("body/body8", "pretrain", "models/pretrain.pt", "cspnext-{}-udp"),
    "udp-body8-384": Origin("body/body8_384", "pretrain", "models/pretrain.pt", "cspnext-{}-udp-384"),
    "body8": Origin("body/body8", "finetune", "models/rtmpose.pt", "rtmpose-{}-body17"),
    "body8-384": Origin("body/body8_384", "finetune", "models/rtmpose.pt", "rtmpose-{}-body17-384"),
}
IMAGENET = "imagenet"


def weights(params: Params, command: Command) -> Iterator[Finding]:
    """Whether the weights that the stages start from are there."""
    finetune, size = params.finetune, params.model.size
    if finetune.init is not None:
        yield _there("finetune.init", finetune.init, _finetuned(params, command))
    pretrains = params.pretrain.enabled or finetune.init is None
    if pretrains and params.pretrain.init is not None:
        yield _there("pretrain.init", params.pretrain.init, backbone(params.pretrain.init, command))
    if finetune.distill is not None and finetune.distill.teacher is not None:
        name = released(params, TEACHERS.get(size, ""), params.skeleton)
        fix = command.to(f"finetune.distill.teacher={name}")
        yield _there("finetune.distill.teacher", finetune.distill.teacher, fix)
    if finetune.init is None and params.pretrain.init is None and not params.pretrain.enabled:
        fix = _finetuned(params, command) if _like(params.skeleton) else command.to("pretrain.init=FILE")
        yield note("weights", "none are named: finetuning starts from random ones", fix)


def _there(key: str, path: str, fix: str) -> Finding:
    found = home(path)
    if found.is_file():
        return Finding("weights", f"{key}: {found}, {found.stat().st_size / 1e6:.0f} MB")
    return lack("weights", f"{key}: {found} is missing", fix)


def backbone(path: str, command: Command) -> str:
    """The command that puts a backbone where a recipe looks for it: the released one as a link, whose name
    keeps its terms, or one that is trained first; for any other file, the option that names one.
    """
    kind, _, size = Path(path).stem.rpartition("-")
    if kind == IMAGENET:
        without = command.to("pretrain.init=null")
        return f"put CSPNeXt-{size} of ImageNet there (docs/recipes.md), or from random weights: {without}"
    origin = ORIGINS.get(kind)
    if origin is None:
        return command.to("pretrain.init=FILE")
    folder, place = shlex.quote(str(Path(path).parent)), shlex.quote(path)
    name = origin.released.format(size)
    known = catalogue().weights.get(name)
    if known is not None and known.pth is not None:
        return f'mkdir -p {folder} && ln -sf "$(rtmpose weights pull {name}.pth)" {place}'
    trained = Command((f"recipe={origin.recipe}", f"model={size}")).to(stage=origin.stage)
    return f"{trained} && mkdir -p {folder} && cp {origin.file} {place}"


def _finetuned(params: Params, command: Command) -> str:
    skeleton = next(iter(_like(params.skeleton)), PEOPLE)
    return command.to(f"finetune.init={released(params, params.model.size, skeleton)}")


def _like(skeleton: str) -> list[str]:
    """The descriptors of released weights that have the points of a descriptor."""
    names = load_skeleton(skeleton).names
    known = dict.fromkeys(one.skeleton for one in catalogue().weights.values() if one.skeleton is not None)
    return [one for one in known if load_skeleton(one).names == names]


def released(params: Params, size: str, skeleton: str) -> str:
    """What to write where weights of poses are missing: released ones of that size, those points and the
    recipe's input, as the shell fetches them, or else a placeholder.
    """
    for name, each in catalogue().weights.items():
        fits = (each.network, each.size, each.skeleton) == ("rtmpose", size, skeleton)
        if fits and each.pth is not None and each.input == params.input_size:
            return f"$(rtmpose weights pull {name}.pth)"
    return "FILE"
