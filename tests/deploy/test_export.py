from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml

from rtmpose.config import load_params
from rtmpose.deploy.e2e import EndToEnd
from rtmpose.deploy.export import differences, export_onnx, parity
from rtmpose.deploy.graphs import save_graph
from rtmpose.deploy.runtimes.base import ModelFiles, NotPossible, Placement, Precision, RuntimeName
from rtmpose.deploy.runtimes.onnxruntime import open_file, read_card
from rtmpose.deploy.runtimes.session import open_any_number, open_session
from rtmpose.descriptors import load_dataset
from rtmpose.evaluation.confidence import Scored
from rtmpose.evaluation.evaluator import Evaluator
from rtmpose.files import UserError
from rtmpose.models import load_exactly
from rtmpose.targets import SimCC
from tests.deploy.half import features_times
from tests.deploy.support import SIZE, card, formula_net
from tests.support import ROOT, det_input


def test_names_shapes_and_free_batch(files: ModelFiles) -> None:
    graph = onnx.load(str(files.onnx)).graph
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "input": ["batch", 3, 128, 96],
        "simcc_x": ["batch", 17, 192],
        "simcc_y": ["batch", 17, 256],
    }


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnx_runtime_equals_pytorch(files: ModelFiles, batch: int) -> None:
    images = det_input((batch, 3, 128, 96))
    with torch.inference_mode():
        x, y = formula_net()(torch.from_numpy(images))
    got = open_session("onnxruntime", files, batch=batch)(images)
    assert got[0].shape == (batch, 17, 192) and got[1].shape == (batch, 17, 256)
    assert max(np.abs(got[0] - x.numpy()).max(), np.abs(got[1] - y.numpy()).max()) <= 1e-4


@pytest.mark.parametrize("runtime", ["pytorch", "openvino"])
def test_other_runtimes_equal_onnx_runtime(files: ModelFiles, runtime: RuntimeName) -> None:
    images = det_input((2, 3, 128, 96))
    expected = open_session("onnxruntime", files, batch=2)(images)
    got = open_session(runtime, files, batch=2)(images)
    found = differences(got, expected, SimCC(SIZE))
    assert found["max_diff"] <= 3e-4 and found["keypoints_px_max"] == 0


def test_the_file_is_self_contained_and_names_no_path_of_this_machine(files: ModelFiles) -> None:
    content = files.onnx.read_bytes()
    assert str(ROOT).encode() not in content and b"site-packages" not in content
    assert not any(tensor.external_data for tensor in onnx.load(str(files.onnx)).graph.initializer)


def test_export_gives_the_same_bytes_again_and_keeps_the_mode(files: ModelFiles, tmp_path: Path) -> None:
    model = formula_net().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    again = export_onnx(model, SIZE, tmp_path / "again.onnx", card=card())
    assert again.read_bytes() == files.onnx.read_bytes() and [*tmp_path.iterdir()] == [again]
    assert model.training and all(
        torch.equal(before[key], value) for key, value in model.state_dict().items()
    )


def test_the_float16_file_has_one_interface_and_float16_inside(files: ModelFiles, half_file: Path) -> None:
    assert files.form("fp16").name == half_file.name
    assert half_file.stat().st_size < 0.52 * files.onnx.stat().st_size
    graph = onnx.load(str(half_file)).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert types == dict.fromkeys(("input", "simcc_x", "simcc_y"), onnx.TensorProto.FLOAT)
    weights = [tensor for tensor in graph.initializer if len(tensor.dims) > 1]
    assert {tensor.data_type for tensor in weights} <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    assert read_card(half_file) == card().model_copy(update={"precision": "fp16"})
    assert read_card(files.onnx).precision == "fp32"


def test_no_constant_is_flushed_and_no_norm_is_one_operation(half_file: Path) -> None:
    graph = onnx.load(str(half_file)).graph
    halves = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16]
    constants = [onnx.numpy_helper.to_array(tensor) for tensor in halves if not tensor.dims]
    assert constants and all(value == 0 or abs(value) >= 2**-14 for value in constants)
    assert not {node.op_type for node in graph.node} & {"ReduceL2", "LpNormalization"}


def test_the_float16_file_in_onnx_runtime(files: ModelFiles, half_file: Path) -> None:
    images = det_input((3, 3, 128, 96))
    expected = open_session("onnxruntime", files)(images)
    got = open_file(half_file).run(None, {"input": images})
    assert all(output.dtype == np.float32 for output in got)
    found = differences(got, expected, SimCC(SIZE))
    assert 0 < found["max_diff"] <= 0.01 * max(np.abs(part).max() for part in expected)
    assert found["keypoints_px_mean"] <= 0.5


def test_what_overflows_without_powers_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtmpose.deploy.form.power_for", lambda *_: 1.0)
    with pytest.raises(UserError, match=r"backbone\.stage4 computes .* export in fp32"):
        path = tmp_path / "rtmpose.fp16.onnx"
        export_onnx(features_times(formula_net(), 1e5), SIZE, path, precision="fp16")
    assert list(tmp_path.iterdir()) == []


