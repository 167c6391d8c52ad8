"""What can be set of a tracker."""

from __future__ import annotations

from typing import Any

import pytest

from rtmpose.files import UserError
from rtmpose.motion.options import SURE, TrackOptions


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("every", 0, "a whole number from 1"),
        ("every", 2.5, "a whole number"),
        ("every", True, "a whole number"),
        ("padding", 0.9, "a number from 1 up to 3"),
        ("visible", float("nan"), "a number from 0 up to 1"),
        ("similar", 0, "a number above 0 and below 1"),
        ("memory", float("inf"), "a number from 0"),
        ("cutoff", "1", "a number"),
        ("smooth", 1, "true or false"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: Any, fix: str) -> None:
    with pytest.raises(UserError, match=f"^{name}: is .*; give {fix}$"):
        TrackOptions(**{name: value})


def test_every_option_is_checked() -> None:
    for name in TrackOptions.names():
        with pytest.raises(UserError, match=f"^{name}: "):
            TrackOptions(**{name: None})  # type: ignore[arg-type]


def test_whole_numbers_serve_as_numbers() -> None:
    assert TrackOptions(cutoff=2, memory=0).cutoff == 2


def test_what_is_drawn_is_followed() -> None:
    usual = TrackOptions(every=7)
    assert usual.at(0.5) == usual and usual.at(SURE) == usual
    low = usual.at(0.1)
    assert (low.visible, low.present, low.every) == (0.1, 0.1, 7)
