"""A journal replayed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtmpose.files import UserError
from rtmpose.promotion.journal import Entry, standing
from tests.promotion.versions import entry


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 9), st.none()), max_size=12), st.one_of(st.none(), st.just("0")))
def test_a_journal_is_replayed_like_a_stack(steps: list[int | None], adopted: str | None) -> None:
    """Numbers are promoted, None goes back: to whoever stood before, whoever it was."""
    stack = [adopted] if adopted else []
    entries: list[Entry] = []
    for step in steps:
        before = stack[-1] if stack else None
        if step is not None:
            stack.append(str(step))
            entries.append(entry(len(entries) + 1, "promote", str(step), before))
        elif len(stack) > 1:
            stack.pop()
            entries.append(entry(len(entries) + 1, "rollback", stack[-1], before))
    found = standing(reversed(entries), adopted)
    assert found.champions == tuple(stack) and found.next_number == len(entries) + 1
    assert found.champion == (stack[-1] if stack else None)


def test_a_journal_with_a_gap_is_refused() -> None:
    entries = [entry(1, "promote", "1", None), entry(2, "promote", "2", "1"), entry(3, "promote", "3", "2")]
    for kept in (entries[1:], [entries[0], entries[2]]):
        with pytest.raises(UserError, match="does not follow from those before it"):
            standing(kept)
    with pytest.raises(UserError, match="entry 2"):
        standing([entries[0], entry(2, "rollback", "9", "1")])
