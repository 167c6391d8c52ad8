"""The champion as files, and what it is measured in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rtmpose.deploy.targets import load_target
from rtmpose.files import UserError
from rtmpose.promotion import evidence, files
from rtmpose.promotion.files import Deployed, champion_of
from rtmpose.tracking import runs
from tests.deploy.support import card
from tests.promotion.versions import NAME, register, training_run

CPU = load_target("cpu-x86")


def champion(folder: Path) -> Deployed:
    found = champion_of(NAME, folder)
    assert found is not None
    return found[1]


def test_a_champion_is_measured_in_what_was_picked(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidence that cannot be read is told; only where none was attached, the target's reference counts."""
    monkeypatch.setattr(files, "read_card", lambda path: card())
    run_id = training_run()
    register(run_id)
    runs.client().set_registered_model_alias(NAME, "champion", "1")
    assert champion(tmp_path / "a").picked_for(CPU) == "onnxruntime_int8"

    place = f"{evidence.folder(NAME, '1')}/{evidence.NAME}"
    runs.client().log_text(run_id, "{}", place)
    with pytest.raises(UserError, match=r"pose version 1: .*is not what was attached.*rtmpose rollback pose"):
        champion(tmp_path / "b")
    shutil.rmtree(Path(runs.client().get_run(run_id).info.artifact_uri.removeprefix("file://"), "promotion"))
    with pytest.raises(UserError, match=r"pose version 1: artifact .*evidence\.json cannot be read"):
        champion(tmp_path / "c")

    runs.client().delete_model_version_tag(NAME, "1", evidence.DIGEST_TAG)
    assert champion(tmp_path / "d").picked_for(CPU) == "onnxruntime_fp32"
