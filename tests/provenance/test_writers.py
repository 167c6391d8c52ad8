"""Everything that writes weights says whose data is in them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rtmpose.cli.app import app
from rtmpose.config import load_params
from rtmpose.detection.evaluate import Photograph
from rtmpose.detection.network import RTMDet
from rtmpose.detection.train import sources
from rtmpose.models import build_pose_net, save_tensors
from rtmpose.provenance.sources import UNKNOWN, DataSource, note
from rtmpose.released.checkpoint import sources_in
from rtmpose.training.launch import untrained
from tests.detection import planted
from tests.support import ROOT

DATA = (
    DataSource(name="coco17", sha256="a" * 64, licence="CC BY 4.0"),
    DataSource(name="aic", sha256="b" * 64, licence="research use only", use="pretraining"),
)
# Every function that writes weights, and what holds that they keep their note. A new one belongs here.
WRITERS = {
    "cli/released.py:prune": "here",
    "cli/released.py:_converted_checkpoint": "here",
    "training/launch.py:untrained": "here",
    "training/launch.py:hand_over": "test_sources.py",
    "training/checkpoint.py:_write": "test_sources.py; of detectors: tests/detection/test_train.py",
    "released/checkpoint.py:save_checkpoint": "writes the card that it is given",
    "models/weights.py:save_tensors": "writes what it is given",
    "ladder/run.py:with_prefix": "read by one rung, and handed to nobody",
    "search/trial.py:snapshot": "read by the same trial, and handed to nobody",
    "search/trial.py:warm_up": "read by the same trial, and handed to nobody",
}


def writers(folder: Path) -> Iterator[str]:
    """The functions below a folder that write weights by our helpers or by PyTorch."""
    for path in sorted(folder.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and any(_saves(node) for node in ast.walk(function)):
                yield f"{path.relative_to(folder)}:{function.name}"


def _saves(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="save_tensors" | "save_checkpoint")):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="save")):
            return True
    return False


def test_every_writer_of_weights_is_held_to_its_note() -> None:
    assert set(writers(ROOT / "rtmpose")) == set(WRITERS)
    assert not list(writers(ROOT / "pipelines"))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of the size s, which note `DATA`; the current folder is theirs."""
    monkeypatch.chdir(tmp_path)
    net = build_pose_net("s", input_size=(64, 64))
    save_tensors(tmp_path / "s.pt", {"meta": note(DATA), "state_dict": net.state_dict()})
    return tmp_path / "s.pt"


@pytest.mark.parametrize("command", [["weights", "prune", "s.pt", "out.pt", "--to", "t"],
                                     ["convert", "s.pt", "-o", "out.pt"]])  # fmt: skip
def test_commands_keep_the_note(command: list[str], weights: Path) -> None:
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert sources_in(weights.with_name("out.pt")) == DATA


def test_weights_that_are_handed_on_untrained_keep_the_note(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    untrained(params, None, tmp_path / "out.pt", tmp_path / "receipt.json", DATA)
    assert sources_in(tmp_path / "out.pt") == DATA


@pytest.mark.parametrize("name", ["first.pt", "rtmdet-nano-person.onnx", "found.onnx"])
def test_a_detector_notes_its_photographs_and_what_it_started_from(name: str, tmp_path: Path) -> None:
    init = tmp_path / name
    if init.suffix == ".pt":
        save_tensors(init, {"meta": note(DATA), "state_dict": RTMDet("nano").state_dict()})
    else:
        planted.write(init, planted.outputs("boxes"))
    photographs = [Photograph(1, tmp_path / "shop/a.jpg", 64, 64, np.empty((0, 4)), ())]
    own, *before = sources(init, photographs)
    assert (own.name, own.licence, own.use) == ("shop", UNKNOWN, "training")
    assert {one.use for one in before} == {"initial weights"}
    wanted = {"first.pt": "coco17", "found.onnx": "found.onnx"}.get(name, "rtmdet-nano-person")
    assert before[0].name == wanted
    assert [one.name for one in sources("nano", photographs)] == ["shop"]
