"""A kind of input: a valid file, how it is damaged, who reads it, and what must hold of what was read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.mutations import changed, damaged

Rng = np.random.Generator


@dataclass(frozen=True)
class Kind:
    """A kind of input. `spoil(rng)` writes one damaged input and returns the file that a message must name;
    `read()` uses it and says whether the result is right: equal to the undamaged one where checksums promise
    that, else finite and in its bounds. A `UserError` is the other right answer. `share` weighs how often the
    kind is drawn.
    """

    name: str
    spoil: Callable[[Rng], Path]
    read: Callable[[], bool]
    share: float = 1.0


def of_bytes(path: Path, content: bytes) -> Callable[[Rng], Path]:
    def spoil(rng: Rng) -> Path:
        path.write_bytes(damaged(content, rng))
        return path

    return spoil


def of_tree(path: Path, tree: Any, dump: Callable[[Any], bytes]) -> Callable[[Rng], Path]:
    """Mostly the values are changed, sometimes the bytes too, sometimes the bytes alone."""

    def spoil(rng: Rng) -> Path:
        content = dump(changed(tree, rng) if rng.random() < 0.8 else tree)
        if rng.random() < 0.3:
            content = damaged(content, rng)
        path.write_bytes(content)
        return path

    return spoil


def finite(tree: Any) -> bool:
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    return (not isinstance(tree, float) or math.isfinite(tree)) and all(map(finite, values))
