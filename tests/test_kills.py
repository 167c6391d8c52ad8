"""A finetuning run that is killed again and again ends with the bits of an undisturbed one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.resume import faults


@pytest.mark.slow
def test_a_run_whose_worker_and_head_are_killed_ends_bit_identical(tmp_path: Path) -> None:
    """Two of the kills of `python -m tests.faults.resume`; `tests/test_faults.py` kills a driver."""
    line = faults(tmp_path, 2, random.Random(1))
    assert line["tried"] >= 2 and line["survived"] == line["tried"] and line["bit_identical"], line
