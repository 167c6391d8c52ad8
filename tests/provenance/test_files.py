"""Whose data is in files that run elsewhere, and in those that are made from weights that say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
from typer.testing import CliRunner

from rtmpose.cli.app import app
from rtmpose.config import Architecture
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.e2e import e2e_path
from rtmpose.deploy.quantize.openvino import save_quantized
from rtmpose.detection.evaluate import Photograph
from rtmpose.detection.graph import PROPERTY, DetectorCard
from rtmpose.detection.network import RTMDet
from rtmpose.detection.train import sources
from rtmpose.files import sha256_of
from rtmpose.models import MEAN, STD, build_pose_net, save_tensors
from rtmpose.provenance.sources import UNKNOWN, DataSource, lines, note
from rtmpose.released.checkpoint import sources_in
from tests.detection import planted
from tests.released.conftest import SIZE, network

DATA = (
    DataSource(name="coco17", sha256="a" * 64, licence="CC BY 4.0"),
    DataSource(name="aic", sha256="b" * 64, licence="research use only", use="pretraining"),
)


def told(*arguments: str) -> str:
    """What a command prints; it must end well."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def written(name: str, folder: Path, data: Sequence[DataSource] = DATA) -> Path:
    """Weights in one of the forms that a card or a note goes into."""
    path = folder / name
    pose = ModelCard.of(Architecture(size="t"), SIZE, "coco17").with_more(
        data=[one.model_dump() for one in data]
    )
    if name == "rtmdet.pth":
        save_tensors(path, {"meta": note(data), "state_dict": RTMDet("nano").state_dict()})
    elif name.startswith("detector"):
        card = DetectorCard(size="nano", input_size=planted.SIZE, channels="rgb", mean=MEAN, std=STD,
                            classes=("person",), data=tuple(data))  # fmt: skip
        planted.write(path, planted.outputs("boxes"), properties={PROPERTY: card.model_dump_json()})
    else:
        model = network()
        onnx.helper.set_model_props(model, pose.properties())
        onnx.save(model, str(path.with_suffix(".onnx")))
        if path.suffix == ".xml":
            exported = path.with_suffix(".onnx")
            save_quantized(ov.Core().read_model(str(exported)), path, pose, exported)
    return path


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("pose.onnx", "size t, 32x64, 17 points of coco17, fp32"),
        ("pose.xml", "size t, 32x64, 17 points of coco17, fp32"),
        ("detector.onnx", "RTMDet-nano, 96x64, 1 class(es)"),
        ("rtmdet.pth", "RTMDet-nano, 1 class(es)"),
    ],
)
def test_check_says_whose_data_is_in_every_kind_of_file(name: str, what: str, tmp_path: Path) -> None:
    path = written(name, tmp_path)
    assert sources_in(path) == DATA
    assert told("weights", "check", str(path)).splitlines() == [f"{path}: {what}", *lines(DATA)]
    refused = CliRunner().invoke(app, ["weights", "check", str(path), "--size", "t"])
    assert "leave --size, --input" in str(refused.exception)


def test_a_graph_without_a_card_is_known_by_its_name_or_not_at_all(tmp_path: Path) -> None:
    for name in ("found", "rtmdet-nano-person"):
        planted.write(tmp_path / f"{name}.onnx", planted.outputs("boxes"))
    found = told("weights", "check", str(tmp_path / "found.onnx"))
    assert "a network without a card of ours\ndata: not known" in found
    assert "data: Objects365 (training): not known" in told(
        "weights", "check", str(tmp_path / "rtmdet-nano-person.onnx")
    )


def test_training_goes_on_from_what_a_detectors_file_says(tmp_path: Path) -> None:
    photographs = [Photograph(1, tmp_path / "shop/a.jpg", 64, 64, np.empty((0, 4)), ())]
    _, *before = sources(written("detector.onnx", tmp_path), photographs)
    assert [(one.name, one.use) for one in before] == [(one.name, "initial weights") for one in DATA]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["convert", "bare.pt", "-o", "out.pt"], "bare.pt"),
        (["convert", "bare.onnx", "-o", "out.onnx", "--skeleton", "coco17"], "bare.onnx"),
        (["weights", "prune", "bare.pt", "out.pt", "--to", "t"], "bare.pt"),
        (["export", "bare.pt", "out.onnx"], "bare.pt"),
        (["detector", "export", "rtmdet.pt", "out.onnx", "--input", "64x64"], "rtmdet.pt"),
    ],
)
def test_what_is_made_from_unknown_weights_says_so(
    command: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for module in ("rtmpose.deploy.export", "rtmpose.detection.conversion"):  # tracing takes seconds
        monkeypatch.setattr(f"{module}.traced", lambda *_: network())
    monkeypatch.setattr("rtmpose.deploy.e2e.export_e2e", e2e_path)
    if name == "bare.onnx":
        onnx.save(network(), name)
    else:
        net = RTMDet("nano") if name == "rtmdet.pt" else build_pose_net("s", input_size=SIZE)
        save_tensors(Path(name), {"state_dict": net.state_dict()})
    told(*command)
    (source,) = sources_in(next(one for one in tmp_path.glob("out.*") if "e2e" not in one.name)) or ()
    assert source == DataSource(
        name=name, sha256=sha256_of(tmp_path / name), licence=UNKNOWN, use="initial weights"
    )
