"""The recipe of docs/webdataset.md, run as it stands there."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtmpose.data.raw.annotations import RawImage
from rtmpose.data.shards.sample import INDEX, read_sample
from rtmpose.data.shards.write import write_train_shards
from rtmpose.descriptors import load_dataset
from tests.support import ROOT

RECIPE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_five_lines_stream_our_shards(
    images: list[RawImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, *others = RECIPE.findall((ROOT / "docs/webdataset.md").read_text())
    assert not others and len([line for line in recipe.splitlines() if line]) <= 5
    folder = tmp_path / "data/shards/coco17/train"
    dataset = load_dataset("coco17")
    manifest = write_train_shards(
        images, folder, dataset=dataset, input_size=(96, 128), shard_bytes=50_000, workers=1
    )
    assert len(manifest["shards"]) > 2
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(recipe, "docs/webdataset.md", "exec"), {})
    expected = []
    for shard in manifest["shards"]:
        for row in np.fromfile((folder / shard["name"]).with_suffix(".idx"), INDEX):
            fields, content = read_sample(folder / shard["name"], row)
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            assert image is not None
            key = fields["key"].removeprefix("coco17/")
            expected.append(f"{key} {image.shape} {fields['keypoints'][0]}")
    assert printed.getvalue().splitlines() == expected and len(expected) == manifest["samples"]
