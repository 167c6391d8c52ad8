"""A run is found in MLflow by the name of its version or its own id, with what its page was made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines import report
from rtmpose.files import UserError
from rtmpose.report.folder import UNKNOWN, Folder, Mistakes, Receipt
from rtmpose.report.source import found, place, present
from rtmpose.tracking import runs
from tests.report.conftest import write


def test_a_registered_version_and_its_run_have_the_files_of_their_page(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    run_id = runs.start_or_resume_run("finetune", tags={"git_commit": "ab12"})
    store = runs.client()
    store.create_registered_model("pose")
    for _ in range(2):
        store.create_model_version("pose", source=str(tmp_path), run_id=run_id)
    store.set_registered_model_alias("pose", "candidate", "1")
    registered = {"name": "pose", "version": 1, "run_id": run_id, "tracking_uri": "", "sha256": "ab"}
    write(folder / "metrics/register.json", registered)
    monkeypatch.chdir(folder)
    report.main([])
    page = (folder / report.PAGE).read_text()
    assert "pose version 1" in page and "is not in sqlite:" in page, "the gates of a version that has no hash"
    assert report.PAGE.name in {Path(one.path).name for one in store.list_artifacts(run_id, place("pose", 1))}
    for asked in ("models:/pose@candidate", "models:/pose/1", run_id):
        with found(asked) as there:
            assert isinstance(there, Folder) and there.commit == "ab12"
            assert present(there.path) == present(folder)
            assert there.read("reports/mistakes.json", Mistakes).worst[0].image == "7"
            assert there.read("models/receipt.json", Receipt).steps == 784
        assert not there.path.exists(), "what was fetched is gone afterwards"
    for asked, why in (
        ("models:/pose/2", "MLflow has no figures of it"),
        ("models:/pose@champion", "no alias 'champion'"),
        ("f" * 32, "no such run"),
    ):
        with pytest.raises(UserError, match=why), found(asked):
            pass
    # A folder's commit is that of the run that trained what lies in it.
    trained = json.loads((folder / "models/receipt.json").read_text())
    for known, commit in ((run_id, "ab12"), ("f" * 32, UNKNOWN)):
        write(folder / "models/receipt.json", trained | {"run_id": known})
        with found(str(folder)) as there:
            assert there.commit == commit
    # Versions of before have their metrics only.
    older = runs.start_or_resume_run("older")
    runs.log_file(older, folder / "metrics/evaluate.json", "metrics")
    with found(older) as there:
        assert present(there.path) == [Path("metrics/evaluate.json")]
