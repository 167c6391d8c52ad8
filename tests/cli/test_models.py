"""`rtmpose export` and `rtmpose weights check` on every network that params.yaml can train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from torch import nn

from rtmpose.cli.models import asked, export
from rtmpose.cli.released import check, convert, prune
from rtmpose.deploy.e2e import EndToEnd, e2e_path
from rtmpose.deploy.origin import EXPORTED, belonging
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.runtimes.session import open_session
from rtmpose.files import UserError
from rtmpose.models import build_pose_net
from tests.released.conftest import network
from tests.support import ROOT

SIZE = (96, 128)
NETWORKS: dict[str, dict[str, Any]] = {
    "simcc, kernel 3": {"kernel": 3},
    "simcc, hidden 48, no gau": {"hidden": 48, "gau": False, "kernel": 1},
    "simcc_plain": {"head": "simcc_plain", "kernel": 3},
    "simcc_deconv": {"head": "simcc_deconv", "hidden": 16},
    "heatmap": {"head": "heatmap", "hidden": 24},
    "resnet50": {"backbone": "resnet50", "kernel": 1, "hidden": 32},
    "resnet50, heatmap": {"backbone": "resnet50", "head": "heatmap", "hidden": 24},
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No params.yaml lies here unless a test puts it here."""
    monkeypatch.chdir(tmp_path)


def saved(path: Path, points: int = 17, **options: Any) -> nn.Module:
    """A network with seeded random weights, and its file."""
    torch.manual_seed(0)
    model = build_pose_net("t", num_keypoints=points, input_size=SIZE, **options)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    torch.save(model.state_dict(), path)
    return model.eval()


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS.keys())
def test_weights_say_which_network_they_are_of(options: dict[str, Any]) -> None:
    saved(Path("w.pt"), **options)
    size = "96x128" if options.get("head") == "heatmap" else None
    found = asked(Path("w.pt"), None, None, size, None, None)
    assert found.input_size == SIZE
    assert {name: getattr(found.architecture, name) for name in options} == options


@pytest.mark.parametrize("kind", ["simcc, hidden 48, no gau", "resnet50, heatmap"])
def test_every_network_is_exported_without_an_option_but_what_its_weights_cannot_say(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = NETWORKS[kind]
    model = saved(Path("w.pt"), **options)
    heatmap = options.get("head") == "heatmap"
    export(Path("w.pt"), Path("w.onnx"), input_size="96x128" if heatmap else None)
    printed = json.loads(capsys.readouterr().out)
    assert printed["skeleton"] == "coco17" and printed["keypoints_px_max"] < 1 and printed["max_diff"] < 1e-2
    session = onnxruntime.InferenceSession("w.onnx", providers=["CPUExecutionProvider"])
    names = ["heatmaps"] if heatmap else ["simcc_x", "simcc_y"]
    assert [output.name for output in session.get_outputs()] == names
    images = np.random.default_rng(1).standard_normal((3, 3, SIZE[1], SIZE[0]), np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images))
    files = ModelFiles(Path("w.onnx"), Path("w.pt"))
    for infer in (open_session("onnxruntime", files), open_session("pytorch", files)):
        outputs = infer(images)
        for output, right in zip(outputs, (expected,) if heatmap else expected, strict=True):
            scale = float(right.abs().max())
            np.testing.assert_allclose(output, right.numpy(), atol=1e-4 * scale)
    assert printed["end_to_end"] == "w.e2e.onnx"
    assert EndToEnd.open(Path("w.e2e.onnx"))(np.zeros((2, 128, 96, 3), np.uint8)).keypoints.shape == (
        2,
        17,
        2,
    )
    card = read_card(Path("w.onnx"))
    assert card.input_size == SIZE and {name: getattr(card, name) for name in options} == options


