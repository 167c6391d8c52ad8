"""A user's mistake ends a stage with one clear line, a non-zero exit and nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch

from rtmpose.files import UserError
from rtmpose.models import build_pose_net
from tests.workspace import Workspace

Mistake = Callable[[Workspace], None]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A small workspace whose raw data is rendered and indexed."""
    workspace = Workspace(tmp_path_factory.mktemp("template")).small()
    done = workspace.stage("raw", "coco17")
    assert done.returncode == 0, done.stderr
    raw = workspace.folder / "data/raw"
    shutil.move(workspace.folder / "data/mannequins", raw)
    workspace.set(datasets__coco17__render=None, datasets__coco17__raw="data/raw/coco17")
    return workspace


@pytest.fixture
def workspace(template: Workspace, tmp_path: Path) -> Workspace:
    """A copy of it for one test to spoil."""
    copy = Workspace(tmp_path)
    shutil.copy(template.folder / "params.yaml", tmp_path / "params.yaml")
    shutil.copytree(template.folder / "data", tmp_path / "data")
    return copy


def files(workspace: Workspace) -> set[Path]:
    return {path for path in (workspace.folder / "data").rglob("*") if path.is_file()}


def annotation_file(workspace: Workspace) -> Path:
    return workspace.folder / "data/raw/coco17/annotations/person_keypoints_train2017.json"


def missing_folder(workspace: Workspace) -> None:
    shutil.rmtree(workspace.folder / "data/raw/coco17")


def truncated_json(workspace: Workspace) -> None:
    path = annotation_file(workspace)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def half_jpeg(workspace: Workspace) -> None:
    path = sorted((workspace.folder / "data/raw/coco17/train2017").glob("*.jpg"))[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def wrong_length(workspace: Workspace) -> None:
    path = annotation_file(workspace)
    content = json.loads(path.read_text())
    content["annotations"][0]["keypoints"].pop()
    path.write_text(json.dumps(content))


def changed_annotations(workspace: Workspace) -> None:
    path = annotation_file(workspace)
    path.write_bytes(path.read_bytes() + b"\n")


def no_index(workspace: Workspace) -> None:
    (workspace.folder / "data/index/coco17.json").unlink()


def unknown_key(workspace: Workspace) -> None:
    workspace.set(shard__qualty=95)


def sigma_zero(workspace: Workspace) -> None:
    workspace.set(finetune__sigma=[0.0, 4.0])


@pytest.mark.parametrize(
    ("stage", "mistake", "expected"),
    [
        ("raw", missing_folder, ["data/raw/coco17", "download", "train2017", "GB", "licence"]),
        ("raw", truncated_json, ["person_keypoints_train2017.json", "JSON"]),
        ("raw", wrong_length, ["person_keypoints_train2017.json", "keypoints", "50", "51"]),
        ("shard", truncated_json, ["person_keypoints_train2017.json", "changed since it was indexed"]),
        (
            "shard",
            changed_annotations,
            ["person_keypoints_train2017.json", "changed since", "dvc repro -f raw@coco17"],
        ),
        ("shard", no_index, ["data/index/coco17.json", "dvc repro -f raw@coco17"]),
        ("shard", half_jpeg, [".jpg"]),
        ("shard", unknown_key, ["params.yaml", "shard.qualty"]),
        ("raw", sigma_zero, ["params.yaml", "sigma", "> 0"]),
    ],
)
def test_stage_says_what_to_mend(
    workspace: Workspace, stage: str, mistake: Mistake, expected: list[str]
) -> None:
    if stage == "raw":
        (workspace.folder / "data/index/coco17.json").unlink()
    mistake(workspace)
    before = files(workspace)
    done = workspace.stage(stage, "coco17")
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for word in expected:
        assert word in lines[0]
    assert files(workspace) == before


@pytest.mark.parametrize("arguments", [[], ["coco17", "aic"], ["aci"]])
@pytest.mark.parametrize("stage", ["raw", "shard"])
def test_stages_of_one_set_name_the_sets(
    template: Workspace, stage: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(template.folder)
    with pytest.raises(UserError, match=r"params\.yaml[^\n]*coco17[^\n]*$"):
        import_module(f"pipelines.{stage}").main(arguments)


def test_registering_again_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import summary

    monkeypatch.setattr(subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 255))
    with pytest.raises(
        UserError, match=r"^`dvc repro -s -f register report` ended with exit code 255[^\n]*$"
    ):
        summary.register_again()


def test_checkpoint_of_another_size(workspace: Workspace) -> None:
    for prepared in (workspace.stage("shard", "coco17"), workspace.stage("mix")):
        assert prepared.returncode == 0, prepared.stderr
    models = workspace.folder / "models"
    models.mkdir()
    torch.save(build_pose_net("s", input_size=(96, 128)).state_dict(), models / "rtmpose.pt")
    (models / "search.json").write_text('{"chosen": {}, "note": "off"}')
    for stage, out in (("evaluate", "metrics/evaluate.json"), ("export", "models/rtmpose.onnx")):
        done = workspace.stage(stage)
        assert done.returncode == 2
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1 and "models/rtmpose.pt" in lines[0] and "RTMPose-s" in lines[0], done.stderr
        assert not (workspace.folder / out).exists()
