"""Parts of an exported network by name: which nodes of the ONNX graph are the head, and which belong to which
part of the backbone.
"""

from __future__ import annotations

import onnx

HEAD = "head"


def parts(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Names of the graph's nodes by the part of the network they belong to, in the graph's order.

    The head is the last convolution and all that comes after it. In front of it, a node belongs to the part
    whose weights were used last, such as `backbone.stem` or `backbone.stage4.2`. The exporter keeps the
    weights' names.
    """
    nodes = list(model.graph.node)
    last = max(index for index, node in enumerate(nodes) if node.op_type == "Conv")
    weights = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, list[str]] = {}
    part = "input"
    for index, node in enumerate(nodes):
        if index == last:
            part = HEAD
        elif index < last and node.op_type == "Conv":
            named = [name for name in node.input if name in weights]
            part = _part(named[0]) if named else part
        found.setdefault(part, []).append(node.name)
    return found


def _part(weight: str) -> str:
    """`backbone.stage4.2.main_conv.conv.weight` to `backbone.stage4.2`; the stem is one part."""
    words = weight.split(".")
    return ".".join(words[:2] if words[1:2] == ["stem"] else words[:3])
