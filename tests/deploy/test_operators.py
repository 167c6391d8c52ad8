"""Which operators a file is made of, and what its consumers do not document."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from rtmpose.deploy.operator_sets import OPERATOR_SETS, PPLNN_X86
from rtmpose.deploy.operators import Operator, operators_of, outside, report
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.files import UserError


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two Relu and a HardSwish beside an `If` that holds an Abs, and an operator of another domain."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    inner = [
        helper.make_graph([helper.make_node("Abs", ["a"], [name])], name, [], [value]) for name in ("p", "q")
    ]
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("HardSwish", ["b"], ["c"]),
        helper.make_node("If", ["x"], ["d"], then_branch=inner[0], else_branch=inner[1]),
        helper.make_node("Swish", ["d"], ["e"], domain="pmx"),
    ]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("pmx", 1)]
    model = helper.make_model(helper.make_graph(nodes, "g", [value], [value]), opset_imports=opsets)
    onnx.save(model, str(tmp_path / "small.onnx"))
    return tmp_path / "small.onnx"


def test_operators_are_counted_with_their_versions(small: Path) -> None:
    assert operators_of(small) == (
        18,
        (
            Operator("Abs", 13, 2),
            Operator("Relu", 14, 2),
            Operator("HardSwish", 14, 1),
            Operator("If", 16, 1),
            Operator("pmx.Swish", None, 1),
        ),
    )


def test_what_a_consumer_does_not_document_has_a_reason(small: Path) -> None:
    _, operators = operators_of(small)
    assert outside(operators, PPLNN_X86) == {
        "Abs": "not documented",
        "Relu": "newer than version 12, which is documented",
        "HardSwish": "not documented",
        "If": "newer than version 12, which is documented",
        "pmx.Swish": "not documented",
    }
    assert set(outside(operators, OPERATOR_SETS["mnn"])) == {"pmx.Swish"}
    assert outside([Operator("ReduceL2", 18, 1)], OPERATOR_SETS["mnn"]) == {
        "ReduceL2": "MNN 3.6.1 executes it wrongly"
    }


def test_every_list_holds_names_of_onnx_operators() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    older = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}  # experimental ones that ONNX took back
    for documented in OPERATOR_SETS.values():
        assert set(documented.newest) - older <= known and len(documented.newest) > 70
        assert set(documented.tried) <= known


def test_the_report_of_an_exported_model(files: ModelFiles) -> None:
    text = report(files.onnx)
    assert "opset 18" in text and "Conv (version 11)" in text
    assert text.count("\n\n") == len(OPERATOR_SETS)
    assert "HardSigmoid" in report(files.onnx, ["pplnn"]).split("PPLNN x86")[1]
    assert "RKNN" not in report(files.onnx, ["pplnn"])


def test_mistakes_are_one_line(files: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--runtime: 'abacus' has no list here; give one of pplnn"):
        report(files.onnx, ["abacus"])
    with pytest.raises(UserError, match=r"none\.onnx: no such file"):
        report(tmp_path / "none.onnx")
    (tmp_path / "cut.onnx").write_bytes(files.onnx.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cut\.onnx: not a complete ONNX model"):
        report(tmp_path / "cut.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.onnx: holds no operators"):
        report(tmp_path / "empty.onnx")
