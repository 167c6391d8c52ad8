"""Load weights into a network, from our own files and official MMPose checkpoints, without running what they
contain.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rtmpose.files import UserError, write_atomic
from rtmpose.models.archive import read_checkpoint
from rtmpose.models.cspnext import HARDSWISH, SIZES
from rtmpose.models.weight_sets import chosen_weights, shown


def save_tensors(path: Path, content: Mapping[str, Any]) -> str:
    """Write what `torch.load(…, weights_only=True)` reads, under a temporary name first; the
    file's sha256.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    data = buffer.getvalue()
    write_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Mismatch:
    """What did not fit: keys of the model that the file lacks, keys only the file has, keys whose shapes
    differ.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    wrong_shape: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not (self.missing or self.unexpected or self.wrong_shape)

    def __str__(self) -> str:
        if self.ok:
            return "All weights of the model were loaded."
        missing = tuple(key for key in self.missing if key != HARDSWISH)
        kinds = (
            ("kept their initial values because the file lacks them", missing),
            ("kept their initial values because their shapes differ", self.wrong_shape),
            ("of the file have no place in the model", self.unexpected),
        )
        found = [f"{len(keys)} weights {what}: {_some(keys)}." for what, keys in kinds if keys]
        if HARDSWISH in self.missing:
            found.append("They were trained with SiLU, and go on with hard-swish.")
        return " ".join(found)


def _some(keys: tuple[str, ...]) -> str:
    return ", ".join(map(shown, keys[:4])) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")


def load_weights(model: nn.Module, path: Path | str, prefix: str | None = None) -> Mismatch:
    """Copy the weights in `path` into `model` and return what did not match.

    `chosen_weights` says which of the sets in a file these are, and which names its keys get.

    With `prefix` (such as `"backbone."`) only keys that begin with it are loaded and compared. A head of
    other shape is left alone and reported. Raises `UserError`, with the model untouched, when the file is no
    checkpoint, when nothing in it fits, when its backbone is of another size or was trained with hard-swish
    and the model has SiLU, and when a weight that fits is no dense tensor of finite numbers.
    """
    weights = read_weights(path)
    own = {key: value for key, value in model.state_dict().items() if key.startswith(prefix or "")}
    found = {key: value for key, value in weights.items() if key.startswith(prefix or "")}
    if HARDSWISH in found and HARDSWISH not in own:
        raise UserError(f"{path}: was trained with hard-swish; set model.activation to hardswish")
    wrong = tuple(key for key in own if key in found and found[key].shape != own[key].shape)
    for key in wrong:
        if key.startswith("backbone."):
            shapes = f"{tuple(found[key].shape)} in the file, {tuple(own[key].shape)} in the model"
            raise UserError(f"{path}: {key} is {shapes}; {_fix(weights)}")
    fitting = {key: found[key] for key in own if key in found and key not in wrong}
    if not fitting:
        which = f" that begins with {prefix!r}" if prefix else ""
        raise UserError(
            f"{path}: holds no weight of this model{which}: its names are such as "
            f"{shown(next(iter(weights)))}, the model's such as {next(iter(own), prefix)}; give a checkpoint "
            "of this model, or rename them"
        )
    model.load_state_dict(_numbers(fitting, own, path), strict=False)
    missing, unexpected = (tuple(key for key in a if key not in b) for a, b in ((own, found), (found, own)))
    return Mismatch(missing, unexpected, wrong)


def _numbers(fitting: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path | str) -> dict[str, Tensor]:
    """The weights in the model's own types; UserError naming the first that would not be what the file says,
    or that no network can compute with.
    """
    converted: dict[str, Tensor] = {}
    bad: dict[str, int] = {}
    for key, value in fitting.items():
        wanted = own[key].dtype
        # A counter may have been averaged with the weights; a weight that is a whole number is another thing.
        if (
            value.dtype.is_complex
            or value.dtype == torch.bool
            or (wanted.is_floating_point and not value.is_floating_point())
        ):
            name = str(value.dtype).removeprefix("torch.")
            raise UserError(f"{path}: {key} holds {name} numbers; give weights in fp32, fp16 or bf16")
        converted[key] = value.to(wanted)
        # A number that is finite in fp64 may not be in fp32.
        unfit = ~(value.isfinite() & converted[key].isfinite())
        if key.endswith(".running_var"):
            unfit |= value < 0
        if count := int(unfit.sum()):
            bad[key] = count
    if bad:
        first = next(iter(bad))
        what = "negative or not finite" if first.endswith(".running_var") else "not finite (NaN or infinite)"
        raise UserError(
            f"{path}: {first}: {bad[first]} of its {fitting[first].numel()} numbers are {what}; so are "
            f"some of {len(bad) - 1} other weights; take a checkpoint from before training diverged"
        )
    return converted


PARAMS_FIX = "params.yaml's model, input_size and skeleton must be those trained"


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The weights that count among all that a checkpoint holds, by the names the network gives them."""
    return chosen_weights(read_checkpoint(path), path)


def load_exactly(model: nn.Module, weights: Path, fix: str = PARAMS_FIX) -> None:
    """Load `weights` into `model`; UserError naming the first key that is missing, unexpected or of another
    shape, and the `fix`.
    """
    if not weights.is_file():
        raise UserError(f"{weights}: no such file; run the finetune stage, or give trained weights")
    mismatch = load_weights(model, weights)
    for problem in ("wrong_shape", "missing", "unexpected"):
        if keys := list(getattr(mismatch, problem)):
            what = f"{len(keys)} {problem.replace('_', ' ')} key(s), first '{keys[0]}'"
            raise UserError(f"{weights}: {what}; {fix}")


def _fix(weights: Mapping[str, Tensor]) -> str:
    """The way out when the file is of one of the known sizes, recognised by the width of its stem."""
    stem = weights.get("backbone.stem.2.conv.weight")
    for size, scale in SIZES.items():
        if stem is not None and len(stem) == scale.channels(64):
            heatmap = any(key.startswith("head.deconv_layers.") for key in weights)
            call = f"build_pose_net('{size}', head='heatmap')" if heatmap else f"build_pose_net('{size}')"
            return f"this file is for RTMPose-{size}: choose that size (model.size, --size {size}, or {call})"
    return "choose the model that this file was trained for"