def test_halves_are_exported_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tracing takes seconds: a small graph stands for both."""
    saved(Path("w.pt"))
    asked: list[torch.dtype] = []

    def small(module: torch.nn.Module, *_: object) -> onnx.ModelProto:
        asked.append(next(module.parameters()).dtype)
        return network()

    monkeypatch.setattr("rtmpose.deploy.export.traced", small)
    monkeypatch.setattr("rtmpose.deploy.export.parity", lambda *_: {"max_diff": 0.0})
    monkeypatch.setattr("rtmpose.deploy.e2e.export_e2e", e2e_path)
    export(Path("w.pt"), Path("w.onnx"), fp16=True)
    printed = json.loads(capsys.readouterr().out)
    assert asked == [torch.float32, torch.float16]
    assert (printed["fp16"], printed["fp16_end_to_end"]) == ("w.fp16.onnx", "w.fp16.e2e.onnx")
    noted = {one.key: one.value for one in onnx.load("w.fp16.onnx").metadata_props}
    assert noted["rtmpose.precision"] == '"fp16"'
    assert {EXPORTED: noted[EXPORTED]} == belonging(Path("w.onnx"))


def with_params(**changes: Any) -> Path:
    """The repository's params.yaml with other values, here."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["hardware"]["precision"] = "fp32"
    Path("params.yaml").write_text(yaml.safe_dump(content | changes))
    return Path("params.yaml")


def names(skeleton: str | None = None, params: Path | None = None, **options: Any) -> str:
    saved(Path("w.pt"), **options)
    return asked(Path("w.pt"), None, None, None, skeleton, params).skeleton


def test_the_skeleton_is_asked_for_only_where_several_have_as_many_points() -> None:
    assert names() == "coco17" and names(points=133) == "coco_wholebody"
    with pytest.raises(UserError, match=r"^w\.pt: has 14 points; give --skeleton: one of aic, crowdpose$"):
        names(points=14)
    assert names("crowdpose", points=14) == "crowdpose"
    with pytest.raises(UserError, match=r"^w\.pt: has 5 points; give --skeleton: your own descriptor"):
        names(points=5)


def test_params_say_what_the_weights_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    finetune = yaml.safe_load((ROOT / "params.yaml").read_text())["finetune"]
    path = with_params(skeleton="aic", finetune=finetune | {"skeleton": "aic"}, input_size=[192, 256])
    assert names(points=14) == "aic"  # ./params.yaml
    assert names() == "coco17"  # which does not fit these weights
    with pytest.raises(
        UserError, match=r"^w\.pt: has 17 points, params\.yaml: skeleton aic has 14; give --skel"
    ):
        names(params=path)
    saved(Path("w.pt"), head="heatmap", hidden=16)
    assert asked(Path("w.pt"), None, None, None, None, None).input_size == (192, 256)
    assert asked(Path("w.pt"), None, None, "64x96", None, None).input_size == (64, 96)
    path.write_text("seed: [")
    assert names() == "coco17" and "note: not used: params.yaml" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"^params\.yaml"):
        names(params=path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": "s"}, "RTMPose-t"),
        ({"size": "q"}, "model size: 'q' is none of"),
        ({"head": "plain"}, "model head: 'plain' is none of"),
        (
            {"head": "heatmap"},
            r"wrong shape key\(s\), first 'head.final_layer.*--size, --head, --input and --skel",
        ),
        (
            {"input_size": "192x256"},
            r"wrong shape key\(s\).*--size, --head, --input and --skeleton as it was",
        ),
        ({"input_size": "100x100"}, "multiples of 32"),
        ({"skeleton": "aic"}, r"wrong shape key\(s\)"),
        ({"skeleton": "nowhere"}, "nowhere"),
        ({"params": Path("none.yaml")}, r"none\.yaml"),
    ],
)
def test_what_does_not_fit_is_one_line_and_writes_nothing(options: dict[str, Any], reason: str) -> None:
    saved(Path("w.pt"))
    with pytest.raises(UserError, match=rf"^[^\n]*{reason}[^\n]*$"):
        export(Path("w.pt"), Path("w.onnx"), **options)
    assert [path.name for path in Path().iterdir()] == ["w.pt"]


def test_weights_takes_any_network_and_says_what_does_not_fit_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    saved(Path("w.pt"), kernel=3, hidden=48)
    check(Path("w.pt"))
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "w.pt: All weights of the model were loaded." and "data: not known" in told[1]
    check(Path("w.pt"), head="heatmap")
    assert "have no place in the model" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"^[^\n]*RTMPose-t[^\n]*--size t[^\n]*$"):
        check(Path("w.pt"), size="m")


