"""The end-to-end form: bytes in, the codec's own points out, refused where it is not what its card says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from rtmpose.config import Architecture
from rtmpose.deploy import e2e
from rtmpose.deploy.card import Confidence, ModelCard
from rtmpose.deploy.e2e import EndToEnd, e2e_path, export_e2e
from rtmpose.deploy.graphs import save_card, save_graph
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.descriptors import load_skeleton
from rtmpose.files import UserError
from rtmpose.models import normalise
from rtmpose.targets import SimCC, UDPHeatmap
from rtmpose.topdown import TopDown
from tests.deploy.support import SIZE, card, formula_net

CURVE = Confidence(slope=0.5, intercept=-1.0)


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, SIZE[1], SIZE[0], 3), np.uint8)


@pytest.fixture(scope="module")
def path(files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The formula network's end-to-end file, with a curve for its confidence."""
    source = tmp_path_factory.mktemp("e2e") / "rtmpose.onnx"
    source.write_bytes(files.onnx.read_bytes())
    save_card(source, card().with_more(confidence=CURVE))
    return export_e2e(source)


@pytest.fixture(scope="module")
def whole(path: Path) -> EndToEnd:
    return EndToEnd.open(path)


def tiny(folder: Path, made: ModelCard, kind: int = TensorProto.FLOAT, *, read_twice: bool = False) -> Path:
    """A file whose network is one padded convolution and a mean, so that every pixel and its border count."""
    (width, height), points = made.input_size, len(made.keypoint_names)
    rng = np.random.default_rng(1)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = rng.standard_normal((points, 3, 3, 3)).astype(dtype)

    nodes = [
        helper.make_node("Conv", ["input", "weights"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["maps", "rows"], ["x"], keepdims=0),
        helper.make_node("ReduceMean", ["maps", "columns"], ["y"], keepdims=0),
        helper.make_node("Concat", ["x", "x"], ["simcc_x"], axis=-1),
        helper.make_node("Concat", ["y", "y"], ["simcc_y"], axis=-1),
    ]
    if read_twice:
        nodes.append(helper.make_node("ReduceMax", ["input"], ["unused"], keepdims=0))
    sides = {"simcc_x": 2 * width, "simcc_y": 2 * height}
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("input", kind, ["batch", 3, height, width])],
        [helper.make_tensor_value_info(n, kind, ["batch", points, s]) for n, s in sides.items()],
        [numpy_helper.from_array(weights, "weights"),
         numpy_helper.from_array(np.array([2]), "rows"), numpy_helper.from_array(np.array([3]), "columns")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, made.properties())
    return save_graph(model, folder / "tiny.onnx")


def test_points_are_those_of_the_way_through_the_plain_file(whole: EndToEnd) -> None:
    pixels = crops(3)
    found = whole(pixels)
    with torch.inference_mode():
        outputs = formula_net()(normalise(torch.from_numpy(pixels)))
    points, scores = card().codec().decode(outputs)
    np.testing.assert_array_equal(found.keypoints, points.numpy())
    np.testing.assert_allclose(found.scores, scores.numpy(), atol=1e-4)
    assert found.confidence is not None
    probability = torch.sigmoid(0.5 * scores - 1).numpy()
    np.testing.assert_allclose(np.asarray(found.confidence), probability, atol=1e-4)


