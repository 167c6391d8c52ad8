"""What every runtime has in common: the same numbers, a reason where it cannot, and no silent way out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from rtmpose.deploy.e2e import e2e_path, export_e2e
from rtmpose.deploy.export import differences
from rtmpose.deploy.graphs import save_card
from rtmpose.deploy.origin import EXPORTED, belonging
from rtmpose.deploy.runtimes.base import ModelFiles, NotPossible, Placement, Precision, RuntimeName
from rtmpose.deploy.runtimes.onnx_form import onnx_form, precision_of
from rtmpose.deploy.runtimes.session import open_session
from rtmpose.files import UserError
from rtmpose.inference.network import open_in, open_network
from rtmpose.targets import SimCC
from tests.deploy.support import SIZE, card, other_weights, relabelled, save_form
from tests.support import det_input

IMAGES = det_input((3, 3, 128, 96))
GPU = Placement("gpu")
SAID = {
    "pytorch": "cpu",
    "onnxruntime": "CPUExecutionProvider",
    "openvino": "CPU",
    "ncnn": "CPU",
    "mnn": "CPU",
}


@pytest.mark.parametrize("runtime", SAID)
def test_a_runtime_computes_what_onnx_runtime_computes(files: ModelFiles, runtime: RuntimeName) -> None:
    session = open_session(runtime, files, batch=len(IMAGES))
    found = differences(session(IMAGES), open_session("onnxruntime", files)(IMAGES), SimCC(SIZE))
    # MNN approximates exponentials; the largest output is 9.
    assert found["max_diff"] <= (0.03 if runtime == "mnn" else 1e-4) and found["keypoints_px_max"] == 0
    assert session.device == SAID[runtime] and session.version[0].isdigit()


def test_ncnn_stores_halves(files: ModelFiles) -> None:
    session = open_session("ncnn", files, "fp16")
    found = differences(session(IMAGES), open_session("onnxruntime", files)(IMAGES), SimCC(SIZE))
    assert 1e-4 < found["max_diff"] <= 0.1 and found["keypoints_px_mean"] <= 0.5
    assert "fp16 storage" in session.device
    open_session("ncnn", files)
    weights = (files.form(each, ".ncnn.bin").stat().st_size for each in ("fp16", "fp32"))
    assert next(weights) < 0.55 * next(weights)


def halved(files: ModelFiles, folder: Path) -> ModelFiles:
    """The model with its weights in fp16 and casts in front, under the name of its fp16 form."""
    model = onnx.load(str(files.onnx))
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            half = numpy_helper.from_array(
                numpy_helper.to_array(weight).astype(np.float16), f"half.{weight.name}"
            )
            cast = onnx.helper.make_node("Cast", [half.name], [weight.name], to=onnx.TensorProto.FLOAT)
            weight.CopyFrom(half)
            model.graph.node.insert(0, cast)
    folder.mkdir(exist_ok=True)
    copy = ModelFiles(folder / "rtmpose.onnx", files.weights)
    os.link(files.onnx, copy.onnx)
    save_form(model, copy.form("fp16"), copy.onnx)
    return copy


def quantised(files: ModelFiles, folder: Path) -> ModelFiles:
    """The model with its first convolution's input rounded to 8 bits, under the name of its int8 form."""
    model = onnx.load(str(files.onnx))
    scale = numpy_helper.from_array(np.array(0.04, np.float32), "input.scale")
    zero = numpy_helper.from_array(np.array(128, np.uint8), "input.zero")
    model.graph.initializer.extend([scale, zero])
    first = next(node for node in model.graph.node if "input" in node.input)
    first.input[list(first.input).index("input")] = "input.rounded"
    for name, (taken, given) in {
        "DequantizeLinear": ("input.quantised", "input.rounded"),
        "QuantizeLinear": ("input", "input.quantised"),
    }.items():
        model.graph.node.insert(0, onnx.helper.make_node(name, [taken, "input.scale", "input.zero"], [given]))
    folder.mkdir(exist_ok=True)
    copy = ModelFiles(folder / "rtmpose.onnx", files.weights)
    os.link(files.onnx, copy.onnx)
    save_form(model, copy.form("int8"), copy.onnx)
    return copy


