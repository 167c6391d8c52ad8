"""Load weights into a network, from our own files and official MMPose checkpoints, without running what they
contain.

A `.pth` file is a pickle, and unpickling may call anything the file names. PyTorch's `weights_only` reader is
tried first. It refuses official training checkpoints, whose `message_hub` holds instances of classes; those
files go through `RestrictedUnpickler`, which imports nothing: it knows how to rebuild tensors, and everything
else the file names becomes an inert `Placeholder`.
"""

from __future__ import annotations

import functools
import hashlib
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from rtmpose.files import UserError, write_atomic
from rtmpose.models.cspnext import SIZES

STORAGES: Mapping[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


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
        kinds = (
            ("kept their initial values because the file lacks them", self.missing),
            ("kept their initial values because their shapes differ", self.wrong_shape),
            ("of the file have no place in the model", self.unexpected),
        )
        return " ".join(f"{len(keys)} weights {what}: {_some(keys)}." for what, keys in kinds if keys)


def _some(keys: tuple[str, ...]) -> str:
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")


def load_weights(model: nn.Module, path: Path | str, prefix: str | None = None) -> Mismatch:
    """Copy the weights in `path` into `model` and return what did not match.

    Which weights: of our training checkpoints the averaged ones (`ema`), else `model`; of MMPose's files
    `state_dict`. MMEngine swaps the two sets when it saves, so that its `state_dict` is the averaged one, and
    `ema_state_dict`, in spite of its name, the one the optimizer works on. A bare state dict is taken as it
    is; `module.` prefixes are cut.

    With `prefix` (such as `"backbone."`) only keys that begin with it are loaded and compared. A head of
    other shape is left alone and reported. Raises `UserError`, with the model untouched, when the file is no
    checkpoint, when nothing in it fits, or when its backbone is of another size.
    """
    weights = _state_dict(read_checkpoint(path), path)
    own = {key: value for key, value in model.state_dict().items() if key.startswith(prefix or "")}
    found = {key: value for key, value in weights.items() if key.startswith(prefix or "")}
    wrong = tuple(key for key in own if key in found and found[key].shape != own[key].shape)
    for key in wrong:
        if key.startswith("backbone."):
            shapes = f"{tuple(found[key].shape)} in the file, {tuple(own[key].shape)} in the model"
            raise UserError(f"{path}: {key} is {shapes}; {_fix(weights)}")
    fitting = {key: found[key] for key in own if key in found and key not in wrong}
    if not fitting:
        raise UserError(
            f"{path}: holds no weight of this model{f' that begins with {prefix!r}' if prefix else ''}"
        )
    model.load_state_dict(fitting, strict=False)
    missing, unexpected = (tuple(key for key in a if key not in b) for a, b in ((own, found), (found, own)))
    return Mismatch(missing, unexpected, wrong)


def load_exactly(model: nn.Module, weights: Path) -> None:
    """Load `weights` into `model`; UserError naming the first key that is missing, unexpected or of another
    shape.
    """
    if not weights.is_file():
        raise UserError(f"{weights}: no such file; run the finetune stage")
    mismatch = load_weights(model, weights)
    for problem in ("wrong_shape", "missing", "unexpected"):
        if keys := list(getattr(mismatch, problem)):
            what = f"{len(keys)} {problem.replace('_', ' ')} key(s), first '{keys[0]}'"
            raise UserError(
                f"{weights}: {what}; params.yaml's model, input_size and skeleton must be those trained"
            )


def _fix(weights: Mapping[str, Tensor]) -> str:
    """The way out when the file is of one of the known sizes, recognised by the width of its stem."""
    stem = weights.get("backbone.stem.2.conv.weight")
    for size, scale in SIZES.items():
        if stem is not None and len(stem) == scale.channels(64):
            heatmap = (
                ", head='heatmap'" if any(key.startswith("head.deconv_layers.") for key in weights) else ""
            )
            return f"this file is for RTMPose-{size}: use build_pose_net('{size}'{heatmap})"
    return "choose the model that this file was trained for"


def _state_dict(content: object, path: Path | str) -> dict[str, Tensor]:
    """The set of weights that counts among all that a file holds, by the names the network gives them."""
    chosen = content
    if isinstance(content, dict):
        sets = (content.get(name) for name in ("ema", "model", "state_dict"))
        chosen = next((one for one in sets if isinstance(one, dict) and one), content)
    items = chosen.items() if isinstance(chosen, dict) else ()
    weights = {str(key).removeprefix("module."): value for key, value in items if isinstance(value, Tensor)}
    if not weights:
        raise UserError(f"{path}: holds no model weights; give a .pth file with a state dict")
    return weights


def read_checkpoint(path: Path | str) -> Any:
    """What a checkpoint holds, tensors on the CPU; classes it names are never imported. `UserError` for other
    files.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give the path of a .pth checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as refusal:  # a damaged or hostile file may fail in any way; the second reader decides
        try:
            return _read_restricted(Path(path))
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"{path}: not a readable checkpoint, or cut short ({reason}); fetch it again"
            ) from refusal


class Placeholder:
    """Stands for whatever a file names that is not a tensor; swallows every argument and state,
    does nothing.
    """

    def __new__(cls, *_: Any, **__: Any) -> Placeholder:
        return object.__new__(cls)

    def _swallow(*_: Any, **__: Any) -> None:
        """No `self`: pickle may hand the class itself where an instance belongs."""

    def __call__(self, *_: Any, **__: Any) -> Placeholder:
        return self

    __init__ = __setstate__ = __setitem__ = append = extend = add = _swallow


class _Dict(dict[Any, Any]):
    """A plain dict for `OrderedDict`, whose pickled attributes (`_metadata`) are not taken over."""

    def __setstate__(self, state: object) -> None:
        pass


class RestrictedUnpickler(pickle.Unpickler):
    """Rebuilds containers and tensors; `storage(key, dtype, count)` gives the flat tensor that a storage
    holds.
    """

    def __init__(self, file: IO[bytes], storage: Callable[[str, torch.dtype, int], Tensor]) -> None:
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Dict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        # A new function each time, for a pickle may also set attributes of what it is given.
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return lambda flat, offset, size, stride, *_: torch.as_strided(flat, size, stride, offset)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        return Placeholder

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, count = pid[:5]
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            return Placeholder()
        return self._storage(str(key), dtype, int(count))


def _read_restricted(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        return _read_legacy(path)
    with zipfile.ZipFile(path) as archive:
        [pickled] = [
            name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        folder = pickled.removesuffix("data.pkl")

        @functools.cache  # tensors may share a storage
        def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            return _flat(archive.read(f"{folder}data/{key}"), dtype, count)

        return RestrictedUnpickler(io.BytesIO(archive.read(pickled)), storage).load()


def _read_legacy(path: Path) -> Any:
    """Files from before zip archives: pickles of magic, version, system, content, storage keys; then the
    storages.
    """
    storages: dict[str, Tensor] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        return storages.setdefault(key, torch.zeros(count, dtype=dtype))

    with path.open("rb") as file:
        *_, content, keys = [RestrictedUnpickler(file, storage).load() for _ in range(5)]
        for key in keys:
            file.seek(8, io.SEEK_CUR)  # the count, known already
            flat = storages[key]
            flat.copy_(_flat(file.read(flat.nbytes), flat.dtype, len(flat)))
    return content


def _flat(data: bytes, dtype: torch.dtype, count: int) -> Tensor:
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"a storage of {len(data)} bytes where {count * dtype.itemsize} belong")
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