def test_a_converted_file_tells_what_its_shapes_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    saved(Path("w.pth"), points=14, kernel=3, hidden=48)
    convert(Path("w.pth"), skeleton="crowdpose")
    card = json.loads(capsys.readouterr().out)
    assert (card["file"], card["skeleton"], card["input_size"]) == ("w.pt", "crowdpose", list(SIZE))
    assert (card["size"], card["kernel"], card["hidden"]) == ("t", 3, 48)
    whole = torch.load("w.pt", weights_only=True)
    original = torch.load("w.pth", weights_only=True)
    assert whole["state_dict"].keys() == original.keys()
    assert all(torch.equal(whole["state_dict"][key], value) for key, value in original.items())
    assert asked(Path("w.pt"), None, None, None, None, None).skeleton == "crowdpose"
    assert asked(Path("w.pt"), None, None, None, "aic", None).skeleton == "aic"
    with_params(input_size=[192, 256])
    assert asked(Path("w.pt"), None, None, None, None, None).skeleton == "crowdpose"
    check(Path("w.pt"))
    assert "All weights of the model were loaded" in capsys.readouterr().out


def test_a_released_file_is_known_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    animals = Path("rtmpose-m_simcc-ap10k_pt-aic-coco_210e-256x256-7a041aa1_20230206.pth")
    saved(animals)  # 17 points, which would be taken for COCO's
    assert asked(animals, None, None, None, None, None).skeleton == "ap10k"
    other = Path("rtmdet_nano_8xb32-100e_coco-obj365-person-05d8511e.pth")
    saved(other)
    with pytest.raises(
        UserError, match=r"network of rtmdet, which is none of ours; .*rtmdet-nano-person\.onnx"
    ):
        convert(other)


def test_an_rtmw_checkpoint_becomes_ours(capsys: pytest.CaptureFixture[str]) -> None:
    wide = Path("rtmw-dw-l-m_simcc-cocktail14_270e-256x192-20231122.pth")
    model = build_pose_net("t", num_keypoints=133, input_size=(64, 64), neck="rtmw")
    torch.save({"state_dict": model.state_dict()}, wide)
    convert(wide, Path("ours.pt"))
    card = json.loads(capsys.readouterr().out)
    assert (card["neck"], card["size"], card["skeleton"]) == ("rtmw", "t", "coco_wholebody")
    check(Path("ours.pt"))
    assert "All weights of the model were loaded" in capsys.readouterr().out


def test_pruned_weights_load_like_any_others(capsys: pytest.CaptureFixture[str]) -> None:
    model = build_pose_net("s", num_keypoints=14, input_size=(64, 64))
    torch.save({"state_dict": model.state_dict()}, "s.pth")
    prune(Path("s.pth"), Path("t.pt"), "t", skeleton="crowdpose")
    card = json.loads(capsys.readouterr().out)
    assert (card["size"], card["skeleton"], card["input_size"]) == ("t", "crowdpose", [64, 64])
    check(Path("t.pt"))
    assert "All weights of the model were loaded" in capsys.readouterr().out
    assert asked(Path("t.pt"), None, None, None, None, None).architecture.size == "t"
    for to, said in (
        ("s", "of that size already"),
        ("x", r"backbone\.stem\.0 has 16 channels"),
        ("q", "'q'"),
    ):
        with pytest.raises(UserError, match=said):
            prune(Path("s.pth"), Path("other.pt"), to, skeleton="crowdpose")
    with pytest.raises(UserError, match="would be overwritten"):
        prune(Path("s.pth"), Path("s.pth"), "t")
    assert not Path("other.pt").exists()


def test_a_damaged_card_in_a_checkpoint_is_one_line() -> None:
    saved(Path("w.pt"))
    weights = torch.load("w.pt", weights_only=True)
    for text, reason in (("{", "not valid JSON"), ('{"size": "t"}', "input_size")):
        torch.save({"meta": {"rtmpose": text}, "state_dict": weights}, "w.pt")
        with pytest.raises(UserError, match=rf"^w\.pt: its card: [^\n]*{reason}[^\n]*$"):
            check(Path("w.pt"))


def test_a_file_is_not_converted_onto_itself() -> None:
    saved(Path("w.pt"))
    before = Path("w.pt").read_bytes()
    with pytest.raises(UserError, match="would be overwritten; name another file with -o"):
        convert(Path("w.pt"))
    assert Path("w.pt").read_bytes() == before
