"""Which of the sets of weights in a checkpoint counts, and the names that the network gives them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from rtmpose.files import UserError
from rtmpose.models.pickled import Unusable

# The first that is there counts. MMEngine swaps its two sets when it saves: there `state_dict` is the
# averaged one, and `ema_state_dict`, in spite of its name, the one the optimizer works on.
SETS = (
    "ema", "state_dict_ema", "model_ema", "ema_model", "model_ema_state_dict", "ema_weights",
    "model", "state_dict", "model_state_dict", "ema_state_dict",
    "module", "shadow", "weights",
)  # fmt: skip
LEVELS = 4  # of sets within sets, such as {"ema": {"module": {...}}}
WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and EMA, and of torch.compile
PARTS = ("backbone", "head")  # of a network, before whose names nothing belongs
# The share of the largest set's tensors from which on another is a set: averages may lack the statistics.
WHOLE = 0.25
COUNTERS = ("n_averaged", "steps")  # of averaged models, among their weights


def chosen_weights(content: object, path: Path | str) -> dict[str, Tensor]:
    """The weights that count among all that a file holds: of our training checkpoints the averaged ones
    (`ema`), else `model`; of others the first of `SETS`; a bare state dict as it is.

    `module.` and `_orig_mod.`, which wrappers put before a name, are cut, however they are nested, and so is
    an attribute that holds the whole network. Raises UserError when there are none, when two names become
    one, or when one is not a dense tensor.
    """
    weights: dict[str, Tensor] = {}
    for key, value in _tensors(_innermost(content)):
        name = plain_name(key)
        if isinstance(value, Unusable):
            raise UserError(f"{path}: {shown(name)} is a tensor {value.kind}; save plain dense tensors")
        if name in weights:
            raise UserError(f"{path}: {shown(name)} is there twice, as {shown(key)} too; keep one of the two")
        if name not in COUNTERS:
            weights[name] = value
    if not weights:
        raise UserError(f"{path}: holds no model weights; give a .pth file with a state dict")
    return _unwrapped(weights)


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the attribute under which another class, such as a LightningModule, holds the whole
    network: `model.backbone.stem…` → `backbone.stem…`, where all names begin so.
    """
    holders = {name.partition(".")[0] for name in weights}
    inner = {plain_name(name.partition(".")[2]): value for name, value in weights.items()}
    if len(holders) > 1 or holders & set(PARTS) or len(inner) < len(weights):
        return weights
    return inner if any(name.partition(".")[0] in PARTS for name in inner) else weights


def _innermost(content: object) -> object:
    for _ in range(LEVELS):
        if not isinstance(content, dict):
            return content
        sets = (content.get(name) for name in SETS)
        counted = [(one, _count(one)) for one in sets if isinstance(one, dict)]
        most = max((count for _, count in counted), default=0)
        if most == 0 or most < WHOLE * sum(1 for _ in _tensors(content)):
            return content
        # An average's settings, such as its decay as a tensor, are no set of weights.
        content = next(one for one, count in counted if count >= WHOLE * most)
    return content


def _count(found: dict[str, Any]) -> int:
    """How many tensors there are in a set, or in the largest set within it."""
    inner = (found.get(name) for name in SETS)
    return max(sum(1 for _ in _tensors(one)) for one in (found, *inner))


def _tensors(found: object) -> Iterator[tuple[str, Tensor | Unusable]]:
    if isinstance(found, dict):
        yield from ((key, value) for key, value in found.items() if isinstance(value, Tensor | Unusable))


def plain_name(key: str) -> str:
    """A weight's name without what wrappers put before it: `module._orig_mod.head.gau.w` → `head.gau.w`."""
    parts = [part for part in key.split(".") if part != "_orig_mod"]
    while parts[:1] == ["module"]:
        parts = parts[1:]
    return ".".join(parts)


def shown(key: str) -> str:
    """A name from a file, fit for one line of text."""
    return key if key.isprintable() and len(key) <= 80 else f"{key[:80]!a}"
