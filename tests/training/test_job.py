"""The code that a trained network depends on is named whole: what a worker imports, or a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rtmpose.checkout import JOB_HOME
from rtmpose.config import Params, load_params
from rtmpose.descriptors import load_skeleton
from rtmpose.ladder.run import LADDER_CODE
from rtmpose.search.run import SEARCH_CODE
from rtmpose.skeleton import Skeleton
from rtmpose.training.job import TRAINING_CODE, job_fingerprint, shared_mix
from tests.support import ROOT
from tests.test_floors import imports, modules

PACKAGE = ROOT / "rtmpose"
# What a worker imports besides, by package or module, and why an edit of it changes no result.
WITHOUT_EFFECT = {
    "tracking": "logs what was computed",
    "cluster": "says where work runs",
    "provenance": "says whose data it is, which changes no number",
    "precision": "chooses what a run computes in, which its fingerprint holds",
    "machine": "says what a machine can compute in",
    "config": "reads parameters, whose values a run's fingerprint holds",
    "drawing": "draws what was computed",
    "ending": "says how a command ends",
    "descriptors": "reads skeletons, whose content a run's fingerprint holds",
    "checkout": "says where files lie",
    "files": "reads and writes bytes as they are",
    "strict_yaml": "reads parameters, as config does",
    "fingerprint": "names runs",
    "data.raw.mpii": "sizes of heads, which metrics divide by",
    "data.shards.cache": "copies whole shards, whose hashes the manifest holds",
    "data.raw.annotations": "reads raw folders, which training does not",
    "data.raw.stacks.cl_detection": "reads raw folders, which training does not",
    "data.raw.limits": "refuses what is too large to decode, and changes no pixel",
    "data.raw.doubts": "says what is implausible in raw folders",
    "data.raw.formats": "reads raw folders, which training does not",
    "data.raw.records": "holds what was read",
}


@cache
def edges() -> dict[str, set[str]]:
    """What every module of the library imports of it."""
    found: dict[str, set[str]] = {}
    for each in imports(PACKAGE):
        found.setdefault(each.importer, set()).add(each.imported)
    return found


def closure(*roots: str) -> set[str]:
    """Every module of the library that importing and running `roots` loads."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += edges().get(module, ())
    return found


def files(code: tuple[str, ...]) -> set[Path]:
    """The Python files that a tuple of folders and files names."""
    paths = [PACKAGE / name for name in code]
    assert all(path.exists() for path in paths), code
    return {file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])}


def excused(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in WITHOUT_EFFECT)


@pytest.mark.parametrize(
    ("code", "roots"),
    [
        (TRAINING_CODE, ["training.job", "training.launch"]),
        ((*TRAINING_CODE, *SEARCH_CODE), ["search.run", "search.tune"]),
        (LADDER_CODE, ["ladder.run"]),
    ],
    ids=["training", "search", "ladder"],
)
def test_what_a_worker_imports_is_named(code: tuple[str, ...], roots: list[str]) -> None:
    known = modules(PACKAGE)
    imported = {module for module in closure(*roots) if not excused(module)}
    assert {known[module] for module in imported} <= files(code)


def test_every_excuse_is_needed() -> None:
    found = closure("training.job", "training.launch")
    for name in WITHOUT_EFFECT:
        assert any(module == name or module.startswith(f"{name}.") for module in found), name


def test_a_job_reads_shards_where_all_machines_see_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    (copy / "data/carried").mkdir(parents=True)
    (copy / "mix.json").write_text(
        json.dumps(
            {
                "train": [{"dir": "data/carried", "repeat": 1}, {"dir": "data/shards/b", "repeat": 2}],
                "tune": [{"dir": "data/shards/tune"}],
                "val": [{"dataset": "far", "dir": "/elsewhere/val"}],
            }
        )
    )
    monkeypatch.chdir(copy)
    here = shared_mix(Path("mix.json"))
    assert [entry.dir for entry in here.train] == [copy / "data/carried", copy / "data/shards/b"]
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv(JOB_HOME, "/shared/rtmpose")
    there = shared_mix(Path("mix.json"))
    assert [entry.dir for entry in there.train] == [
        copy / "data/carried",
        Path("/shared/rtmpose/data/shards/b"),
    ]
    assert there.tune == Path("/shared/rtmpose/data/shards/tune") and there.val == {
        "far": Path("/elsewhere/val")
    }
    assert [entry.repeat for entry in there.train] == [1, 2]


def test_what_is_shown_of_a_run_does_not_name_it(tmp_path: Path) -> None:
    params, mix = load_params(ROOT / "params.yaml"), tmp_path / "mix.json"
    mix.write_text("{}")

    def name(**changes: Any) -> str:
        changed: Params = params.model_copy(update={"finetune": params.finetune.model_copy(update=changes)})
        return job_fingerprint("finetune", changed, mix, None, 0.1, None)

    assert name() == name(picture_every=None, log_steps=3) != name(epochs=1)


def test_a_sigma_names_a_run_only_where_it_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretraining on 19 points is evaluated on COCO's 17: by their sigmas the best weights are chosen."""
    params, mix = load_params(ROOT / "params.yaml"), tmp_path / "mix.json"
    mix.write_text("{}")
    pretrain = params.pretrain.model_copy(update={"skeleton": "coco_aic19"})
    params = params.model_copy(update={"pretrain": pretrain})

    def named(edited: str) -> str:
        def load(name: str) -> Skeleton:
            found = load_skeleton(name)
            return replace(found, sigmas=(0.5, *found.sigmas[1:])) if name == edited else found

        monkeypatch.setattr("rtmpose.training.job.load_skeleton", load)
        return job_fingerprint("pretrain", params, mix, None, 0.1, None)

    assert named("none") == named("coco_aic19") != named("coco17")
