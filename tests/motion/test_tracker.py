"""The tracker: identities, steady points, and a state that survives what videos do."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtmpose.files import UserError
from rtmpose.motion import measures
from rtmpose.motion.person import Person
from rtmpose.motion.sides import chains_of
from rtmpose.motion.tracker import PoseTracker, TrackOptions
from tests.motion.walkers import COCO17, SIZE, Scene, Walker, person, switches, truth, who_is

Floats = NDArray[np.float64]
EVERY_FRAME = TrackOptions(every=1)
AT_30 = np.arange(90) / 30


def track(scene: Scene, times: Sequence[float] | Floats, options: TrackOptions) -> list[list[Person]]:
    """What the tracker gives of each frame; detector and network run where it says so."""
    tracker = PoseTracker(COCO17, options)
    given = []
    for time in np.asarray(times).tolist():
        boxes = tracker.boxes(time, SIZE)
        found, scores = scene.detect(time) if boxes is None else (boxes, None)
        given.append(tracker.update(scene.look(time, found, scores), time, SIZE, boxes is None))
    return given


def names(scene: Scene, times: Floats, given: Sequence[Sequence[Person]]) -> list[dict[int, int]]:
    """The identity of each person whom nobody covers, in each frame."""
    named = []
    for time, people in zip(times.tolist(), given, strict=True):
        points = scene.poses(time)
        clear = scene.covered(points).mean(1) < 0.25
        apart = np.abs(points.mean(1)[:, None, 0] - points.mean(1)[None, :, 0]) + 1e3 * np.eye(len(points))
        clear &= apart.min(1) > 60
        who = [(who_is(each, points), each.identity or 0) for each in people]
        named.append({index: identity for index, identity in who if clear[index]})
    return named


def followed(tracker: PoseTracker, people: Sequence[Person], time: float, detected: bool) -> list[int | None]:
    return [each.identity for each in tracker.update(people, time, SIZE, detected)]


@pytest.fixture
def one() -> Person:
    return person(Walker((400, 500)).points(0.0))


CROSSING = Scene((Walker((350, 500), 220, 290), Walker((930, 515), -200, 310, -90, phase=2.0)))


@pytest.mark.parametrize(("every", "seed"), [(1, 0), (5, 1)])
def test_people_who_cross_keep_their_identities(every: int, seed: int) -> None:
    times = np.arange(0, 2.6, 1 / 20)
    scene = CROSSING.reseeded(seed)
    named = names(scene, times, track(scene, times, TrackOptions(every=every)))
    assert switches(named) == 0
    assert {identity for frame in named[-5:] for identity in frame.values()} == {1, 2}


def test_who_comes_out_from_behind_a_wall_is_known_again() -> None:
    scene = Scene((Walker((300, 500), 300, 300),), wall=(500, 700))
    given = track(scene, AT_30, EVERY_FRAME)
    assert [] in given and {each.identity for people in given for each in people} == {1}
    assert given[-1]


def test_after_its_memory_a_person_is_new(one: Person) -> None:
    tracker = PoseTracker(COCO17, TrackOptions(memory=1.0))
    assert followed(tracker, [one], 0.0, True) == [1]
    assert followed(tracker, [], 0.5, True) == []
    assert followed(tracker, [one], 0.9, True) == [1]
    assert followed(tracker, [one], 2.0, True) == [2]


def test_memory_is_of_seconds_whatever_the_frame_rate(one: Person) -> None:
    for rate in (5, 50):
        tracker = PoseTracker(COCO17, TrackOptions(memory=1.0))
        followed(tracker, [one], 0.0, True)
        for index in range(1, int(0.9 * rate)):
            followed(tracker, [], index / rate, True)
        assert followed(tracker, [one], 0.9, True) == [1]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_identities_are_unique_in_each_frame_and_never_given_twice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracker = PoseTracker(COCO17, replace(EVERY_FRAME, memory=0.2))
    gone: set[int | None] = set()
    last: set[int | None] = set()
    for index in range(12):
        points = [Walker((x, 500)).points(0.0) for x in rng.uniform(100, 1200, rng.integers(0, 5))]
        given = tracker.update([person(each) for each in points], index / 4, SIZE, True)
        identities = {each.identity for each in given}
        assert len(identities) == len(given) and None not in identities and not identities & gone
        gone |= last - identities
        last = identities


def test_a_lost_person_is_looked_for_on_the_next_frame(one: Person) -> None:
    tracker = PoseTracker(COCO17, TrackOptions(every=10))
    assert tracker.boxes(0.0, SIZE) is None
    followed(tracker, [one], 0.0, True)
    boxes = tracker.boxes(0.1, SIZE)
    assert boxes is not None and len(boxes) == 1
    followed(tracker, [replace(one, confidence=np.full(17, 0.05))], 0.1, False)
    assert tracker.boxes(0.2, SIZE) is None
    followed(tracker, [], 0.2, True)
    boxes = tracker.boxes(0.3, SIZE)  # the detector has said that there is nobody
    assert boxes is not None and len(boxes) == 0


def test_boxes_between_detections_go_along_and_hold_the_person() -> None:
    walker = Walker((200, 500), speed=400)
    scene, tracker = Scene((walker,), noise=0.05, missed=0.0), PoseTracker(COCO17, TrackOptions(every=100))
    for time in AT_30[:40].tolist():
        boxes = tracker.boxes(time, SIZE)
        found, scores = scene.detect(time) if boxes is None else (boxes, None)
        assert len(found) == 1
        points = walker.points(time)
        inside = (points > found[0, :2] - 5) & (points < found[0, 2:] + 5)
        assert time < 0.1 or inside.all()
        tracker.update(scene.look(time, found, scores), time, SIZE, boxes is None)


def test_a_frame_that_cannot_be_decoded_loses_nobody(one: Person) -> None:
    tracker = PoseTracker(COCO17, TrackOptions(every=4))
    followed(tracker, [one], 0.0, True)
    tracker.skipped(0.04)
    boxes = tracker.boxes(0.08, SIZE)
    assert boxes is not None and len(boxes) == 1
    assert followed(tracker, [one], 0.08, False) == [1]
    tracker.skipped(0.12)
    assert tracker.boxes(0.16, SIZE) is None and tracker.counts.skipped == 2


def test_an_unsure_person_waits_for_a_second_detection(one: Person) -> None:
    tracker = PoseTracker(COCO17, EVERY_FRAME)
    unsure = replace(one, box_score=0.4)
    assert followed(tracker, [unsure], 0.0, True) == []
    assert followed(tracker, [unsure], 0.1, True) == [1]
    nobody = PoseTracker(COCO17, EVERY_FRAME)
    assert [followed(nobody, [unsure] if index % 2 == 0 else [], index / 10, True) for index in range(4)] == [
        [], [], [], [],
    ]  # fmt: skip


def test_a_video_that_goes_back_begins_anew_and_says_so(
    one: Person, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = PoseTracker(COCO17, EVERY_FRAME)
    followed(tracker, [one], 5.0, True)
    with caplog.at_level(logging.WARNING):
        assert tracker.boxes(1.0, SIZE) is None
    assert "from 5.000 s to 1.000 s" in caplog.text
    assert followed(tracker, [one], 1.0, True) == [2] and tracker.counts.resets == 1


def test_a_change_of_resolution_keeps_who_is_who(one: Person) -> None:
    tracker = PoseTracker(COCO17, TrackOptions(every=50))
    followed(tracker, [one], 0.0, True)
    half = replace(one, box=one.box / 2, keypoints=one.keypoints / 2)
    size = (SIZE[0] // 2, SIZE[1] // 2)
    assert tracker.boxes(0.04, size) is None
    given = tracker.update([half], 0.04, size, True)
    assert [each.identity for each in given] == [1]
    assert np.allclose(given[0].keypoints, half.keypoints)


def test_after_a_gap_people_are_detected_again(one: Person) -> None:
    tracker = PoseTracker(COCO17, TrackOptions(every=50, stale=0.5))
    followed(tracker, [one], 0.0, True)
    assert tracker.boxes(0.4, SIZE) is not None
    assert tracker.boxes(1.0, SIZE) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(bad: float) -> None:
    tracker = PoseTracker(COCO17)
    with pytest.raises(UserError, match=r"^time: "):
        tracker.boxes(bad, SIZE)
    with pytest.raises(UserError, match=r"^size: "):
        tracker.boxes(0.0, (0, 100))


def test_the_same_time_stamp_twice_is_no_harm(one: Person) -> None:
    tracker = PoseTracker(COCO17, EVERY_FRAME)
    for _ in range(3):
        given = tracker.update([one], 1.0, SIZE, True)
    assert np.allclose(given[0].keypoints, one.keypoints) and given[0].identity == 1


def test_all_that_is_left_out_is_counted(one: Person) -> None:
    tracker = PoseTracker(COCO17, EVERY_FRAME)
    tracker.update([one], 0.0, SIZE, True)
    unsure = replace(one, confidence=np.zeros(17))
    # OKS 0.7 with the first one: no duplicate by the threshold of 0.9, but nobody else either.
    size = np.sqrt(np.prod(one.box[2:] - one.box[:2]))
    near = np.array([0.8 * 2 * np.median(COCO17.sigmas) * size, 0.0])
    again = replace(one, keypoints=one.keypoints + near, box=one.box + np.tile(near, 2), box_score=0.5)
    assert followed(tracker, [one, one, unsure, again], 1 / 30, True) == [1]
    assert tracker.counts.left_out == 3
    far = replace(one, keypoints=one.keypoints + 500, box=one.box + 500)
    assert followed(tracker, [one, far], 2 / 30, True) == [1, 2] and tracker.counts.left_out == 3


def test_swapped_sides_are_repaired() -> None:
    walker = Walker((200, 500), yaw=60)
    scene = Scene((walker,), noise=0.15, missed=0.0, swapped=0.15)
    given = track(scene, AT_30, TrackOptions(every=1, smooth=False))
    raw = track(scene, AT_30, TrackOptions(every=1, smooth=False, sides=False))
    points = truth(walker, AT_30)
    chains = chains_of(COCO17)
    before, after = (
        measures.swapped_share(np.stack([people[0].keypoints for people in each]), points, chains, 150)
        for each in (raw, given)
    )
    assert before > 0.08 and after < before / 5


def test_smoothed_points_tremble_less_and_are_no_worse() -> None:
    walker = Walker((300, 500), speed=60)
    scene = Scene((walker,), noise=0.3, missed=0.0)
    points = truth(walker, AT_30)
    given = track(scene, AT_30, EVERY_FRAME)
    raw = track(scene, AT_30, replace(EVERY_FRAME, smooth=False))
    smooth, rough = (np.stack([people[0].keypoints for people in each]) for each in (given, raw))
    trembling = [measures.jitter(each, AT_30, 150, points) for each in (smooth, rough)]
    assert trembling[0] < 0.5 * trembling[1]
    assert measures.error(smooth, points, 150) < measures.error(rough, points, 150)


def test_a_point_that_returns_is_not_dragged() -> None:
    walker = Walker((200, 500), speed=200)
    tracker = PoseTracker(COCO17, EVERY_FRAME)
    wrist = COCO17.names.index("left_wrist")
    for index in range(40):
        points = walker.points(index / 30)
        confidence = np.full(17, 0.9)
        if 10 <= index < 30:
            confidence[wrist], points[wrist] = 0.05, (900, 100)
        given = tracker.update([person(points, confidence)], index / 30, SIZE, True)
        if index == 30:
            assert np.allclose(given[0].keypoints[wrist], points[wrist])


def test_nothing_that_came_in_is_changed(one: Person) -> None:
    tracker = PoseTracker(COCO17, EVERY_FRAME)
    kept = one.keypoints.copy()
    for index in range(3):
        given = tracker.update([one], index / 10, SIZE, True)
        given[0].keypoints[:] = 0
    assert np.array_equal(one.keypoints, kept)
    assert np.allclose(tracker.update([one], 0.4, SIZE, True)[0].keypoints, kept)


def test_who_is_shown_by_the_person_in_front_is_known_again_and_takes_nobodys_place() -> None:
    behind, front = (
        person(Walker((x, y), height=h).points(0.0)) for x, y, h in ((400, 500, 250), (450, 540, 330))
    )
    tracker = PoseTracker(COCO17, EVERY_FRAME)
    assert followed(tracker, [behind, front], 0.0, True) == [1, 2]
    taken = replace(front, box=behind.box)
    for index in range(1, 60):  # longer than the memory: the box keeps the one behind in mind
        alone = index in (5, 10)  # the box in front is missed
        given = tracker.update([taken] if alone else [taken, front], index / 20, SIZE, True)
        assert [each.identity for each in given] == [2]
        assert np.allclose(given[0].box, front.box, atol=20)
    assert followed(tracker, [front, behind], 3.0, True) == [2, 1]


def test_a_person_at_the_border_of_whom_few_points_are_seen_stays() -> None:
    tracker = PoseTracker(COCO17, EVERY_FRAME)
    one = person(Walker((20, 500), height=300).points(0.0))
    one = replace(one, box=np.array([0.0, one.box[1], one.box[2], one.box[3]]))
    assert followed(tracker, [one], 0.0, True) == [1]
    for index in range(1, 40):
        assert followed(tracker, [replace(one, confidence=np.full(17, 0.2))], index / 10, True) == []
    assert followed(tracker, [one], 4.0, True) == [1]
