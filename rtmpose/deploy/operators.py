"""Which operators an ONNX file is made of, and which of them a consumer of ONNX files does not document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from rtmpose.deploy.operator_sets import OPERATOR_SETS, OperatorSet
from rtmpose.files import UserError, one_line

DOMAIN = ("", "ai.onnx")


@dataclass(frozen=True)
class Operator:
    """An operator of a file: its name (with its domain, where that is not ONNX's own), the version that the
    file's opset means by it (None outside ONNX's own), and how often it stands there.
    """

    name: str
    version: int | None
    count: int


def operators_of(path: Path) -> tuple[int, tuple[Operator, ...]]:
    """The opset of an ONNX file and its operators, the most frequent first, those of inner graphs too.

    UserError where it is no ONNX file.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give an ONNX file") from None
    except Exception as error:  # protobuf and onnx each have errors of their own
        raise UserError(
            f"{path}: not a complete ONNX model; export it again ({one_line(error)[:200]})"
        ) from None
    if not model.graph.node:
        raise UserError(f"{path}: holds no operators; give an ONNX file")
    opset = next((each.version for each in model.opset_import if each.domain in DOMAIN), 0)
    counts = Counter((node.domain, node.op_type) for node in _nodes(model.graph))
    operators = [
        Operator(name, _version(name, opset), count)
        if domain in DOMAIN
        else Operator(f"{domain}.{name}", None, count)
        for (domain, name), count in counts.items()
    ]
    return opset, tuple(sorted(operators, key=lambda each: (-each.count, each.name)))


def outside(operators: Sequence[Operator], documented: OperatorSet) -> dict[str, str]:
    """The operators that may not run in a consumer, each with the reason."""
    reasons = {}
    for operator in operators:
        if operator.name not in documented.newest:
            reasons[operator.name] = "not documented"
        elif (newest := documented.newest[operator.name]) is not None and (operator.version or 0) > newest:
            reasons[operator.name] = f"newer than version {newest}, which is documented"
        if operator.name in documented.tried:
            known = reasons.get(operator.name)
            reasons[operator.name] = f"{known}; " * bool(known) + documented.tried[operator.name]
    return reasons


def report(path: Path, consumers: Sequence[str] = ()) -> str:
    """The file's operators as text, and for each consumer (none named: all) what it does not document."""
    for name in consumers:
        if name not in OPERATOR_SETS:
            raise UserError(f"--runtime: {name!r} has no list here; give one of {', '.join(OPERATOR_SETS)}")
    opset, operators = operators_of(path)
    lines = [f"{path}: opset {opset}, {sum(each.count for each in operators)} nodes"]
    lines += [f"{each.count:>5}  {each.name} ({_since(each)})" for each in operators]
    for consumer in consumers or OPERATOR_SETS:
        reasons = outside(operators, OPERATOR_SETS[consumer])
        lines += ["", f"{consumer}: {OPERATOR_SETS[consumer].source}"]
        for reason in dict.fromkeys(reasons.values()):
            lines.append(f"  {', '.join(name for name, why in reasons.items() if why == reason)}: {reason}")
        if not reasons:
            lines.append("  all operators are documented")
    return "\n".join(lines)


def _since(operator: Operator) -> str:
    return "not ONNX's own" if operator.version is None else f"version {operator.version}"


def _version(name: str, opset: int) -> int | None:
    try:
        version: int = onnx.defs.get_schema(name, opset).since_version
    except onnx.defs.SchemaError:
        return None
    return version


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
