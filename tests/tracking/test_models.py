from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rtmpose.files import UserError, sha256_of
from rtmpose.tracking import models, runs
from tests.support import ROOT


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A graph with the names and the free batch of our exports."""
    shapes: dict[str, list[Any]] = {
        "input": ["batch", 3, 8, 6],
        "simcc_x": ["batch", 3, 6],
        "simcc_y": ["batch", 3, 8],
    }
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()
    }
    nodes = [
        helper.make_node("ReduceMean", ["input"], [name], keepdims=0, axes=[axis])
        for name, axis in (("simcc_x", 2), ("simcc_y", 3))
    ]
    graph = helper.make_graph(nodes, "means", [values["input"]], [values["simcc_x"], values["simcc_y"]])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(made, str(tmp_path / "rtmpose.onnx"))
    return tmp_path / "rtmpose.onnx"


def register(model: Path, run_id: str, **tags: str) -> dict[str, Any]:
    return models.register(model, name="pose", run_id=run_id, tags=tags, requirements=["onnxruntime==1.31.1"])


def test_versions_count_up_and_the_alias_moves(model: Path, store: Path) -> None:
    run_id = runs.start_or_resume_run("training", tags={"stage": "finetune"})
    first, second = register(model, run_id, fingerprint="a"), register(model, run_id, fingerprint="b")
    assert (first["version"], second["version"]) == (1, 2) and second["run_id"] == run_id
    version = runs.client().get_model_version_by_alias("pose", "candidate")
    assert version.version == 2 or version.version == "2"
    assert version.run_id == run_id and version.tags == {"fingerprint": "b", "sha256": second["sha256"]}
    assert (store / "one" / "mlruns").is_dir()


def test_the_registered_model_has_a_free_batch_and_is_the_very_file(model: Path) -> None:
    import mlflow.pyfunc

    receipt = register(model, runs.start_or_resume_run("training"))
    uri = f"{runs.tracking_uri()}"
    mlflow.set_tracking_uri(uri)
    loaded = mlflow.pyfunc.load_model("models:/pose@candidate")
    signature = loaded.metadata.signature
    assert [(t.name, t.shape) for t in signature.inputs] == [("input", (-1, 3, 8, 6))]
    assert [(t.name, t.shape) for t in signature.outputs] == [
        ("simcc_x", (-1, 3, 6)),
        ("simcc_y", (-1, 3, 8)),
    ]
    assert loaded.input_example["input"].shape == (2, 3, 8, 6)
    images = np.random.default_rng(0).standard_normal((5, 3, 8, 6)).astype(np.float32)
    np.testing.assert_allclose(loaded.predict({"input": images})["simcc_x"], images.mean(2), atol=1e-6)
    folder = Path(mlflow.artifacts.download_artifacts("models:/pose@candidate"))
    assert sha256_of(folder / "model.onnx") == receipt["sha256"] == sha256_of(model)


def test_registering_leaves_the_process_as_it_was(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setattr(runs, "code_root", lambda: model.parent / "one")
    register(model, runs.start_or_resume_run("training"))
    assert "MLFLOW_TRACKING_URI" not in os.environ and mlflow.active_run() is None


def test_still_registered_follows_where_mlflow_points(
    model: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = register(model, runs.start_or_resume_run("training"))
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
            register(path, "unused")


def test_the_stage_registers_within_the_training_run(
    model: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.register import main

    run_id = runs.start_or_resume_run("finetune")
    monkeypatch.chdir(store)
    for path, content in {
        "params.yaml": (ROOT / "params.yaml").read_text(),
        "models/receipt.json": json.dumps({"run_id": run_id, "fingerprint": "f2"}),
        "metrics/evaluate.json": json.dumps({"AP": 0.6, "hard": {"AP": 0.3}}),
        "metrics/benchmark/cpu-x86.json": json.dumps({"p50_ms": {"a": 1.5}, "results": []}),
        "metrics/benchmark/of-an-earlier-target.json": json.dumps({"p50_ms": {"a": 9.5}}),
        "metrics/benchmark/cpu-x86.png": "not really",
        "reports/predictions.png": "not really",
        "data/mix.json": "{}",
        "dvc.lock": "{}",
    }.items():
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        (store / path).write_text(content)
    with pytest.raises(UserError, match=r"models/rtmpose\.onnx: no such file"):
        main([])
    assert not (store / "metrics" / "register.json").exists()
    assert runs.client().get_run(run_id).info.status == "FAILED"
    model.rename(store / "models" / "rtmpose.onnx")
    main([])
    receipt = json.loads((store / "metrics" / "register.json").read_text())
    assert receipt["run_id"] == run_id and receipt["version"] == 1 and models.still_registered(receipt)
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
