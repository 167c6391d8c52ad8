from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rtmpose.files import UserError, sha256_of
from rtmpose.promotion import evidence, registry
from rtmpose.promotion.evidence import Accuracy, Comparison
from rtmpose.tracking import models, runs
from tests.support import ROOT

PROGRAM = ROOT / "rtmpose/inference/served_program.py"


@pytest.fixture
def model(tmp_path: Path, model_file: Path) -> Path:
    """A graph with the names and the free batch of our exports, to be changed."""
    return Path(shutil.copy(model_file, tmp_path / "rtmpose.onnx"))


def stage_files(folder: Path, model: Path | None = None) -> None:
    """What the stage `register` reads besides the model, and the model if there is one."""
    for path, content in {
        "params.yaml": (ROOT / "params.yaml").read_text(),
        "models/receipt.json": json.dumps({"fingerprint": "f2"}),
        "metrics/evaluate.json": json.dumps({"AP": 0.6, "hard": {"AP": 0.3}}),
        "metrics/compare.json": nothing_compared().model_dump_json(),
        "metrics/benchmark/cpu-x86.json": json.dumps({"p50_ms": {"a": 1.5}, "results": []}),
        "metrics/benchmark/of-an-earlier-target.json": json.dumps({"p50_ms": {"a": 9.5}}),
        "metrics/benchmark/cpu-x86.png": "not really",
        "reports/predictions.png": "not really",
        "data/mix.json": "{}",
        "dvc.lock": "{}",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    if model is not None:
        shutil.copy(model, folder / "models/rtmpose.onnx")


def register(*files: Path, run_id: str, **tags: str) -> dict[str, Any]:
    return models.register(
        files, program=PROGRAM, name="pose", run_id=run_id, tags=tags, requirements=["onnxruntime==1.31.1"]
    )


def test_versions_count_up_and_the_alias_moves(model: Path, store: Path) -> None:
    run_id = runs.start_or_resume_run("training", tags={"stage": "finetune"})
    first, second = (
        register(model, run_id=run_id, fingerprint="a"),
        register(model, run_id=run_id, fingerprint="b"),
    )
    assert (first["version"], second["version"]) == (1, 2) and second["run_id"] == run_id
    version = runs.client().get_model_version_by_alias("pose", "candidate")
    assert version.version == 2 or version.version == "2"
    assert version.run_id == run_id and version.tags == {"fingerprint": "b", "sha256": second["sha256"]}
    assert (store / "one" / "mlruns").is_dir()


def test_the_version_carries_its_files(model: Path, store: Path) -> None:
    weights = model.with_name("rtmpose.pt")
    weights.write_bytes(b"not really")
    receipt = register(model, weights, run_id=runs.start_or_resume_run("training"))
    version = runs.client().get_model_version("pose", "1")
    assert version.tags == {"sha256": sha256_of(model), "sha256.rtmpose.pt": sha256_of(weights)}
    assert receipt["sha256"] == sha256_of(model)
    found = models.version_files("pose", 1, store / "fetched")
    assert {name: sha256_of(path) for name, path in found.items()} == {
        "rtmpose.onnx": sha256_of(model),
        "rtmpose.pt": sha256_of(weights),
    }
    assert sorted(path.name for path in (store / "fetched").iterdir()) == ["rtmpose.onnx", "rtmpose.pt"]


def test_files_that_are_not_the_version_s_are_refused(model: Path, store: Path) -> None:
    register(model, run_id=runs.start_or_resume_run("training"))
    with pytest.raises(UserError, match="pose version 7: no such version in sqlite"):
        models.version_files("pose", 7, store / "fetched")
    kept = next((store / "one" / "mlruns").rglob("artifacts/rtmpose.onnx"))
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"models:/pose/1/artifacts/rtmpose\.onnx: has not the hash"):
        models.version_files("pose", 1, store / "fetched")
    assert not list((store / "fetched").iterdir())


def test_two_may_create_the_name_at_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    runs.client().create_registered_model("pose")
    # As it is for whoever looked a moment before.
    monkeypatch.setattr(MlflowClient, "search_registered_models", lambda *_, **__: [])
    assert register(model, run_id=runs.start_or_resume_run("training"))["version"] == 1


def test_registering_leaves_the_process_as_it_was(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setattr(runs, "code_root", lambda: model.parent / "one")
    register(model, run_id=runs.start_or_resume_run("training"))
    assert "MLFLOW_TRACKING_URI" not in os.environ and mlflow.active_run() is None


def test_still_registered_follows_where_mlflow_points(
    model: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = register(model, run_id=runs.start_or_resume_run("training"))
    assert models.still_registered(receipt)
    assert not models.still_registered(receipt | {"sha256": "another file"})
    assert not models.still_registered(receipt | {"version": 7})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/two/mlflow.db")
    assert not models.still_registered(receipt)


def test_damaged_models_are_one_line(model: Path, store: Path) -> None:
    cut = store / "cut.onnx"
    cut.write_bytes(model.read_bytes()[:-40])
    for path, reason in ((cut, "not a complete ONNX model"), (store / "none.onnx", "no such file")):
        with pytest.raises(UserError, match=f"{path.name}: {reason}"):
            register(path, run_id="unused")


def nothing_compared() -> Comparison:
    """What the stage `compare` leaves where nothing passed on the target."""
    then = datetime(2026, 11, 28, tzinfo=UTC)
    return Comparison(
        compared_at=then,
        exported_at=then,
        machine={},
        mix_sha256="a",
        keypoint_names=("nose",),
        card_problems=(),
        data=(),
        training_run=None,
        champion=None,
        targets={"cpu-x86": Accuracy(picked=None, files={}, sets={})},
    )


def test_the_stage_registers_within_the_training_run(
    model: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.register import main

    run_id = runs.start_or_resume_run("finetune")
    runs.end_run(run_id)
    monkeypatch.chdir(store)
    stage_files(store)
    (store / "models/receipt.json").write_text(json.dumps({"run_id": run_id, "fingerprint": "f2"}))
    (store / "metrics/compare.json").unlink()
    with pytest.raises(UserError, match=r"metrics/compare\.json: no such file; run the compare stage again"):
        main([])
    assert runs.client().get_run(run_id).info.status == "FINISHED"
    (store / "metrics/compare.json").write_text(nothing_compared().model_dump_json())
    with pytest.raises(UserError, match=r"models/rtmpose\.onnx: no such file"):
        main([])
    assert not (store / "metrics" / "register.json").exists()
    assert runs.client().get_run(run_id).info.status == "FAILED"
    model.rename(store / "models" / "rtmpose.onnx")
    main([])
    receipt = json.loads((store / "metrics" / "register.json").read_text())
    assert receipt["run_id"] == run_id and receipt["version"] == 1 and models.still_registered(receipt)
    found, _ = evidence.fetch(registry.find(receipt["name"], "candidate"))
    assert found.comparison == nothing_compared() and found.costs == {}
    run = runs.client().get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.tags["fingerprint"] == "f2"
    assert run.data.metrics == {"evaluate.AP": 0.6, "evaluate.hard.AP": 0.3, "cpu-x86.p50_ms.a": 1.5}
    assert run.data.params["recipe"] == "mannequin"
    figures = [file.path for file in runs.client().list_artifacts(run_id, "figures")]
    assert figures == ["figures/cpu-x86.png", "figures/predictions.png"]
    assert len(capsys.readouterr().out.splitlines()) == 1
    (store / "metrics" / "evaluate.json").write_text('{"AP": ')
    with pytest.raises(UserError, match=r"metrics/evaluate\.json: not valid JSON"):
        main([])
