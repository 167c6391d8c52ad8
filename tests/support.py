"""What the tests share: where reference vectors and real data lie, and the tolerance of the golden
comparisons.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from rtmpose.machine import bf16_instructions

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


# For tests of what a CPU computes in bf16: others emulate it, which takes minutes.
bf16_cpu = pytest.mark.skipif(not bf16_instructions(), reason="needs a CPU with bf16 instructions")


def golden(name: str) -> Path:
    """The reference file `name`: the committed copy, else the shared one; the test skips where neither
    exists.
    """
    for folder in (ROOT / "tests" / "golden", SHARED / "golden"):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"golden/{name} is not on this machine (it lies in ../shared/golden)")


def realdata(relative: str = "") -> Path:
    """A file or folder of ../shared/realdata; the test skips where it is absent."""
    path = SHARED / "realdata" / relative
    if not path.exists():
        pytest.skip(f"../shared/realdata/{relative} is not on this machine")
    return path


def assert_golden(actual: object, expected: object, f32_vs_f64: float = 0.0) -> None:
    """|actual - expected| <= max(1e-4, 4 x how far float32 itself was from float64 in the reference run)."""
    difference = np.abs(np.asarray(actual, np.float64) - np.asarray(expected, np.float64))
    tolerance = max(1e-4, 4.0 * float(f32_vs_f64))
    assert difference.size > 0 and np.isfinite(difference).all(), "empty or non-finite comparison"
    assert difference.max() <= tolerance, f"max difference {difference.max():.3g} > {tolerance:.3g}"


def det_rng(name: str) -> np.random.Generator:
    """The generator that the reference vectors were made with, keyed by a name."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def det_input(shape: tuple[int, ...], name: str = "input") -> np.ndarray:
    """The network input of the reference vectors: standard normal float32 (N, 3, H, W)."""
    return det_rng(name).standard_normal(shape).astype(np.float32)


def det_tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The state-dict entry `key` of the reference networks, by the formula the reference vectors were made
    with.
    """
    rng, leaf, rank = det_rng(key), key.rsplit(".", 1)[-1], len(shape)
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf in ("running_var", "g", "scale"):
        values = rng.uniform(0.5, 1.5, shape)
    elif leaf in ("running_mean", "beta"):
        values = 0.1 * rng.standard_normal(shape)
    elif leaf == "bias":
        values = 0.02 * rng.standard_normal(shape)
    elif leaf == "gamma":
        values = rng.standard_normal(shape)
    elif rank == 1:
        values = rng.uniform(0.8, 1.2, shape)
    elif rank == 4:
        values = rng.standard_normal(shape) * (1.55 / np.sqrt(np.prod(shape[1:])))
    else:
        values = rng.standard_normal(shape) * (1.6 / np.sqrt(shape[1]))
    return values.astype(np.float32)
