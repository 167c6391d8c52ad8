"""Fast tests first: what starts Ray or kills processes runs last."""

from __future__ import annotations

import pytest

from rtmpose.config import setup_environment

setup_environment()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
