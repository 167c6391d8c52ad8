"""What a recipe lacks: planted lacks, and for each the line and the command that mends it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from rtmpose.config import DatasetParams, Params, load_params, with_values
from rtmpose.descriptors import Reader, load_dataset
from rtmpose.doctor import recipe
from rtmpose.doctor.finding import Finding
from rtmpose.doctor.fixes import Command
from rtmpose.files import UserError
from tests.support import ROOT

NO_GPU: dict[str, Any] = {"gpus": []}
RUN = Command(("recipe=mine", "datasets.own.raw=/data/my people"))
GIVEN = "dvc exp run -S recipe=mine -S 'datasets.own.raw=/data/my people'"
TWO_GPUS: dict[str, Any] = {"gpus": [{}, {}]}


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "params.yaml")


def own(raw: Path, **more: Any) -> DatasetParams:
    return DatasetParams(**({"descriptor": "own", "raw": str(raw), "evaluate": True} | more))


def people(folder: Path, persons: int = 3) -> Path:
    """A raw folder as `datasets/own.yaml` wants it: one image of 1000 bytes, the same persons twice."""
    (folder / "images").mkdir(parents=True)
    (folder / "images/a.jpg").write_bytes(bytes(1000))
    (folder / "annotations").mkdir()
    for split in ("train", "val"):
        content = {"annotations": [{"keypoints": [0, 0, 0]}] * persons}
        (folder / f"annotations/{split}.json").write_text(json.dumps(content))
    return folder


def test_a_raw_folder_that_lacks_a_split(tmp_path: Path) -> None:
    folder = people(tmp_path / "raw")
    (found,) = recipe.raw("mine", own(folder), RUN)
    assert found == Finding("data mine", f"{folder}, about 6 annotations")
    (folder / "annotations/val.json").unlink()
    (found,) = recipe.raw("mine", own(folder), RUN)
    assert found.state == "lacks" and "annotations/val.json is missing" in found.found
    assert found.fix == f"{GIVEN} -S datasets.mine.raw=FOLDER"
    (found,) = recipe.raw("mine", own(folder, evaluate=False), RUN)
    assert found.state == "ok"


LISTED: dict[str, Any] = {
    "coco17": {"annotations": [{"keypoints": [0]}] * 8},
    "coco_wholebody_hand": {"annotations": [{"lefthand_kpts": [0], "righthand_kpts": [0]}] * 8},
    "aic": [
        {
            "keypoint_annotations": {f"human{number}": [0] for number in range(1, count + 1)},
            "human_annotations": {f"human{number}": [0] for number in range(1, count + 1)},
        }
        for count in (1, 7)
    ],
    "mpii": [{"joints": [[0, 0]], "joints_vis": [0]}] * 8,
    "cephalometric38_stack": {"points": [{"name": "1", "point": [0, 0, 1]}] * 8 * 38},
}


@pytest.mark.parametrize("name", LISTED)
def test_annotations_are_counted_in_every_form(name: str, tmp_path: Path) -> None:
    dataset = load_dataset(name)
    path = tmp_path / dataset.splits["train"].annotations
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(LISTED[name]))
    share = 0.75 if name == "cephalometric38_stack" else 1.0
    assert recipe.persons_of(dataset, tmp_path, "train") == 8 * share


def test_every_reader_has_a_form_that_is_counted() -> None:
    counted = {load_dataset(name).reader for name in LISTED}
    assert counted == {*get_args(Reader)}


def test_a_stack_has_the_size_of_its_file(tmp_path: Path) -> None:
    dataset = load_dataset("cephalometric38_stack")
    (tmp_path / "train_stack.mha").write_bytes(bytes(8000))
    assert [recipe.folder_bytes(dataset, tmp_path, split) for split in ("train", "val")] == [6000, 1000]


@pytest.mark.parametrize(
    ("name", "said"), [("nothing", "no such file"), ("coco_aic19", "without data of its own")]
)
def test_a_descriptor_that_reads_nothing(name: str, said: str, tmp_path: Path) -> None:
    (found,) = recipe.raw("mine", own(tmp_path, descriptor=name), RUN)
    assert found.state == "lacks" and said in found.found


def test_a_published_set_says_what_to_download(tmp_path: Path) -> None:
    (found,) = recipe.raw("coco", own(tmp_path, descriptor="coco17"), RUN)
    assert found.state == "lacks" and "download train2017.zip (18 GB)" in found.found


def test_room_for_shards(tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = own(people(tmp_path / "raw", persons=1000))
    width, height = params.shard.input_size
    crops = 1000 * 1.25 * width * height
    assert recipe.shard_bytes(params, chosen) == pytest.approx(crops + 1000 * (1 + params.shard.tune_share))
    elsewhere = with_values(params, {"shard.url": "s3://bucket/here"})
    assert recipe.shard_bytes(elsewhere, chosen) == pytest.approx(1000 * (1 + params.shard.tune_share))
    mine = params.model_copy(update={"datasets": {"mine": chosen}})
    (found,) = recipe.room(mine, RUN)
    assert found.state == "ok"
    monkeypatch.setattr(recipe, "free_gb", lambda _: crops * 1.9e-9)
    (found,) = recipe.room(mine, RUN)
    assert found.state == "lacks" and "shard.url" in found.fix


def test_room_is_not_known_before_the_data_is_there(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sets = {"mine": own(people(tmp_path / "raw", persons=1000)), "coco": own(tmp_path, descriptor="coco17")}
    (found,) = recipe.room(params.model_copy(update={"datasets": sets}), RUN)
    assert found.state == "note" and found.found.startswith("not known until the data is there (coco); ")
    monkeypatch.setattr(recipe, "free_gb", lambda _: 0.0)
    (found,) = recipe.room(params.model_copy(update={"datasets": sets}), RUN)
    assert found.state == "lacks" and "at least" in found.found


def test_where_a_baseline_ends(params: Params) -> None:
    assert list(recipe.last_stage(params, RUN)) == []
    for values in ({"model.backbone": "hrnet_w32", "model.head": "heatmap"}, {"model.head": "simcc_plain"}):
        baseline = with_values(params, values)
        (found,) = recipe.last_stage(with_values(baseline, {"search.enabled": True}), RUN)
        assert (found.state, found.fix) == ("lacks", f"{GIVEN} -S search.enabled=false")
        (found,) = recipe.last_stage(with_values(baseline, {"search.enabled": False}), RUN)
        assert found.state == "note" and found.found.startswith("ends at the stage evaluate: model.")
        assert found.fix == f"{GIVEN} evaluate"


@pytest.mark.parametrize(
    ("workers", "share", "answer", "address", "fix"),
    [
        (1, 1, NO_GPU, "", f"{GIVEN} -S hardware=cpu"),
        (8, 1, TWO_GPUS, "", f"{GIVEN} -S hardware=gpu1"),
        (1, 1, {"error": "no torch"}, "", f"{GIVEN} -S hardware=cpu"),
        (2, 1, TWO_GPUS, "", ""),
        (4, 0.5, TWO_GPUS, "", ""),
        (1, 0, NO_GPU, "", ""),
        (8, 1, NO_GPU, "http://head:8265", ""),
    ],
)
def test_gpus_that_hardware_asks_for(
    params: Params, tmp_path: Path, workers: int, share: float, answer: dict[str, Any], address: str, fix: str
) -> None:
    values = {
        "hardware.workers": workers,
        "hardware.gpus_per_worker": share,
        "hardware.storage": str(tmp_path),
    }
    hardware, storage = recipe.devices(with_values(params, values), answer, address, RUN)
    assert (hardware.state, hardware.fix) == ("lacks" if fix else "ok", fix) and storage.state == "ok"


def test_storage_that_cannot_be_written(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    _, storage = recipe.devices(with_values(params, {"hardware.storage": "/shared/runs"}), NO_GPU, "", RUN)
    assert storage.state == "lacks" and storage.fix == f"{GIVEN} -S hardware.storage=FOLDER"


def test_recipes_are_composed_as_dvc_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = recipe.composed(["recipe=own_data", "datasets.own.raw=/data/my people"])
    assert (found.recipe, found.datasets["own"].raw) == ("own_data", "/data/my people")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hand5", "did you mean hand/hand5?"),
        ("halpe26", "did you mean body/halpe26 or body/halpe26_384"),
        ("parts/hand", "did you mean "),
        ("published", "there are animal/ap10k, body/aic_coco_384, "),
        ("", "there are animal/ap10k, "),
    ],
)
def test_a_recipe_that_is_none(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=rf"^recipe '{name}': no such recipe[^\n]*$") as raised:
        recipe.composed([f"recipe={name}", "model=s"])
    assert said in str(raised.value) and "published" not in str(raised.value)[30:]
    assert "parts/" not in str(raised.value)[20:]