def test_a_quantised_file_runs_as_int8_only(files: ModelFiles, tmp_path: Path) -> None:
    copy = quantised(files, tmp_path)
    session = open_session("onnxruntime", copy, "int8", batch=3)
    found = differences(session(IMAGES), open_session("onnxruntime", files)(IMAGES), SimCC(SIZE))
    assert 1e-3 < found["max_diff"] < 5
    assert precision_of(onnx.load(str(copy.form("int8")))) == "int8"
    save_form(onnx.load(str(files.onnx)), copy.form("int8"), copy.onnx)
    with pytest.raises(NotPossible, match=r"int8\.onnx: its weights are stored for fp32, not for int8"):
        open_session("onnxruntime", copy, "int8")


def test_the_file_of_a_precision_is_read_before_it_is_believed(files: ModelFiles, tmp_path: Path) -> None:
    copy = halved(files, tmp_path)
    assert onnx_form(copy, "fp16") == tmp_path / "rtmpose.fp16.onnx"
    assert onnx_form(copy, "fp32") == tmp_path / "rtmpose.onnx"
    copy.form("fp16").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"fp16\.onnx: not a complete ONNX model"):
        onnx_form(copy, "fp16")
    with pytest.raises(NotPossible, match="no ONNX file is written in bf16"):
        onnx_form(copy, "bf16")
    with pytest.raises(NotPossible, match=r"int8\.onnx: no such file; `rtmpose quantize` writes it"):
        onnx_form(copy, "int8")


@pytest.mark.parametrize("runtime", get_args(RuntimeName))
def test_the_card_of_another_model_is_refused(
    files: ModelFiles, tmp_path: Path, runtime: RuntimeName
) -> None:
    other = relabelled(files, tmp_path, input_size=[64, 96])
    with pytest.raises(UserError, match="metadata of another model"):
        open_session(runtime, ModelFiles(other, files.weights))


def test_a_form_of_other_weights_is_refused(files: ModelFiles, tmp_path: Path) -> None:
    """Names and sizes are the same; what tells them apart is noted in the form."""
    copy = halved(files, tmp_path)
    save_form(onnx.load(str(quantised(files, tmp_path / "q").form("int8"))), copy.form("int8"), copy.onnx)
    copy.onnx.unlink()  # a link: the first export stays as it is
    other_weights(files, copy.onnx)
    writers = {"fp16": "the export stage, or `rtmpose export --fp16`,", "int8": "`rtmpose quantize`"}
    for precision, again in writers.items():
        name, kind = f"rtmpose.{precision}.onnx", cast(Precision, precision)
        with pytest.raises(NotPossible, match=rf"{name}: was not made from rtmpose\.onnx .*; {again} writes"):
            onnx_form(copy, kind)
    with pytest.raises(NotPossible, match="was not made from"):
        open_in(copy, "onnxruntime", "int8")
    onnx.save(onnx.load(str(files.onnx)), str(copy.form("int8")))  # from before it was noted
    with pytest.raises(NotPossible, match="was not made from"):
        onnx_form(copy, "int8")


def test_another_card_changes_nothing(files: ModelFiles, tmp_path: Path) -> None:
    copy = ModelFiles(tmp_path / "rtmpose.onnx")
    save_card(files.onnx, card().with_more(measured={"weights": {"AP": 0.5}}), copy.onnx)
    save_form(onnx.load(str(halved(files, tmp_path / "h").form("fp16"))), copy.form("fp16"), files.onnx)
    save_card(copy.form("fp16"), card().with_more(measured={"weights": {"AR": 0.6}}))
    assert onnx_form(copy, "fp16") == copy.form("fp16")


def test_openvino_refuses_a_quantised_file_of_other_weights(files: ModelFiles, tmp_path: Path) -> None:
    import openvino as ov

    copy = ModelFiles(other_weights(files, tmp_path / "rtmpose.onnx"))
    model = ov.Core().read_model(str(files.onnx))
    model.set_rt_info(belonging(files.onnx)[EXPORTED], EXPORTED.split("."))
    ov.save_model(model, str(copy.form("int8", ".xml")))
    with pytest.raises(NotPossible, match=r"int8\.xml: was not made from rtmpose\.onnx .*`rtmpose quantize`"):
        open_session("openvino", copy, "int8")


