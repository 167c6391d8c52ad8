"""A bounded run of the damaged pictures and videos; `python -m tests.faults.media` tries a thousand."""

from __future__ import annotations

from tests.faults.fuzz import OUTCOMES
from tests.faults.media import try_media


def test_damaged_pictures_and_videos_are_refused_or_read() -> None:
    line, wrong = try_media(seed=3, count=120, workers=1)
    assert wrong == [] and line["tried"] == 120
    assert sum(line[name] for name in OUTCOMES) == 120 and line["clear"] > 30 and line["fine"] > 30
