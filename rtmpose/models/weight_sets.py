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
COUNTERS = ("n_averaged", "steps")  # of averaged models, among their weights


def chosen_weights(content: object, path: Path | str) -> dict[str, Tensor]:
    """The weights that count among all that a file holds: of our training checkpoints the averaged ones
    (`ema`), else `model`; of others the first of `SETS`; a bare state dict as it is.

    `module.` and `_orig_mod.`, which wrappers put before a name, are cut, however they are nested. Raises
    UserError when there are none, when two names become one, or when one is not a dense tensor.
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
    return weights


def _innermost(content: object) -> object:
    for _ in range(LEVELS):
        if not isinstance(content, dict):
            return content
        sets = (content.get(name) for name in SETS)
        inner = next((one for one in sets if isinstance(one, dict) and any(_names_tensors(one))), None)
        if inner is None:
            return content
        content = inner
    return content


def _names_tensors(found: dict[str, Any]) -> Iterator[bool]:
    """Whether there are tensors in a set or in a set within it."""
    yield any(_tensors(found))
    yield any(isinstance(found.get(name), dict) and any(_tensors(found[name])) for name in SETS)


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
