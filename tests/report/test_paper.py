"""The paper's row stands beside a run of its recipe alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rtmpose.config import Params, load_params
from rtmpose.report.blocks import Note, Table
from rtmpose.report.folder import UNKNOWN, Folder
from rtmpose.report.sections.beside import other_figures, row_and_note
from rtmpose.report.sections.paper import Published, published
from rtmpose.report.sections.systems import RECIPES
from tests.report.conftest import write
from tests.report.test_measures import RADIAL
from tests.support import ROOT
from tests.test_workflow import compose


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Params:
    return load_params(compose(tmp_path_factory.mktemp("coco"), "recipe=coco17"))


def changed(params: Params, **groups: dict[str, Any]) -> Params:
    return params.model_copy(
        update={name: getattr(params, name).model_copy(update=values) for name, values in groups.items()}
    )


@pytest.mark.parametrize(("size", "ap"), [("t", 68.5), ("s", 72.2), ("m", 75.8), ("l", 76.5)])
def test_the_papers_recipe_has_the_papers_row(coco: Params, size: str, ap: float) -> None:
    found = published(changed(coco, model={"size": size}))
    assert isinstance(found, Published) and found.ap == ap


def test_another_recipe_has_none_and_why(coco: Params) -> None:
    def why(params: Params) -> str:
        found = published(params)
        assert isinstance(found, str)
        return found

    assert "rendered" in why(load_params(ROOT / "params.yaml"))
    assert "finetuning: 7, the paper's 420" in why(changed(coco, finetune={"epochs": 7}))
    assert "pretraining: 0" in why(changed(coco, pretrain={"enabled": False}))
    assert "size x" in why(changed(coco, model={"size": "x"}))
    assert "256×256" in why(coco.model_copy(update={"input_size": (256, 256)}))
    once = coco.datasets | {"coco17": coco.datasets["coco17"].model_copy(update={"repeat": 1})}
    assert "coco17 ×1" in why(coco.model_copy(update={"datasets": once}))
    more = coco.datasets | {"mpii": coco.datasets["aic"].model_copy(update={"descriptor": "mpii"})}
    assert "no figure of the paper is held here" in why(coco.model_copy(update={"datasets": more}))
    # A second set in the same layout is another set.
    twice = coco.datasets | {"mine": coco.datasets["coco17"]}
    assert "no figure of the paper is held here" in why(coco.model_copy(update={"datasets": twice}))
    assert "finetune from: mine.pt" in why(changed(coco, finetune={"init": "mine.pt"}))


@pytest.mark.parametrize(
    ("recipe", "size", "ap"),
    [
        ("body/coco", "m", 74.6),
        ("wholebody133", "m", 58.2),
        ("wholebody/coco_384", "x", 65.3),
        ("body/body8_384", "x", 78.8),
        ("body/body8_384", "m", 76.6),
        ("body/aic_coco_384", "l", 77.3),
        ("body/crowdpose", "m", 70.6),
        ("body/humanart", "m", 35.5),
        ("animal/ap10k", "m", 72.2),
    ],
)
def test_a_published_recipe_has_its_row(tmp_path: Path, recipe: str, size: str, ap: float) -> None:
    params = load_params(compose(tmp_path, f"recipe={recipe}", f"model={size}"))
    found = published(params)
    assert isinstance(found, Published) and found.ap == ap
    assert found.init == (None if params.pretrain.enabled else params.pretrain.init)


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ("rtmw133", "another system: model.neck is rtmw, RTMPose's none"),
        ("dwpose133", "another system: a teacher guides it"),
        ("body/coco_384", "no figure of the paper is held here for size m at 288×384"),
        ("cephalometric", "no figure of the paper is held here for size m at 512×512"),
    ],
)
def test_a_recipe_without_a_row_says_why(tmp_path: Path, recipe: str, why: str) -> None:
    found = published(load_params(compose(tmp_path, f"recipe={recipe}")))
    assert isinstance(found, str) and why in found


@pytest.mark.parametrize(
    ("recipe", "size", "figures"),
    [
        ("body/body8", "t", {"PCK@0.1": 91.44, "AUC": 63.18, "EPE": 19.45}),
        ("body/halpe26", "m", {"PCK@0.1": 94.75, "AUC": 71.91}),
        ("body/halpe26_384", "x", {"PCK@0.1": 95.74, "AUC": 74.82}),
        ("body/crowdpose", "m", {"AP easy": 79.9, "AP medium": 71.9, "AP hard": 58.2}),
        ("body/mpii", "m", {"PCKh@0.5": 90.7, "PCKh@0.1": 34.8}),
        ("hand/hand5", "m", {"PCK@0.2": 96.4, "AUC": 83.9, "EPE": 5.06}),
        ("hand/coco_wholebody", "m", {"PCK@0.2": 83.7, "AUC": 81.5, "EPE": 4.51}),
        ("face/face6", "s", {"NME": 1.59}),
        ("face/lapa", "m", {"NME": 1.29}),
        ("face/wflw", "m", {"NME": 4.01}),
        ("face/coco_wholebody", "m", {"NME": 4.66}),
    ],
)
def test_a_published_recipe_has_its_other_figures(
    tmp_path: Path, recipe: str, size: str, figures: dict[str, float]
) -> None:
    found = published(load_params(compose(tmp_path, f"recipe={recipe}", f"model={size}")))
    assert isinstance(found, Published) and found.others == figures


def of_a_run(path: Path, evaluated: dict[str, Any], *words: str) -> tuple[Table, Note]:
    """The other figures on the page of a run of a recipe."""
    compose(path, *words)
    write(path / "metrics/evaluate.json", evaluated)
    table, note = other_figures(Folder(path, "a run", UNKNOWN)).blocks
    assert isinstance(table, Table) and isinstance(note, Note)
    return table, note


def test_the_published_figures_stand_beside_those_of_all_sets_together(tmp_path: Path) -> None:
    auc, own = {"value": 0.7, "low": 0.6, "high": 0.8, "unit": "share"}, {"value": 0.1, "unit": "share"}
    figures = {"AP": 0.7, "measures": {"AUC": own}, "pooled": {"name": "Body8", "measures": {"AUC": auc}}}
    table, note = of_a_run(tmp_path, figures, "recipe=body/halpe26")
    assert table.rows == (
        ("PCK@0.1", "94.75 %", "–", "–"), ("AUC", "71.91 %", "70.00 %", "60.00 to 80.00"),
    )  # fmt: skip
    assert "eight sets of Body8 together" in note.text and "alone" not in note.text
    apart = {"AP": 0.7, "measures": {"AUC": own}, "aic": {"AP": 0.6, "measures": {}}}
    table, note = of_a_run(tmp_path, apart, "recipe=body/halpe26")
    assert table.rows[1][2] == "10.00 %" and note.text.endswith("This run's are of halpe26 alone.")


def test_the_published_figures_of_crowds_stand_beside_those_on_a_detectors_boxes(tmp_path: Path) -> None:
    own, found = ({"AP easy": {"value": value, "low": 0.5, "high": 0.9}} for value in (0.9, 0.8))
    figures = {"AP": 0.7, "measures": own, "detector_measures": found}
    table, _ = of_a_run(tmp_path, figures, "recipe=body/crowdpose")
    assert table.rows[0] == ("AP easy", "79.9 %", "80.00 %", "50.00 to 90.00")


def test_the_heatmap_baseline_has_its_published_errors_in_mm(tmp_path: Path) -> None:
    figures = {"AP": 0.7, "mre": RADIAL}
    table, note = of_a_run(tmp_path, figures, "recipe=cephalometric_hrnet", "model=hrnet_w32")
    assert table.rows[:2] == (
        ("MRE", "2.199 mm", "1.500 ± 1.200 mm", "1.400 to 1.625"),
        ("SDR at 2mm", "65.5 %", "80.0 %", "75.0 to 85.0"),
    )
    assert "CL-Detection2023-MMPose" in note.text and "not those of this split" in note.text
    row, told = row_and_note(load_params(tmp_path / "params.yaml"))
    assert row is None and "MRE, SDR at 2mm" in told.text


def test_ap_on_annotated_boxes_stands_under_those(tmp_path: Path) -> None:
    ap10k = load_params(compose(tmp_path, "recipe=animal/ap10k"))
    row, note = row_and_note(ap10k)
    assert row is not None and (row[1], row[8]) == ("72.2", "–") and "on ground-truth boxes" in note.text


def test_the_guides_have_every_published_figure() -> None:
    text = "".join((ROOT / "docs" / name).read_text() for name in ("recipes.md", "cephalometric.md"))
    shown = set(re.findall(r"\d+\.\d+", text))
    figures = [value for one in RECIPES for row in one.rows.values() for value in row.values()]
    assert not [value for value in figures if not shown & {str(value), f"{value:.2f}"}]


def test_the_papers_row_stands_under_the_boxes_that_it_was_measured_on(coco: Params) -> None:
    row, note = row_and_note(coco)
    assert row is not None and (row[1], row[7], row[8]) == ("–", "–", "75.8")
    assert "on detector boxes" in note.text
    whole = changed(coco, evaluate={"boxes": ["detections"]}, pretrain={"enabled": False, "init": "b.pt"})
    row, note = row_and_note(whole)
    assert row is not None and (row[1], row[8]) == ("75.8", "–") and "backbone is that of b.pt" in note.text
