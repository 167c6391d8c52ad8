"""The exported model of the deployment's tests."""

from tests.deploy.conftest import files

__all__ = ["files"]
