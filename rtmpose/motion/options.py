"""What can be set of a tracker: each value with its unit, checked when the options are made."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from rtmpose.files import UserError

SURE = 0.5  # confidence from which a point is drawn and counted


@dataclass(frozen=True)
class TrackOptions:
    """How often people are detected, how far poses may move, and how much they are smoothed.

    Times are in seconds of the video, never in frames, except `every`. "Size" is a person's own: the square
    root of the area of the box, so that an option means the same for near and far people. A value that
    cannot be raises UserError naming the option.
    """

    every: int = 5  # frames from one detection to the next; 1 detects on each
    padding: float = 1.25  # sides of a box per extent of the points, for a person no detector has seen yet
    visible: float = 0.3  # confidence from which a point counts as seen
    present: float = 0.3  # mean confidence of the better half of the points, below which a person is lost
    duplicate: float = 0.9  # OKS above which two poses are the same person
    confident: float = 0.6  # the detector's score from which a new person is believed at once
    confirm: int = 2  # detections after which a new person of a lower score is believed
    similar: float = 0.2  # least similarity, 0 to 1, of a pose and the person it continues
    memory: float = 2.0  # seconds for which somebody out of sight is remembered
    stale: float = 0.5  # seconds without a frame after which people must be detected again
    smooth: bool = True  # the One-Euro filter
    cutoff: float = 0.5  # Hz, of the One-Euro filter for a point at rest
    beta: float = 5.0  # Hz more per speed of one size per second
    speed_cutoff: float = 1.0  # Hz, of the speed that `beta` is multiplied with
    hidden: float = 0.2  # seconds out of sight after which a point's smoothing begins anew
    sides: bool = True  # repair left and right where they are swapped
    doubt: float = 0.25  # seconds after which sides that keep being swapped are believed

    def __post_init__(self) -> None:
        for each in fields(self):
            _check(each.name, getattr(self, each.name))

    def at(self, sure: float) -> TrackOptions:
        """The same where points count from the confidence `sure` on: what is drawn is followed, too. Points
        that are less sure than that are followed as these options say.
        """
        return replace(self, visible=min(self.visible, sure), present=min(self.present, sure))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(each.name for each in fields(cls))


# Least and greatest value; a bound with True may be reached.
_BOUNDS: dict[str, tuple[tuple[float, bool], tuple[float, bool]]] = {
    "every": ((1, True), (math.inf, False)),
    "padding": ((1, True), (3, True)),
    "visible": ((0, True), (1, True)),
    "present": ((0, True), (1, True)),
    "duplicate": ((0, False), (1, True)),
    "confident": ((0, True), (1, True)),
    "confirm": ((1, True), (math.inf, False)),
    "similar": ((0, False), (1, False)),
    "memory": ((0, True), (math.inf, False)),
    "stale": ((0, False), (math.inf, False)),
    "cutoff": ((0, False), (math.inf, False)),
    "beta": ((0, True), (math.inf, False)),
    "speed_cutoff": ((0, False), (math.inf, False)),
    "hidden": ((0, True), (math.inf, False)),
    "doubt": ((0, False), (math.inf, False)),
}
_WHOLE = ("every", "confirm")
_SWITCHES = ("smooth", "sides")


def _check(name: str, value: object) -> None:
    if name in _SWITCHES:
        if not isinstance(value, bool):
            raise UserError(f"{name}: is {value!r}; give true or false")
        return
    kind, word = (int, "a whole number") if name in _WHOLE else (int | float, "a number")
    if isinstance(value, bool) or not isinstance(value, kind):
        raise UserError(f"{name}: is {value!r}; give {word}")
    (least, reached), (most, reached_too) = _BOUNDS[name]
    above = value >= least if reached else value > least
    below = value <= most if reached_too else value < most
    if not (above and below):
        raise UserError(f"{name}: is {value!r}; give {word} {_range(name)}")


def _range(name: str) -> str:
    (least, reached), (most, reached_too) = _BOUNDS[name]
    text = f"from {least:g}" if reached else f"above {least:g}"
    if math.isinf(most):
        return text
    return f"{text} up to {most:g}" if reached_too else f"{text} and below {most:g}"
