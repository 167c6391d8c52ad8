"""The search as its stage runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.workspace import Workspace

PATIENCE = 900.0  # seconds; only what hangs takes so long, also on a machine that is busy with other things


def search(workspace: Workspace) -> subprocess.CompletedProcess[str]:
    return workspace.run(sys.executable, "-m", "pipelines.search", timeout=PATIENCE)


def result(workspace: Workspace) -> dict[str, Any]:
    return json.loads((workspace.folder / "models/search.json").read_text())