def test_boxes_of_an_image_give_points_in_it(whole: EndToEnd) -> None:
    image = np.random.default_rng(5).integers(0, 256, (200, 300, 3), np.uint8)
    boxes = [[20, 10, 100, 150], [-30, 50, 90, 90], [200, 100, 150, 150]]

    def network(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = formula_net()(images)
        return x, y

    way = TopDown(network, card().codec(), load_skeleton("coco17"))
    expected, scores = way.points([way.crop(image, box) for box in boxes])
    found = whole.points(image, boxes)
    np.testing.assert_allclose(found.keypoints, expected, atol=1e-4)
    np.testing.assert_allclose(found.scores, scores, atol=1e-4)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_decoding_takes_the_first_of_equal_maxima_and_marks_what_is_not_found(
    files: ModelFiles, runtime: str
) -> None:
    made = card().with_more(confidence=CURVE)
    decoder = e2e._decoder(onnx.load(str(files.onnx)), made)
    rng = np.random.default_rng(0)
    # Few levels, so that most maxima are shared by many bins; some points without a positive one.
    x, y = (rng.integers(-2, 3, (4, 17, side)).astype(np.float32) for side in (192, 256))
    x[0, :5], y[1, 2], x[2, 3] = -1, 0, rng.permutation(192)
    expected, scores = SimCC(SIZE).decode((torch.from_numpy(x), torch.from_numpy(y)))
    content = decoder.SerializeToString()
    if runtime == "onnxruntime":
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        got = session.run(None, {"simcc_x": x, "simcc_y": y})
    else:
        compiled = ov.Core().compile_model(ov.Core().read_model(content), "CPU")
        got = [*compiled([x, y]).values()]
    assert (expected == -0.5).any() and (scores > 0).any()
    np.testing.assert_array_equal(got[0], expected.numpy())
    np.testing.assert_array_equal(got[1], scores.numpy())


@pytest.mark.parametrize("read_twice", [False, True], ids=["folded", "divided"])
def test_normalisation_is_the_same_inside_and_at_the_border(tmp_path: Path, read_twice: bool) -> None:
    made = card().with_more(mean=(10.0, 120.0, 200.0), std=(2.0, 50.0, 99.0), keypoint_names=("a", "b"))
    source = tiny(tmp_path, made, read_twice=read_twice)
    path = export_e2e(source)
    names = [node.op_type for node in onnx.load(str(path)).graph.node][:4]
    assert names == ["Transpose", "Cast", "Sub", "Div" if read_twice else "Cast"]
    pixels = crops(2)
    outputs = ort.InferenceSession(str(source)).run(
        ["simcc_x", "simcc_y"],
        {"input": normalise(torch.from_numpy(pixels), made.mean, made.std).contiguous().numpy()},
    )
    _, scores = SimCC(SIZE).decode((torch.from_numpy(outputs[0]), torch.from_numpy(outputs[1])))
    np.testing.assert_allclose(EndToEnd.open(path)(pixels).scores, scores.numpy(), rtol=1e-4, atol=1e-4)


def test_a_network_in_half_precision_is_taken_as_it_is(tmp_path: Path) -> None:
    made = card().with_more(precision="fp16", keypoint_names=("a", "b"))
    path = export_e2e(tiny(tmp_path, made, TensorProto.FLOAT16))
    found = EndToEnd.open(path)(crops(2))
    assert found.keypoints.dtype == np.float32 and found.keypoints.shape == (2, 2, 2)
    assert (
        "Div" in [node.op_type for node in onnx.load(str(path)).graph.node][:4]
    )  # weights keep their digits


def test_heatmaps_are_decoded_too(tmp_path: Path) -> None:
    made = ModelCard.of(Architecture(size="t", head="heatmap"), SIZE, "coco17")
    weights = np.random.default_rng(2).standard_normal((17, 3, 4, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "weights"], ["heatmaps"], strides=[4, 4])], "maps",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 128, 96])],
        [helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, ["batch", 17, 32, 24])],
        [numpy_helper.from_array(weights, "weights")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, made.properties())
    found = EndToEnd.open(export_e2e(save_graph(model, tmp_path / "maps.onnx")))(crops(2))
    maps = torch.nn.functional.conv2d(
        normalise(torch.from_numpy(crops(2))).contiguous(), torch.from_numpy(weights), stride=4
    )
    points, scores = UDPHeatmap(SIZE).decode(maps)
    np.testing.assert_allclose(found.keypoints, points.numpy(), atol=0.02)
    np.testing.assert_allclose(found.scores, scores.numpy(), rtol=1e-4)
    assert found.confidence is None


def test_the_card_and_the_channels_are_in_the_file(whole: EndToEnd, files: ModelFiles) -> None:
    assert whole.card == card().with_more(confidence=CURVE)
    properties = whole.session.get_modelmeta().custom_metadata_map
    assert properties["rtmpose.channels"] == "RGB"
    assert e2e_path(files.onnx).name == "rtmpose.e2e.onnx"
    assert e2e_path(files.form("int8")).name == "rtmpose.int8.e2e.onnx"


def changed(path: Path, folder: Path, name: str, value: str | None) -> Path:
    model = onnx.load(str(path))
    properties = {item.key: item.value for item in model.metadata_props} | {f"rtmpose.{name}": value}
    del model.metadata_props[:]
    helper.set_model_props(model, {key: text for key, text in properties.items() if text is not None})
    onnx.save(model, str(folder / "other.onnx"))
    return folder / "other.onnx"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("input_size", "[192, 256]", r"'crops' is tensor\(uint8\) of 128x96x3, by its metadata .* 256x192x3"),
        ("keypoint_names", '["a", "b"]', r"'confidence' is .* of 17, by its metadata .* of 2"),
        ("confidence", "null", "'confidence' is .*, by its metadata not there"),
        ("channels", "BGR", "'rtmpose.channels' is BGR, not RGB"),
        ("channels", None, r"'rtmpose.channels' is None, not RGB; give an end-to-end file"),
        ("confidence", '{"slope": -1, "intercept": 0}', "confidence.slope"),
    ],
)
def test_a_file_that_differs_from_its_card_is_one_line(
    path: Path, tmp_path: Path, name: str, value: str | None, reason: str
) -> None:
    with pytest.raises(UserError, match=rf"^[^\n]*other\.onnx: [^\n]*{reason}[^\n]*$"):
        EndToEnd.open(changed(path, tmp_path, name, value))


def test_the_plain_reader_and_the_plain_file_are_refused(path: Path, files: ModelFiles) -> None:
    with pytest.raises(UserError, match="'input' is not there"):
        read_card(path)
    with pytest.raises(UserError, match=r"give an end-to-end file"):
        EndToEnd.open(files.onnx)


def test_nothing_is_left_where_the_file_cannot_be_written(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rtmpose.deploy.graphs.onnx.save", full)
    with pytest.raises(UserError, match=r"e2e\.onnx: cannot be written: no space left on device"):
        export_e2e(files.onnx, tmp_path / "rtmpose.e2e.onnx")
    assert list(tmp_path.iterdir()) == []
