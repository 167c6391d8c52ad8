"""The card of an exported file: built in one place, read by whatever prepares its input, refused when it is
another model's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtmpose.config import Architecture
from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.write import write_eval_shards
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.samples import noise, person_crops
from rtmpose.descriptors import load_dataset
from rtmpose.files import UserError
from rtmpose.models import MEAN, STD
from rtmpose.targets import SimCC, UDPHeatmap
from tests.deploy.support import SIZE, card, relabelled

PATH = Path("model.onnx")


def test_a_card_comes_back_from_its_properties() -> None:
    for head in ("simcc", "simcc_plain", "simcc_deconv", "heatmap"):
        architecture = Architecture(size="s", head=head, kernel=3, hidden=16, gau=False)
        made = ModelCard.of(architecture, (64, 96), "aic", training_precision="bf16")
        assert ModelCard.from_properties(made.properties(), PATH) == made
        assert made.mean == MEAN and made.std == STD and len(made.keypoint_names) == 14
        assert isinstance(made.codec(), UDPHeatmap if head == "heatmap" else SimCC)
        assert made.network().input_size == (64, 96)


def test_a_card_with_all_that_can_be_known_comes_back() -> None:
    data = [{"name": "coco17", "sha256": "ab12", "licence": "CC BY 4.0"}]
    curve, measured = {"slope": 0.5, "intercept": -1.0}, {"parity": {"max_diff": 1e-5}}
    made = card().with_more(
        sigma=(3.0, 4.0), training_run="abc", data=data, measured=measured, confidence=curve
    )
    assert ModelCard.from_properties(made.properties(), PATH) == made
    assert made.data[0].licence == "CC BY 4.0" and made.confidence is not None
    assert made.confidence.intercept == -1 and card().confidence is None
    with pytest.raises(ValueError, match="slope"):
        card().with_more(confidence={"slope": -0.5, "intercept": 0.0})


def test_a_file_of_an_earlier_version_has_the_defaults() -> None:
    properties = card().properties()
    for name in ("backbone", "head", "training_precision"):
        del properties[f"rtmpose.{name}"]
    assert ModelCard.from_properties(properties | {"rtmpose.later": "1", "other": "x"}, PATH) == card()


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ("size", "{", "'rtmpose.size' is not JSON"),
        ("size", "[" * 100_000, "'rtmpose.size' is not JSON"),
        ("size", '"q"', "metadata: size"),
        ("kernel", '"wide"', "metadata: kernel"),
        ("head", '"plain"', "metadata: head"),
        ("input_size", "[96]", "metadata: input_size"),
        ("input_size", "[0, 128]", "metadata: input_size"),
        ("keypoint_names", "[]", "different names"),
        ("keypoint_names", '["nose", "nose"]', "different names"),
        ("mean", "[1, 2]", "metadata: mean"),
        ("mean", "[1, 2, NaN]", "metadata: mean"),
        ("std", "[1, 2, 0]", "must be above 0"),
        ("std", "[1, Infinity, 1]", "metadata: std"),
        ("std", "null", "metadata: std"),
        ("split_ratio", "-1", "must be above 0"),
        ("split_ratio", "null", "does not fit head simcc"),
        ("confidence", '{"slope": 1}', r"confidence\.intercept"),
        ("confidence", '{"slope": -1, "intercept": 0}', r"confidence\.slope"),
    ],
)
def test_a_card_that_says_nonsense_is_one_line(field: str, text: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"^model\.onnx: [^\n]*{reason}[^\n]*$"):
        ModelCard.from_properties(card().properties() | {f"rtmpose.{field}": text}, PATH)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input_size": [192, 256]}, "'input' is 3x128x96, by its metadata 3x256x192"),
        ({"split_ratio": 3.0}, "'simcc_x' is 17x192, by its metadata 17x288"),
        ({"keypoint_names": ["a", "b"]}, "'simcc_x' is 17x192, by its metadata 2x192"),
        ({"head": "heatmap", "split_ratio": None}, "'heatmaps' is not there, by its metadata 17x32x24"),
    ],
)
def test_the_card_of_another_model_is_refused(
    files: ModelFiles, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError, match=rf"^[^\n]*other\.onnx: {reason}[^\n]*another model[^\n]*$"):
        read_card(relabelled(files, tmp_path, **changes))


def test_samples_are_normalised_as_the_card_says(tmp_path: Path) -> None:
    raw, dataset = tmp_path / "raw", load_dataset("coco17")
    render_dataset(raw, "coco17", level="easy", images={"val": 2}, size=(160, 120), seed=1, workers=1)
    write_eval_shards(list(read_images(dataset, raw, "val")), tmp_path / "shards", dataset=dataset, workers=1)
    plain, other = (
        person_crops(tmp_path / "shards", one, 2)
        for one in (card(), card().model_copy(update={"mean": (0.0, 10.0, 20.0), "std": (1.0, 2.0, 4.0)}))
    )
    assert plain.shape == other.shape == (2, 3, SIZE[1], SIZE[0])
    pixels = plain * np.array(STD).reshape(3, 1, 1) + np.array(MEAN).reshape(3, 1, 1)
    expected = (pixels - np.array([0, 10, 20]).reshape(3, 1, 1)) / np.array([1, 2, 4]).reshape(3, 1, 1)
    np.testing.assert_allclose(other, expected, atol=1e-3)
    assert noise(SIZE, 3).shape == (3, 3, 128, 96)
