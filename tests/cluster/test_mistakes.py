from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from rtmpose.cluster.mistakes import MistakeFile, as_value, raised
from rtmpose.data.shards.sample import DamagedSample
from rtmpose.files import UserError


def divide(number: int, by: int) -> int:
    if by == 0:
        raise UserError("params.yaml: by: 0 divides nothing; write another number")
    return number // by


@pytest.mark.parametrize("kind", [UserError, DamagedSample])
def test_a_mistake_crosses_as_a_value(kind: type[UserError]) -> None:
    def work() -> int:
        raise kind("a.tar: damaged; cut it again")

    assert raised(as_value(divide, 7, 2)) == 3
    arrived = pickle.loads(pickle.dumps(as_value(work)))
    with pytest.raises(kind, match=r"^a\.tar: damaged; cut it again$"):
        raised(arrived)


def test_other_errors_stay_exceptions() -> None:
    with pytest.raises(TypeError):
        as_value(divide, 7, "2")


def test_a_file_hands_a_mistake_over_once(tmp_path: Path) -> None:
    here = MistakeFile(tmp_path / "store")
    here.raise_left()
    there = pickle.loads(pickle.dumps(here))
    there.leave(UserError("b.tar: damaged"))
    assert here.is_left()
    with pytest.raises(UserError, match=r"^b\.tar: damaged$"):
        here.raise_left()
    here.clear()
    assert not there.is_left()
