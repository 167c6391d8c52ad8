"""The fuzzer's own workings, and a bounded run of it; `python -m tests.faults.fuzz` tries a thousand."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from rtmpose.files import UserError
from tests.faults import fuzz as fuzzer
from tests.faults.fuzz import OUTCOMES, attempt, drawn, fuzz
from tests.faults.kind import Kind
from tests.faults.mutations import changed, damaged


def test_damaged_and_hostile_inputs_are_refused_or_read_right() -> None:
    line, wrong = fuzz(seed=7, count=120)
    assert wrong == [] and line["tried"] == 120
    assert sum(line[name] for name in OUTCOMES) == 120 and line["clear"] > 45 and line["fine"] > 15


def kind_of(read: object, name: str = "kind") -> Kind:
    return Kind(name, lambda rng: Path("/nowhere/input.json"), read)  # type: ignore[arg-type]


def refuse(text: str) -> object:
    def read() -> bool:
        raise UserError(text)

    return read


def defect() -> bool:
    raise KeyError("a")


def endless() -> bool:
    while True:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (lambda: True, "fine"),
        (lambda: False, "silent"),
        (refuse("input.json: is damaged"), "clear"),
        (refuse("something is damaged"), "traceback"),
        (defect, "traceback"),
        (endless, "hang"),
    ],
)
def test_every_outcome_is_told_from_the_others(
    monkeypatch: pytest.MonkeyPatch, read: object, outcome: str
) -> None:
    monkeypatch.setattr(fuzzer, "SECONDS", 0.2)
    before = signal.signal(signal.SIGALRM, fuzzer._too_slow)
    try:
        assert attempt(kind_of(read), np.random.default_rng(0))[0] == outcome
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_process_that_ends_is_counted_and_the_rest_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash() -> bool:
        os.kill(os.getpid(), signal.SIGKILL)
        return True

    made = [kind_of(lambda: True), kind_of(crash, "crash")]
    monkeypatch.setattr(fuzzer, "kinds", lambda folder: made)
    line, wrong = fuzz(seed=0, count=12)
    crashes = sum(drawn(made, 0, number)[0].name == "crash" for number in range(12))
    assert line["tried"] == 12 and line["traceback"] == crashes > 0 and line["fine"] == 12 - crashes
    assert all("crash: the process ended with -9" in text for text in wrong)


def test_the_same_seed_makes_the_same_damage() -> None:
    content, tree = bytes(range(256)) * 9, {"a": [1, {"b": 2.5}], "c": "text"}
    for number in range(40):
        first, second = (np.random.default_rng((3, number)) for _ in range(2))
        assert damaged(content, first) == damaged(content, second)
        assert repr(changed(tree, first)) == repr(changed(tree, second))
    assert tree == {"a": [1, {"b": 2.5}], "c": "text"}