def test_eight_bits_are_refused_where_they_saturate(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = quantised(files, tmp_path)
    path, needed = copy.form("int8"), "rtmpose.deploy.runtimes.onnxruntime.needs_reduced_range"
    for bits, reduced, possible in ((8, True, False), (8, False, True), (7, True, True), (None, True, True)):
        save_card(path, card().with_more(precision="int8", weight_bits=bits))
        monkeypatch.setattr(needed, lambda reduced=reduced: reduced)
        if possible:
            open_session("onnxruntime", copy, "int8")
            open_network(path)
            continue
        line = r"int8\.onnx: has 8-bit weights, .* cuts off at 16 bits; `rtmpose quantize` writes 7-bit"
        with pytest.raises(NotPossible, match=line):
            open_session("onnxruntime", copy, "int8")
        with pytest.raises(NotPossible, match=line):
            open_in(copy, "onnxruntime", "int8")
        export_e2e(path)
        for given in (path, e2e_path(path)):
            with pytest.raises(UserError, match="has 8-bit weights, "):
                open_network(given)
        e2e_path(path).unlink()


def test_another_models_quantised_file_is_refused(files: ModelFiles, tmp_path: Path) -> None:
    copy = quantised(files, tmp_path)
    model = onnx.load(str(copy.form("int8")))
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 64
    onnx.save(model, str(copy.form("int8")))
    with pytest.raises(UserError, match=r"int8\.onnx: 'input' is 3x128x64, by its metadata 3x128x96"):
        open_session("onnxruntime", copy, "int8")


@pytest.mark.parametrize(
    ("runtime", "precision", "placement", "reason"),
    [
        ("onnxruntime", "bf16", Placement(), "no bf16 kernels"),
        ("onnxruntime", "fp16", Placement(), "no fp16 kernels"),
        ("onnxruntime", "int8", Placement(), r"rtmpose\.int8\.onnx: no such file"),
        ("onnxruntime", "fp32", GPU, "on the CPU only"),
        ("onnxruntime-cuda", "int8", GPU, "in fp32 or fp16, not in int8"),
        ("onnxruntime-cuda", "fp32", Placement(), "on a GPU only"),
        ("onnxruntime-cuda", "fp32", GPU, "not run here: .* has no CUDAExecutionProvider"),
        ("onnxruntime-tensorrt", "bf16", GPU, "not in bf16"),
        ("onnxruntime-tensorrt", "fp32", GPU, "not run here: .* has no TensorrtExecutionProvider"),
        ("openvino", "int8", Placement(), r"rtmpose\.int8\.xml: no such file; `rtmpose quantize` writes it"),
        ("openvino", "fp16", Placement(), "not in fp16"),
        ("openvino", "fp32", GPU, "on the CPU only"),
        ("pytorch", "fp16", Placement(), "fp16 on a GPU only"),
        ("pytorch", "int8", GPU, "not quantised"),
        ("pytorch", "fp32", GPU, "sees no GPU"),
        ("pytorch-compiled", "fp32", GPU, "sees no GPU"),
        ("tensorrt", "bf16", GPU, "not in bf16"),
        ("tensorrt", "fp32", Placement(), "on a GPU only"),
        ("tensorrt", "fp32", GPU, "not run here: TensorRT needs an NVIDIA GPU"),
        ("tensorrt-rtx", "fp16", GPU, "not run here: TensorRT-RTX needs an NVIDIA GPU"),
        ("ncnn", "int8", Placement(), "in fp32 or fp16, not in int8"),
        ("ncnn", "fp32", GPU, "on the CPU only"),
        ("mnn", "int8", Placement(), "in fp32 or fp16, not in int8"),
        ("mnn", "fp32", GPU, "on the CPU only"),
        ("litert", "fp16", Placement(), "in fp32 or int8, not in fp16"),
        ("executorch", "int8", Placement(), r"int8\.pte: no such file of this model; `rtmpose quantize"),
        ("executorch", "fp32", GPU, "on the CPU only"),
        ("rknn", "fp32", Placement(), "in fp16, not in fp32"),
        ("coreml", "int8", Placement(), "in fp32 or fp16, not in int8"),
    ],
)
def test_what_a_runtime_cannot_do_has_a_reason(
    files: ModelFiles, runtime: RuntimeName, precision: Precision, placement: Placement, reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(NotPossible, match=reason):
        open_session(runtime, files, precision, placement)


class OnTheCpu:
    """A session as ONNX Runtime gives it where the CUDA libraries are missing."""

    def __init__(self, path: str, options: ort.SessionOptions, providers: list[Any]) -> None:
        assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        self.settings = providers[0][1]

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("runtime", "provider"),
    [
        ("onnxruntime-cuda", "CUDAExecutionProvider"),
        ("onnxruntime-tensorrt", "TensorrtExecutionProvider"),
    ],
)
def test_onnx_runtime_on_the_cpu_in_place_of_the_gpu_is_refused(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch, runtime: RuntimeName, provider: str
) -> None:
    from rtmpose.deploy.runtimes import onnxruntime_gpu

    monkeypatch.setattr(ort, "get_available_providers", lambda: [provider])
    monkeypatch.setattr(ort, "InferenceSession", OnTheCpu)
    opened = onnxruntime_gpu.load_cuda if runtime == "onnxruntime-cuda" else onnxruntime_gpu.load_tensorrt
    monkeypatch.setattr(onnxruntime_gpu, "onnx_form", lambda files, precision, *_: files.form(precision))
    with pytest.raises(NotPossible, match=f"chose CPUExecutionProvider instead of {provider}"):
        opened(files, "fp32", GPU, 1)


def test_nodes_left_to_the_cpu_are_refused(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's own refusal, here of the whole network: the provider that is asked for is not there."""
    from rtmpose.deploy.runtimes import onnxruntime_gpu

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["AzureExecutionProvider"])
    with pytest.raises(NotPossible, match="AzureExecutionProvider does not run all of this network"):
        onnxruntime_gpu._open(files.onnx, "AzureExecutionProvider", {}, 1)


def test_openvino_says_what_it_convolves_in(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtmpose.deploy.runtimes import openvino

    monkeypatch.setitem(openvino.CONVOLVES_IN, "fp32", {"bf16"})
    with pytest.raises(NotPossible, match=r"otherwise than in fp32: \d+ in f32"):
        open_session("openvino", files)


def test_openvino_does_not_take_a_plain_file_for_a_quantised_one(files: ModelFiles, tmp_path: Path) -> None:
    import openvino as ov

    copy = ModelFiles(tmp_path / "rtmpose.onnx")
    os.link(files.onnx, copy.onnx)
    model = ov.Core().read_model(str(files.onnx))
    model.set_rt_info(belonging(copy.onnx)[EXPORTED], EXPORTED.split("."))
    ov.save_model(model, str(copy.form("int8", ".xml")))
    with pytest.raises(NotPossible, match=r"otherwise than in int8: .* in f32"):
        open_session("openvino", copy, "int8")
    copy.form("int8", ".bin").unlink()
    with pytest.raises(NotPossible, match=r"int8\.bin: no such file"):
        open_session("openvino", copy, "int8")


def test_compiled_pytorch_compiles_all_for_one_batch_size(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def compile(model: torch.nn.Module, **settings: Any) -> torch.nn.Module:
        asked.update(settings)
        return model

    monkeypatch.setattr(torch, "compile", compile)
    session = open_session("pytorch-compiled", files, batch=3)
    assert asked == {"fullgraph": True, "dynamic": False} and "inductor" in session.device
    assert session(IMAGES)[0].shape == (3, 17, 192)
    with pytest.raises(ValueError, match="opened for batches of 3, not of 2"):
        session(IMAGES[:2])


def test_what_cannot_be_compiled_is_refused(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(model: torch.nn.Module, **settings: Any) -> Any:
        def fails(images: torch.Tensor) -> None:
            raise RuntimeError("no working C++ compiler found")

        return fails

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(NotPossible, match="cannot compile this network here: no working C"):
        open_session("pytorch-compiled", files)


def test_outputs_of_other_sizes_are_refused(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtmpose.deploy.runtimes import onnxruntime
    from rtmpose.deploy.runtimes.base import Session

    def swapped(*_: object) -> Session:
        return Session(lambda images: (np.zeros((1, 17, 256)), np.zeros((1, 17, 192))), "1", "CPU")

    monkeypatch.setattr(onnxruntime, "load", swapped)
    with pytest.raises(UserError, match="'simcc_x' is 17x256, by its metadata 17x192"):
        open_session("onnxruntime", files)
