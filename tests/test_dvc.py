"""Every stage of dvc.yaml and ladder/dvc.yaml depends on the code that its result depends on: what its module
imports, found by following imports, or a reason why it does not count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rtmpose.ladder.run import LADDER_CODE
from rtmpose.search.run import SEARCH_CODE
from rtmpose.training.job import TRAINING_CODE
from tests.support import ROOT
from tests.test_floors import imported_by, modules
from tests.training.test_job import PACKAGE, closure, excused, files

# What a stage imports besides, and why an edit of it need not run the stage again.
READS_MIX = "reads mix.json, which the stage depends on"
READS_CHOICE = "reads search.json, which the stage depends on"
SAMPLES = "reads the eight persons that parity is measured on"
SAYS_WHOSE_DATA = "reads what initial weights note of their data, and changes no number"
READS_EVIDENCE = "reads what others measured, and opens no network"
EXCUSES = {
    "pretrain": dict.fromkeys(("released", "deploy", "detection.graph"), SAYS_WHOSE_DATA),
    "finetune": dict.fromkeys(("released", "deploy", "detection.graph"), SAYS_WHOSE_DATA),
    "mix": {"data": "reads manifests", "geometry": "as data", "skeleton": "as data"},
    "evaluate": {"search": READS_CHOICE, "data.stream": READS_MIX},
    "register": {"skeleton": READS_EVIDENCE},
    "report": {"oks": READS_EVIDENCE, "skeleton": READS_EVIDENCE},
    "export": {"search": READS_CHOICE, "data.stream": READS_MIX, "data.shards": SAMPLES, "data.raw": SAMPLES},
}


def stages() -> dict[str, dict[str, Any]]:
    """The stages of both files by name, those of `foreach` as the one that they repeat."""
    found: dict[str, dict[str, Any]] = {}
    for name in ("dvc.yaml", "ladder/dvc.yaml"):
        for stage, content in yaml.safe_load((ROOT / name).read_text())["stages"].items():
            found[stage] = content.get("do", content)
    return found


def code_of(stage: dict[str, Any]) -> set[str]:
    """The stage's dependencies on the library, below the package."""
    return {path.removeprefix("rtmpose/") for path in stage["deps"] if path.startswith("rtmpose/")}


@pytest.mark.parametrize("stage", ["pretrain", "search", "finetune", "ladder"])
def test_stages_that_train_name_the_same_folders(stage: str) -> None:
    """A run's own name goes by the single files that it depends on. So an edit elsewhere in these folders
    runs the stage again, and the stage then finds its run finished.
    """
    common = code_of(stages()["pretrain"])
    more = {"search": set(SEARCH_CODE), "finetune": {"search/choice.py"}, "ladder": {"ladder"}}
    assert code_of(stages()[stage]) == common | more.get(stage, set())
    assert files(TRAINING_CODE) <= files(tuple(common)) and set(LADDER_CODE) == {*TRAINING_CODE, "ladder"}


@pytest.mark.parametrize("stage", stages())
def test_stages_depend_on_the_code_they_import(stage: str) -> None:
    known = modules(PACKAGE)
    module = Path("pipelines") / f"{stage}.py"
    assert str(module) in stages()[stage]["deps"]
    named = files(tuple(code_of(stages()[stage])))
    imported = closure(*imported_by(ROOT / module, "rtmpose", known))
    missing = {name for name in imported if not excused(name) and known[name] not in named}
    excuses = EXCUSES.get(stage, {})
    used = {each for each in excuses for name in missing if name == each or name.startswith(f"{each}.")}
    unexcused = {name for name in missing if not any(f"{name}.".startswith(f"{each}.") for each in excuses)}
    assert not unexcused and used == set(excuses)


def test_the_stage_that_judges_by_descriptors_depends_on_them() -> None:
    """Each set's figures go by the metrics that its own descriptor names, so another one judges it anew."""
    wanted = {"datasets", "rtmpose/descriptors.py", "rtmpose/config/metrics.py"}
    assert wanted <= set(stages()["evaluate"]["deps"])
