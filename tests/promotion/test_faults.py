"""Races and kills, a few of each; `python -m tests.faults.promotion` does more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults import promotion
from tests.tracking.servers import needs_postgres, postgres

pytestmark = pytest.mark.slow


def test_one_of_two_wins_and_a_kill_leaves_a_whole_state(tmp_path: Path) -> None:
    with promotion.store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path):
        assert promotion.races(2) == {"tried": 2, "whole": 2}
        found = promotion.kills(2, random.Random(2))
    assert (found["tried"], found["whole"]) == (2, 2)


@needs_postgres
def test_one_of_two_wins_on_postgresql(tmp_path: Path) -> None:
    with postgres(tmp_path) as uri, promotion.store(uri, tmp_path):
        assert promotion.races(2) == {"tried": 2, "whole": 2}
