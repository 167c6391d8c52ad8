"""A finetuning run that is killed again and again ends with the bits of an undisturbed one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.resume import faults


@pytest.mark.slow
def test_a_run_that_is_killed_twice_ends_bit_identical(tmp_path: Path) -> None:
    """Two of the kills of `python -m tests.faults.resume`, which is for twenty."""
    line = faults(tmp_path, 2, random.Random(1))
    assert line["tried"] >= 2 and line["survived"] == line["tried"] and line["bit_identical"], line
