"""Pixel transforms of the package Albumentations by name, from `params.yaml`; no other module imports it.

    pixels:
      - {name: Blur, p: 0.1, blur_limit: [3, 7]}
      - {name: CLAHE, p: 0.05, clip_limit: 2.0}

Each transform is built once, as one that always happens. Whether it does, and by which seed, is drawn by
`rtmpose.data.stream.augment` from the sample's own generator, so that a run stays the same run however it is
split or resumed. (Seeding a `Compose` of transforms instead gives all of them the same seed: their coins then
fall together.)
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rtmpose.config import Params, PixelTransform, setup_environment
from rtmpose.files import UserError

OWN = ("name", "p")  # keys of an entry that are ours; the others are arguments of the transform


class Transform(Protocol):
    """A transform that always happens, by the seed it was given last."""

    def set_random_seed(self, seed: int) -> None: ...

    def __call__(self, *, image: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]: ...


class Impossible(UserError):
    """An entry that is no pixel transform; `key` is the one that is wrong, empty for the entry as a whole."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"params.yaml: pixels: {key}: {reason}")
        self.key, self.reason = key, reason

    def __reduce__(self) -> tuple[type[Impossible], tuple[str, str]]:
        return type(self), (self.key, self.reason)


@cache
def built(entries: tuple[PixelTransform, ...]) -> tuple[Transform, ...]:
    """The transforms of a recipe's list, in its order; an empty list imports nothing."""
    return tuple(build(entry) for entry in entries)


def check_pixels(params: Params) -> None:
    """Build and try all that the parameters list, before any work begins: a mistake in finetuning's list is
    found before pretraining.

    Raises UserError naming the key in `params.yaml`: for a transform that Albumentations does not have or
    that moves points as well, for an argument it does not take, for a value it refuses, for a result that is
    no uint8 RGB image of the same size, and where the package is missing.
    """
    for stage, train in (("pretrain", params.pretrain), ("finetune", params.finetune)):
        for part, augment in (("strong", train.strong), ("weak", train.weak)):
            for number, entry in enumerate(augment.pixels):
                try:
                    _try(build(entry))
                except Impossible as error:
                    key = f"{stage}.{part}.pixels.{number}" + (f".{error.key}" if error.key else "")
                    raise UserError(f"params.yaml: {key}: {error.reason}") from None


def build(entry: PixelTransform) -> Transform:
    """The transform of one entry; Impossible, naming the key, where there is no such transform."""
    kind = _kind(_package(), entry.name)
    arguments = dict(entry.model_extra or {})
    known = [name for name in inspect.signature(kind).parameters if name not in (*OWN, "strict")]
    for name in arguments:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            fix = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known) or 'none'}"
            raise Impossible(name, f"{entry.name} has no such argument; {fix}")
    with _refusals(), warnings.catch_warnings():
        warnings.simplefilter("error")  # what it would replace by a default, or correct in silence
        transform: Transform = kind(p=1.0, **arguments)
    return transform


def _package() -> ModuleType:
    setup_environment()  # turns off the package's look for updates
    try:
        import albumentations
    except ImportError as error:
        fix = "install rtmpose's dependencies again, or write pixels: []"
        raise Impossible("", f"the package albumentations cannot be imported ({error}); {fix}") from error
    return albumentations


def _kind(package: ModuleType, name: str) -> type:
    found = {key: value for key, value in vars(package).items() if inspect.isclass(value)}
    kinds = sorted(
        key
        for key, value in found.items()
        if issubclass(value, package.ImageOnlyTransform) and value is not package.ImageOnlyTransform
    )
    if name in kinds:
        return found[name]
    if name in found and issubclass(found[name], package.BasicTransform):
        fix = "only transforms of the pixels alone can stand here (flip, shift, scale, rotate, hole are keys)"
        raise Impossible("name", f"{name} changes more than an image's colours and sharpness; {fix}")
    near = [key for key in kinds if key.lower() == name.lower()] or difflib.get_close_matches(name, kinds, 1)
    fix = f"did you mean {near[0]}?" if near else "such as Blur, CLAHE, GaussNoise, RandomGamma"
    raise Impossible("name", f"albumentations {package.__version__} has no pixel transform {name}; {fix}")


def _try(transform: Transform) -> None:
    """Impossible where the result is no uint8 RGB image of the same size."""
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    transform.set_random_seed(0)
    with _refusals():
        shown = transform(image=image)["image"]
    if shown.shape != image.shape or shown.dtype != image.dtype:
        channels = "x".join(str(side) for side in shown.shape)
        raise Impossible(
            "", f"gives {shown.dtype} {channels} for uint8 64x48x3; the network's input is normalised later"
        )


@contextmanager
def _refusals() -> Iterator[None]:
    """Whatever the package raises, as one line; of a pydantic error the first problem, with its argument."""
    try:
        yield
    except Exception as error:  # transforms raise what they like: ValueError, TypeError, KeyError, cv2.error
        cause = error.__cause__
        if isinstance(cause, ValidationError):
            first = cause.errors()[0]
            where: Sequence[Any] = first["loc"]
            raise Impossible(str(where[0]) if where else "", first["msg"]) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        warned = isinstance(error, Warning)
        raise Impossible("", f"would not be done as written: {reason}" if warned else reason) from error
