"""Fast tests first: what starts Ray or kills processes runs last, and one after the other."""

from __future__ import annotations

import pytest

from rtmpose.config import setup_environment

setup_environment()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes one runs all slow tests: Ray Train does not clear up after a controller that was
    killed where another Ray runs on the machine, and its next run then waits for ever.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.xdist_group("slow"))
