"""When people are detected: on every K-th frame, and at once where somebody was lost (RTMPose, arXiv
2303.07399, section 3.5).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """What is known of past detections. A new schedule asks for one."""

    frames: int = 0  # since the last detection, those that could not be decoded among them
    asked: bool = True  # somebody was lost, or nothing is known

    def due(self, every: int) -> bool:
        """Whether the detector must run on the coming frame: a newcomer waits for at most `every` frames."""
        return self.asked or self.frames + 1 >= every

    def after(self, *, detected: bool, lost: bool) -> Schedule:
        """The schedule after a frame. Who is lost on a frame with a detection was not found by it, and is
        waited for; who is lost between two is looked for at once.
        """
        if detected:
            return Schedule(0, False)
        return Schedule(self.frames + 1, self.asked or lost)

    def at_once(self) -> Schedule:
        """The schedule that asks for a detection on the next frame."""
        return Schedule(self.frames, True)
