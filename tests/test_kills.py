"""A finetuning run that is killed again and again ends with the bits of an undisturbed one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.resume import faults


@pytest.mark.slow
def test_worker_driver_and_head_killed_in_one_run_that_ends_bit_identical(tmp_path: Path) -> None:
    """Three of the kills of `python -m tests.faults.resume`, which is for twenty."""
    line = faults(tmp_path, 3, random.Random(1))
    assert line["tried"] >= 3 and line["survived"] == line["tried"] and line["bit_identical"], line
