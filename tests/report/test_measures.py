"""The page says what a set is judged by besides AP, what the network is called, and what guided it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from rtmpose.config import ModelParams
from rtmpose.files import UserError
from rtmpose.report.blocks import Note, Table
from rtmpose.report.folder import Folder
from rtmpose.report.page import _title
from rtmpose.report.sections.accuracy import _sets, accuracy
from rtmpose.report.sections.data import _model, network_name
from rtmpose.report.sections.measures import measured
from tests.report.conftest import write

PCK = {"value": 0.9, "low": 0.85, "high": 0.94, "unit": "share", "groups": {"head": 0.95, "legs": None},
       "keypoints": {"nose": 0.97, "left_eye": None}}  # fmt: skip
EPE = {"value": 4.2, "low": 4.0, "high": 4.5, "unit": "px"}
RADIAL = {
    "MRE": 1.5, "MRE_low": 1.4, "MRE_high": 1.625, "SD": 1.2, "SDR": {"2mm": 0.8}, "SDR_low": {"2mm": 0.75},
    "SDR_high": {"2mm": 0.85}, "landmarks": {"sella": 0.625},
}  # fmt: skip


def change_params(run: Folder, **changes: Any) -> None:
    content = yaml.safe_load((run.path / "params.yaml").read_text())
    for key, value in changes.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    (run.path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def test_every_metric_of_a_set_is_on_the_page(run: Folder) -> None:
    figures = json.loads((run.path / "metrics/evaluate.json").read_text())
    hard = figures | {"mre": RADIAL, "parts": {"face": {"AP": 0.5, "AR": 0.6}}}
    detected = {"detector_measures": {"PCK@0.2": PCK | {"value": 0.8}}}
    judged = {"measures": {"PCK@0.2": PCK, "EPE": EPE}, "unmeasured": {"pckh": "no head_size"}} | detected
    write(run.path / "metrics/evaluate.json", figures | judged | {"hard": hard})
    blocks = measured(run).blocks
    tables = {block.caption: block.rows for block in blocks if isinstance(block, Table)}
    assert tables == {
        "coco17: what it is judged by besides AP": (
            ("PCK@0.2", "90.00 %", "85.00 to 94.00", "80.00 %", "85.00 to 94.00"),
            ("PCK@0.2, head", "95.00 %", "–", "95.00 %", "–"),
            ("PCK@0.2, legs", "–", "–", "–", "–"),
            ("EPE", "4.20 px", "4.00 to 4.50", "–", "–"),
        ),
        "coco17: by point": (("nose", "97.00 %"), ("left_eye", "–")),
        "hard: what it is judged by besides AP": (
            ("MRE", "1.500 ± 1.200 mm", "1.400 to 1.625", "–", "–"),
            ("SDR at 2mm", "80.0 %", "75.0 to 85.0", "–", "–"),
        ),
        "hard: AP and AR of each part": (("face", "50.0", "60.0"),),
        "hard: mean radial error by landmark": (("sella", "0.625 mm"),),
    }
    assert [block.text for block in blocks if isinstance(block, Note)] == [
        "coco17: pckh is not measured: no head_size."
    ]


def test_all_sets_together_are_on_the_page(run: Folder) -> None:
    figures = json.loads((run.path / "metrics/evaluate.json").read_text())
    together = {"name": "Body8", "images": 9, "persons": 12, "measures": {"EPE": EPE}}
    write(run.path / "metrics/evaluate.json", figures | {"pooled": together})
    (table,) = measured(run).blocks
    assert isinstance(table, Table) and table.rows == (("EPE", "4.20 px", "4.00 to 4.50", "–", "–"),)
    assert table.caption.startswith("Body8, 12 persons of all sets together")
    write(run.path / "metrics/evaluate.json", figures | {"pooled": {"name": 8}})
    with pytest.raises(UserError, match=r"evaluate\.json: pooled: .*`dvc repro evaluate` writes it$"):
        measured(run)


def test_sets_that_are_judged_by_ap_alone_have_no_table(run: Folder) -> None:
    assert measured(run).blocks == ()


def test_estimated_sigmas_and_a_flip_test_that_was_not_done_are_told(run: Folder) -> None:
    (table, *_) = _sets(run).blocks
    assert isinstance(table, Table) and "with flip test" in table.caption
    content = yaml.safe_load((run.path / "params.yaml").read_text())
    lateral = {"coco17": content["datasets"]["coco17"] | {"descriptor": "cephalometric38"}}
    finetune = {"skeleton": "cephalometric38"}
    change_params(run, skeleton="cephalometric38", datasets=lateral, finetune=finetune)
    (table, *_) = _sets(run).blocks
    assert isinstance(table, Table) and "without flip test" in table.caption
    (note,) = measured(run).blocks
    assert isinstance(note, Note) and note.text.startswith("AP of coco17 is by estimated sigmas")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "RTMPose-m"),
        ({"neck": "rtmw"}, "RTMW-m"),
        ({"backbone": "hrnet_w32", "head": "heatmap"}, "HRNet-W32"),
        ({"backbone": "hrnet_w48", "head": "heatmap"}, "HRNet-W48"),
        ({"backbone": "resnet50", "head": "simcc_plain"}, "ResNet-50"),
        ({"head": "heatmap"}, "CSPNeXt-m"),
    ],
)
def test_a_network_is_called_by_its_name(changes: dict[str, Any], name: str) -> None:
    model = {"size": "m", "weight_decay": 0.0, "ema_momentum": 0.0} | changes
    assert network_name(ModelParams.model_validate(model)) == name


def test_the_page_is_called_by_the_network(run: Folder) -> None:
    change_params(run, model={"backbone": "hrnet_w32", "head": "heatmap"})
    assert _title(run) == "HRNet-W32 96×128, recipe mannequin"


def test_the_teacher_and_the_fresh_head_are_told(run: Folder) -> None:
    content = json.loads((run.path / "models/receipt.json").read_text())
    head = {"taken": True, "best_AP": 0.62, "first_AP": 0.6, "steps": 20, "samples": 1280, "best_epoch": 2}
    told = {"teacher": "/w/teacher.pt", "teacher_sha256": "ef01", "head": head}
    write(run.path / "models/receipt.json", content | told)
    (table,) = _model(run).blocks
    assert isinstance(table, Table)
    rows = {row[0]: row[1] for row in table.rows}
    assert rows["finetuned on"] == "50176 samples in 784 updates", "the first stage's"
    assert rows["guided by"] == "teacher.pt, sha256 ef01"
    assert rows["fresh head"] == (
        "taken: AP 62.0 after 60.0 on the tuning split; 1280 samples in 20 updates, best epoch 2"
    )


def test_a_file_that_two_parts_need_is_missed_once(run: Folder) -> None:
    (run.path / "metrics/evaluate.json").unlink()
    missed = [block for block in accuracy(run).blocks if "metrics/evaluate.json" in repr(block)]
    assert len(missed) == 1
