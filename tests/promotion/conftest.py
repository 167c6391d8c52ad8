"""Empty MLflow stores, as the tests of tracking have them."""

from __future__ import annotations

from tests.tracking.conftest import empty_store, store

__all__ = ["empty_store", "store"]
