"""When people are detected."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rtmpose.motion.schedule import Schedule


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.lists(st.booleans(), max_size=40))
def test_a_newcomer_waits_for_at_most_k_frames_and_a_loss_for_one(every: int, losses: list[bool]) -> None:
    schedule, waited, asked = Schedule(), 0, True
    for lost in losses:
        due = schedule.due(every)
        waited = 0 if due else waited + 1
        assert waited < every and (due or not asked)
        asked = lost and not due
        schedule = schedule.after(detected=due, lost=lost)


def test_without_losses_every_kth_frame_is_detected() -> None:
    schedule, detected = Schedule(), []
    for _ in range(11):
        detected.append(schedule.due(5))
        schedule = schedule.after(detected=detected[-1], lost=False)
    assert [index for index, due in enumerate(detected) if due] == [0, 5, 10]


def test_asking_is_remembered_until_the_detection() -> None:
    schedule = Schedule(0, False).at_once().after(detected=False, lost=False)
    assert schedule.due(100) and not schedule.after(detected=True, lost=True).due(100)