def test_metadata_comes_back(files: ModelFiles) -> None:
    assert read_card(files.onnx) == card()
    assert read_card(files.onnx).keypoint_names[:2] == ("nose", "left_eye")


def test_parity_on_noise_and_crops(files: ModelFiles) -> None:
    found = parity(formula_net(), files.onnx, SimCC(SIZE), crops=det_input((2, 3, 128, 96)))
    assert found["images"] == 24 and 0 < found["max_diff"] <= 1e-4 and found["keypoints_px_max"] == 0


def test_parity_sees_a_changed_network(files: ModelFiles) -> None:
    model = formula_net()
    with torch.no_grad():
        model.get_parameter("head.final_layer.bias").add_(1)
    found = parity(model, files.onnx, SimCC(SIZE))
    assert found["max_diff"] > 0.1 and found["keypoints_px_mean"] > 0


def test_differences_are_in_input_pixels() -> None:
    x, y = np.zeros((1, 1, 192), np.float32), np.zeros((1, 1, 256), np.float32)
    x[0, 0, 20] = y[0, 0, 30] = 1
    moved = np.roll(x, 6, -1), np.roll(y, 8, -1)
    assert differences(moved, (x, y), SimCC(SIZE)) == {
        "max_diff": 1.0,
        "keypoints_px_mean": 5.0,
        "keypoints_px_max": 5.0,
    }


