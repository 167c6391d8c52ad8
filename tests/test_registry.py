from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rtmpose import registry
from rtmpose.files import UserError, home
from tests.support import ROOT


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh data base; making its tables takes seconds, so the tests copy it."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        registry.client().search_experiments()
    return path


@pytest.fixture(autouse=True)
def store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(empty_store, tmp_path / name / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/one/mlflow.db")
    return tmp_path


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
    return registry.register(
        model, name="pose", run_id=run_id, tags=tags, requirements=["onnxruntime==1.31.1"]
    )


def test_versions_count_up_and_the_alias_moves(model: Path, store: Path) -> None:
    run_id = registry.start_or_resume_run("training", tags={"stage": "finetune"})
    first, second = register(model, run_id, fingerprint="a"), register(model, run_id, fingerprint="b")
    assert (first["version"], second["version"]) == (1, 2) and second["run_id"] == run_id
    version = registry.client().get_model_version_by_alias("pose", "candidate")
    assert version.version == 2 or version.version == "2"
    assert version.run_id == run_id and version.tags == {"fingerprint": "b", "sha256": second["sha256"]}
    assert (store / "one" / "mlruns").is_dir()


def test_the_registered_model_has_a_free_batch_and_is_the_very_file(model: Path) -> None:
    import mlflow.pyfunc

    receipt = register(model, registry.start_or_resume_run("training"))
    uri = f"{registry.tracking_uri()}"
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
    assert registry.sha256_of(folder / "model.onnx") == receipt["sha256"] == registry.sha256_of(model)


def test_registering_leaves_the_process_as_it_was(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setattr(registry, "repo_root", lambda: model.parent / "one")
    register(model, registry.start_or_resume_run("training"))
    assert "MLFLOW_TRACKING_URI" not in os.environ and mlflow.active_run() is None


def test_still_registered_follows_where_mlflow_points(
    model: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = register(model, registry.start_or_resume_run("training"))
    assert registry.still_registered(receipt)
    assert not registry.still_registered(receipt | {"sha256": "another file"})
    assert not registry.still_registered(receipt | {"version": 7})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/two/mlflow.db")
    assert not registry.still_registered(receipt)


def test_an_unreachable_server_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        UserError, match=r"MLFLOW_TRACKING_URI: http://127\.0\.0\.1:9 does not answer"
    ) as caught:
        registry.start_or_resume_run("training")
    assert "secret" not in str(caught.value)
    with pytest.raises(UserError, match="does not answer"):
        registry.still_registered({"name": "pose", "version": 1, "sha256": ""})


def test_a_run_is_resumed_where_it_is_and_begun_anew_elsewhere(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = registry.start_or_resume_run("training", tags={"fingerprint": "f"})
    registry.end_run(run_id)
    assert registry.start_or_resume_run("training", run_id) == run_id
    assert registry.client().get_run(run_id).info.status == "RUNNING"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/two/mlflow.db")
    assert registry.start_or_resume_run("training", run_id) != run_id


def test_a_run_ends_as_its_block_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def status() -> str:
        return str(registry.client().get_run(run_id).info.status)

    run_id = registry.start_or_resume_run("training")
    with registry.finished(run_id):
        assert status() == "RUNNING"
    assert status() == "FINISHED"
    with pytest.raises(KeyboardInterrupt), registry.finished(run_id):
        raise KeyboardInterrupt
    assert status() == "FAILED"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///relative.db")
    with pytest.raises(ZeroDivisionError), registry.finished(run_id):
        raise ZeroDivisionError


def test_metrics_that_a_store_does_not_take_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise MlflowException("503, try again")

    run_id = registry.start_or_resume_run("training")
    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    for log in (registry.log_metrics, registry.log_params_flat):
        with pytest.raises(UserError, match="does not answer \\(503, try again\\)"):
            log(run_id, {"AP": 0.5})


def test_an_experiments_copy_stands_for_the_checkout(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = store / "checkout/.dvc/tmp/exps/tmpabc/inner"
    copy.mkdir(parents=True)
    (copy.parent / "pyproject.toml").touch()
    monkeypatch.chdir(copy)
    assert home() == store / "checkout" and home("data/raw") == store / "checkout/data/raw"
    assert home("/data/raw") == Path("/data/raw")
    monkeypatch.setattr(registry, "__file__", str(copy.parent / "rtmpose/registry.py"))
    assert registry.repo_root() == store / "checkout" and registry.code_root() == copy.parent
    (copy.parent / "pyproject.toml").unlink()
    assert registry.repo_root() == store / "checkout"
    monkeypatch.chdir(store / "one")
    assert home("data/raw") == store / "one/data/raw" and registry.repo_root() == store / "one"


def test_parameters_metrics_and_files_are_logged(store: Path) -> None:
    run_id = registry.start_or_resume_run("training")
    registry.log_params_flat(
        run_id, {"optim": {"lr": 0.1}, "size": [96, 128]} | {f"p{i}": i for i in range(150)}
    )
    registry.log_params_flat(run_id, {"optim": {"lr": 0.2, "beta": 0.9}})
    registry.log_metrics(run_id, {"AP": 0.5, "loss": {"kl": 2}, "name": "x", "bad": float("nan")}, step=3)
    (store / "table.csv").write_text("a\n1\n")
    registry.log_file(run_id, store / "table.csv", "tables")
    client = registry.client()
    data = client.get_run(run_id).data
    assert len(data.params) == 153 and data.params["optim.lr"] == "0.1" and data.params["optim.beta"] == "0.9"
    assert data.metrics == {"AP": 0.5, "loss.kl": 2.0}
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "AP")] == [(3, 0.5)]
    assert [f.path for f in client.list_artifacts(run_id, "tables")] == ["tables/table.csv"]
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        registry.log_file(run_id, store / "none.csv")


def test_damaged_models_are_one_line(model: Path, store: Path) -> None:
    cut = store / "cut.onnx"
    cut.write_bytes(model.read_bytes()[:-40])
    for path, reason in ((cut, "not a complete ONNX model"), (store / "none.onnx", "no such file")):
        with pytest.raises(UserError, match=f"{path.name}: {reason}"):
            register(path, "unused")


def test_relative_stores_are_refused_and_passwords_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(UserError, match="is relative"):
        registry.tracking_uri()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert registry.tracking_uri() == f"sqlite:///{ROOT}/mlflow.db"
    assert registry.without_password("https://me:secret@host:5000/path") == "https://host:5000/path"
    assert registry.without_password("sqlite:////a/b.db") == "sqlite:////a/b.db"


def test_git_commit_comes_from_the_environment_or_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTMPOSE_GIT_COMMIT", "abc")
    assert registry.git_commit() == "abc"
    monkeypatch.delenv("RTMPOSE_GIT_COMMIT")
    monkeypatch.setattr(registry, "code_root", lambda: tmp_path)
    assert registry.git_commit() == "unknown"
    (tmp_path / "code.py").write_text("1")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "--no-verify", "-m", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    clean = registry.git_commit()
    assert len(clean) == 40
    (tmp_path / "code.py").write_text("2")
    assert registry.git_commit() == f"{clean}-dirty"


def test_lineage_names_code_stages_data_and_training(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text("lock")
    tags = registry.lineage_tags(tmp_path / "dvc.lock", tmp_path / "mix.json", "f1")
    assert set(tags) == {"git_commit", "dvc_lock_sha256", "data_manifest_sha256", "fingerprint"}
    assert tags["dvc_lock_sha256"] == registry.sha256_of(tmp_path / "dvc.lock")
    assert (tags["data_manifest_sha256"], tags["fingerprint"]) == ("none", "f1")


def test_the_stage_registers_within_the_training_run(
    model: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.register import main

    run_id = registry.start_or_resume_run("finetune")
    monkeypatch.chdir(store)
    for path, content in {
        "params.yaml": (ROOT / "params.yaml").read_text(),
        "models/receipt.json": json.dumps({"run_id": run_id, "fingerprint": "f2"}),
        "metrics/evaluate.json": json.dumps({"AP": 0.6, "hard": {"AP": 0.3}}),
        "metrics/benchmark/cpu-x86.json": json.dumps({"p50_ms": {"a": 1.5}, "results": []}),
        "metrics/benchmark/of-an-earlier-target.json": json.dumps({"p50_ms": {"a": 9.5}}),
        "reports/predictions.png": "not really",
        "data/mix.json": "{}",
        "dvc.lock": "{}",
    }.items():
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        (store / path).write_text(content)
    with pytest.raises(UserError, match=r"models/rtmpose\.onnx: no such file"):
        main([])
    assert not (store / "metrics" / "register.json").exists()
    assert registry.client().get_run(run_id).info.status == "FAILED"
    model.rename(store / "models" / "rtmpose.onnx")
    main([])
    receipt = json.loads((store / "metrics" / "register.json").read_text())
    assert receipt["run_id"] == run_id and receipt["version"] == 1 and registry.still_registered(receipt)
    run = registry.client().get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.tags["fingerprint"] == "f2"
    assert run.data.metrics == {"evaluate.AP": 0.6, "evaluate.hard.AP": 0.3, "cpu-x86.p50_ms.a": 1.5}
    assert run.data.params["recipe"] == "mannequin"
    assert [f.path for f in registry.client().list_artifacts(run_id, "figures")] == [
        "figures/predictions.png"
    ]
    assert len(capsys.readouterr().out.splitlines()) == 1
    (store / "metrics" / "evaluate.json").write_text('{"AP": ')
    with pytest.raises(UserError, match=r"metrics/evaluate\.json: not valid JSON"):
        main([])
