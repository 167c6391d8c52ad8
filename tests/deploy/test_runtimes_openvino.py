"""OpenVINO: what it computes in bf16, several calls side by side, and crops taken as they are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rtmpose.deploy.runtimes.base import ModelFiles, NotPossible, Placement, Precision, image_by_image
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.runtimes.session import open_any_number, open_session
from rtmpose.descriptors import load_skeleton
from rtmpose.inference.network import open_in
from rtmpose.machine import bf16_instructions, cores
from rtmpose.topdown import ThroughArrays, ThroughCrops, TopDown, planes_of
from tests.deploy.support import relabelled
from tests.support import det_input

TWO_CORES = pytest.mark.skipif(cores() < 2, reason="OpenVINO takes no more threads than there are cores")


def test_openvino_keeps_the_head_in_float32_in_bf16(files: ModelFiles) -> None:
    """Everything after the last convolution is marked; where the CPU has bf16, that is what is computed."""
    import openvino as ov

    from rtmpose.deploy.runtimes.openvino import CONVOLUTIONS, _with_float_head, head

    core = ov.Core()
    model = core.read_model(str(files.onnx))
    marked = _with_float_head(core, model)
    mark = "DisablePrecisionConversion_0"  # what OpenVINO makes of it
    kept = {one.get_friendly_name() for one in marked.get_ordered_ops() if mark in one.get_rt_info()}
    kinds = {one.get_friendly_name(): one.get_type_name() for one in model.get_ordered_ops()}
    assert kept and kept == {name for name in head(model) if kinds[name] not in CONVOLUTIONS}
    if not bf16_instructions():
        return
    compiled = core.compile_model(marked, "CPU", {"INFERENCE_PRECISION_HINT": ov.Type.bf16})
    found = [one.get_rt_info() for one in compiled.get_runtime_model().get_ordered_ops()]
    computed = {
        kind: {one["runtimePrecision"].value for one in found if one["layerType"].value == kind}
        for kind in ("Convolution", "FullyConnected")
    }
    assert computed == {"Convolution": {"bf16"}, "FullyConnected": {"f32"}}
    session = open_session("openvino", files, "bf16")
    image = det_input((1, 3, 128, 96))
    exact = open_session("openvino", files)(image)
    for half, whole in zip(session(image), exact, strict=True):
        assert 0 < np.abs(half - whole).max() < 0.1 * np.abs(whole).max()


@TWO_CORES
def test_openvinos_streams_compute_calls_side_by_side(files: ModelFiles) -> None:
    session = open_session("openvino", files, placement=Placement(threads=2, streams=2))
    images = [det_input((1, 3, 128, 96), f"input{number}") for number in range(8)]
    alone = [[part.copy() for part in session(image)] for image in images]

    def computed(image: np.ndarray) -> list[np.ndarray]:
        return [part.copy() for part in session(image)]

    with ThreadPoolExecutor(2) as pool:
        for found, expected in zip(pool.map(computed, images * 4), alone * 4, strict=True):
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


@TWO_CORES
def test_persons_handed_out_to_openvino_are_those_of_one_after_the_other(files: ModelFiles) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    boxes = np.tile([[5.0, 5, 60, 70], [30, 2, 20, 25], [0, 0, 119, 89], [50, 20, 40, 60]], (5, 1))
    boxes[:, 2:] -= np.arange(len(boxes))[:, None] / 10
    several, one = (open_in(files, "openvino", "fp32", threads) for threads in (2, 1))
    for count in (1, 2, 4, 20, 9, 3):
        for mine, theirs in zip(several(image, boxes[:count]), one(image, boxes[:count]), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_takes_any_number_of_crops_as_they_are(
    files: ModelFiles, precision: Precision, tmp_path: Path
) -> None:
    files = ModelFiles(relabelled(files, tmp_path, mean=[100.0, 120, 140], std=[50.0, 60, 70]))
    card, place = read_card(files.onnx), Placement()
    try:
        of_crops = open_any_number("openvino", files, precision, place, crops=True)
    except NotPossible as reason:
        pytest.skip(str(reason))
    of_planes = open_any_number("openvino", files, precision, place)
    one = open_session("openvino", files, precision, place)
    crops = np.random.default_rng(0).integers(0, 256, (7, 128, 96, 3), np.uint8)
    planes = planes_of(crops, card.mean, card.std)
    expected = image_by_image(one, planes)
    files.onnx.unlink()  # what was opened stays as it was
    for count in (1, 3, 4, 5, 7):
        for infer, images in ((of_crops, crops), (of_planes, planes)):
            for found, alone in zip(infer(images[:count]), expected, strict=True):
                assert found.shape == (count, *alone.shape[1:])
                limit = (1e-5 if precision == "fp32" else 1e-2) * np.abs(alone).max()
                assert np.abs(found - alone[:count]).max() <= limit


def test_crops_are_refused_where_a_runtime_takes_none(files: ModelFiles) -> None:
    with pytest.raises(NotPossible, match="onnxruntime takes normalised images, no crops"):
        open_any_number("onnxruntime", files, "fp32", Placement(), crops=True)


def test_a_flip_test_mirrors_the_crops_that_openvino_takes(files: ModelFiles) -> None:
    card, skeleton = read_card(files.onnx), load_skeleton("coco17")
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    boxes = np.array([[5.0, 5, 60, 70], [30, 2, 20, 25]])
    found = []
    for crops, kind in ((True, ThroughCrops), (False, ThroughArrays)):
        network = kind(open_any_number("openvino", files, "fp32", Placement(), crops=crops))
        way = TopDown(network, card.codec(), skeleton, flip_test=True)
        found.append(way.points(way.crops(image, boxes)))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
