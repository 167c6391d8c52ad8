"""Int8 in another environment: the head is left out, and a failure is one line that leaves nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rtmpose.deploy.quantize import pt2e, pt2e_program
from rtmpose.deploy.quantize.pt2e import quantize_apart
from rtmpose.files import UserError

INPUTS = np.zeros((4, 3, 8, 8), np.float32)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 2, 3), nn.ReLU())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.backbone(images))
        return outputs


class NotesAll:
    """A quantizer that notes every operation."""

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        for node in model.graph.nodes:
            node.meta["quantization_annotation"] = "int8"
        return model


def test_the_head_is_left_out(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Small(), (torch.from_numpy(INPUTS[:1]),)), tmp_path / "n.pt2")
    model: Any = torch.export.load(tmp_path / "n.pt2").module()
    quantizer: Any = NotesAll()
    pt2e_program.keep_float(quantizer, ["head"])
    noted = quantizer.annotate(model)
    calls = [node for node in noted.graph.nodes if node.op == "call_function" and "aten" in str(node.target)]
    kept = [node for node in calls if "quantization_annotation" not in node.meta]
    assert [str(node.target) for node in kept] == ["aten.conv2d.default", "aten.relu.default"]
    assert len(calls) == 3


def test_a_failure_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program.py"
    monkeypatch.setattr(pt2e, "PROGRAM", program)
    program.write_text("import sys\nsys.exit('first\\nXNNPACK does not take aten.x')")
    target = tmp_path / "out" / "m.int8.pte"
    target.parent.mkdir()
    with pytest.raises(UserError, match=r"m\.int8\.pte: executorch cannot quantise.*does not take aten\.x"):
        quantize_apart("executorch", Path(sys.executable), Small(), INPUTS, target)
    assert list(target.parent.iterdir()) == []


def test_the_program_is_told_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program.py"
    monkeypatch.setattr(pt2e, "PROGRAM", program)
    program.write_text(
        "import json, os, sys\nabout = json.loads(sys.argv[2])\n"
        "assert all(os.path.exists(about[name]) for name in ('source', 'inputs'))\n"
        "open(about['target'], 'w').write(json.dumps([sys.argv[1], about['kept_float']]))"
    )
    path = quantize_apart("litert", Path(sys.executable), Small(), INPUTS, tmp_path / "m.int8.tflite")
    assert json.loads(path.read_text()) == ["litert", ["head"]]
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".tmp"] == []