def test_nothing_half_written_when_the_export_fails(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise onnx.checker.ValidationError("refused")

    graph = onnx.load(str(files.onnx))
    monkeypatch.setattr("rtmpose.deploy.export.traced", lambda *_: graph)
    monkeypatch.setattr("rtmpose.deploy.export.onnx.checker.check_model", refuse)
    with pytest.raises(onnx.checker.ValidationError):
        export_onnx(formula_net(), SIZE, tmp_path / "rtmpose.onnx")
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_one_line(files: ModelFiles, tmp_path: Path) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(files.onnx.read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"cut\.onnx: not a complete ONNX model; run the export stage again"):
        open_file(cut)
    with pytest.raises(UserError, match=r"none\.onnx: no such file"):
        open_file(tmp_path / "none.onnx")
    graph = onnx.load(str(files.onnx))
    del graph.metadata_props[:]
    plain = save_graph(graph, tmp_path / "plain.onnx")
    with pytest.raises(UserError, match=r"plain\.onnx: metadata has no 'rtmpose\.size'"):
        read_card(plain)


def test_weights_that_do_not_fit_are_one_line(files: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pt: no such file; run the finetune stage"):
        load_exactly(card().network(), tmp_path / "none.pt")
    weights = formula_net().state_dict()
    del weights["head.cls_x.weight"]
    torch.save(weights, tmp_path / "less.pt")
    with pytest.raises(UserError, match=r"less\.pt: 1 missing key\(s\), first 'head\.cls_x\.weight'"):
        load_exactly(card().network(), tmp_path / "less.pt")
    torch.save(weights | {"head.cls_x.weight": torch.zeros(4, 4)}, tmp_path / "shape.pt")
    with pytest.raises(UserError, match=r"shape\.pt: 1 wrong shape key\(s\)"):
        load_exactly(card().network(), tmp_path / "shape.pt")


@pytest.mark.parametrize(
    ("runtime", "precision", "placement", "reason"),
    [
        ("onnxruntime", "bf16", Placement(), "no bf16 kernels"),
        ("onnxruntime", "fp16", Placement(), "no fp16 kernels"),
        ("onnxruntime", "fp32", Placement("gpu"), "on the CPU only"),
        ("openvino", "fp32", Placement("gpu"), "on the CPU only"),
        ("pytorch", "fp16", Placement(), "fp16 on a GPU only"),
        ("pytorch", "int8", Placement("gpu"), "not quantised"),
        ("pytorch", "fp32", Placement("gpu"), "sees no GPU"),
    ],
)
def test_what_a_runtime_cannot_do_has_a_reason(
    files: ModelFiles, runtime: RuntimeName, precision: Precision, placement: Placement, reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NotPossible, match=reason):
        open_session(runtime, files, precision, placement)


@pytest.mark.parametrize("runtime", ["pytorch", "openvino"])
def test_bf16_that_would_be_emulated_is_not_measured(
    files: ModelFiles, runtime: RuntimeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtmpose.deploy.runtimes.base.bf16_instructions", frozenset)
    with pytest.raises(NotPossible, match="no bf16 instructions"):
        open_session(runtime, files, "bf16")


def test_a_runtime_that_is_not_there_or_lacks_its_file_has_a_reason(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotPossible, match="needs the weights"):
        open_session("pytorch", ModelFiles(files.onnx))
    import rtmpose.deploy.runtimes.openvino  # so that there is something to take away

    monkeypatch.delattr(rtmpose.deploy.runtimes, "openvino")
    monkeypatch.setitem(sys.modules, "rtmpose.deploy.runtimes.openvino", None)
    with pytest.raises(NotPossible, match="not installed"):
        open_session("openvino", files, "fp32")
    with pytest.raises(NotPossible, match="not installed"):
        open_any_number("openvino", files, "fp32", Placement())


def test_the_stage_writes_model_and_metrics(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.export import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "search.json").write_text('{"chosen": {}, "note": "off"}')
    with pytest.raises(UserError, match=r"models/rtmpose\.pt: no such file"):
        main([])
    assert files.weights is not None
    (tmp_path / "models" / "rtmpose.pt").write_bytes(files.weights.read_bytes())
    main([])
    metrics = json.loads((tmp_path / "metrics" / "export.json").read_text())
    assert metrics["max_diff"] <= 1e-4 and metrics["megabytes"] > 10
    assert read_card(tmp_path / "models" / "rtmpose.onnx").skeleton == "coco17"
    assert len(capsys.readouterr().out.splitlines()) == 1
    whole = EndToEnd.open(tmp_path / "models" / "rtmpose.e2e.onnx")
    assert whole.card == read_card(tmp_path / "models" / "rtmpose.onnx")
    assert whole.card.confidence is None and whole.card.data == () and whole.card.sigma == SimCC(SIZE).sigma
    assert whole.card.measured["parity"]["max_diff"] == metrics["max_diff"]
    assert (tmp_path / "metrics" / "confidence.csv").read_text() == "low,high,count,probability,right\n"


DATA = [
    {"name": "coco17", "sha256": "11", "licence": "rendered here", "use": "training"},
    {"name": "found.pth", "sha256": "33", "licence": "not known", "use": "initial weights"},
]


def traced_before(whole: Path, half: Path) -> Callable[..., onnx.ModelProto]:
    """Tracing takes seconds: these files are what the same weights were traced to."""

    def traced(module: torch.nn.Module, examples: Sequence[torch.Tensor], *_: object) -> onnx.ModelProto:
        assert [one.shape[1:] for one in examples] == [(3, *SIZE[::-1])]
        return onnx.load(str(half if next(module.parameters()).dtype == torch.float16 else whole))

    return traced


def test_the_card_says_what_is_known_of_training_and_data(
    files: ModelFiles, half_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import export

    monkeypatch.setattr("rtmpose.deploy.export.traced", traced_before(files.onnx, half_file))
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["finetune"]["sigma"] = [3.0, 4.0]
    params["datasets"]["mine"] = {"descriptor": "aic", "raw": "data/aic"}
    contents = {
        "params.yaml": yaml.safe_dump(params),
        "models/search.json": '{"chosen": {}, "note": "off"}',
        "models/receipt.json": json.dumps({"precision": "bf16", "run_id": "abc", "data": DATA}),
        "metrics/evaluate.json": '{"AP": 0.5, "AR": 0.6, "AP50": 0.9, "hard": {"AP": 0.1}}',
        "data/mix.json": json.dumps(
            {
                "train": [
                    {"dataset": name, "dir": f"data/shards/{name}/train", "repeat": 1, "manifest_sha256": sha}
                    for name, sha in (("coco17", "11"), ("mine", "22"))
                ],
                "tune": [{"dir": "data/shards/coco17/tune"}],
                "val": [{"dataset": "hard", "dir": "data/shards/hard/val"}],
            }
        ),
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert files.weights is not None
    (tmp_path / "models" / "rtmpose.pt").write_bytes(files.weights.read_bytes())
    asked: list[Path] = []

    def scored(judge: Evaluator, folder: Path) -> Scored:
        assert not judge.params.flip_test and judge.precision == "fp32"
        asked.append(folder)
        scores = np.random.default_rng(len(asked)).random(1000)
        return Scored(scores, np.random.default_rng(7).random(1000) < scores**2)

    monkeypatch.setattr(export, "scored", scored)
    monkeypatch.setattr(export, "inputs", lambda card, count: (None, "noise"))
    export.main([])
    assert [path.relative_to(tmp_path) for path in asked] == [
        Path("data/shards/coco17/tune"),
        Path("data/shards/hard/val"),
    ]
    card = EndToEnd.open(Path("models/rtmpose.e2e.onnx")).card
    plain, half = (read_card(Path(f"models/rtmpose{kind}.onnx")) for kind in ("", ".fp16"))
    assert [one.model_dump() for one in card.data] == DATA and plain.data == half.data == card.data
    Path("models/receipt.json").write_text('{"precision": "bf16"}')
    older = export.sources(load_params())
    assert (card.sigma, card.training_run, card.training_precision) == ((3.0, 4.0), "abc", "bf16")
    assert [(source.name, source.sha256, source.licence) for source in older] == [
        ("coco17", "11", "rendered here"),
        ("mine", "22", load_dataset("aic").licence),
    ]
    assert card.measured["weights"] == {"AP": 0.5, "AR": 0.6}
    assert card.measured["confidence"]["fitted_on"] == 1000 and card.confidence is not None
    assert 0 < card.confidence.slope < 10 and card.precision == "fp32"
    assert len(Path("metrics/confidence.csv").read_text().splitlines()) > 5
