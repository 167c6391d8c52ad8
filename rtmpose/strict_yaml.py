"""YAML as it is meant: what a lenient reader would change or hide is an error."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import yaml

YAML_NODES = 100_000
DEPTH = 100  # of collections within each other: libyaml's reader calls itself for each, and would crash
UNFINISHED = (0, 0)
DIGITS = 40  # more need not be computed to know that a number is beyond 64 bits
# By libyaml where PyYAML has it, as its wheels do: ten times as fast.
_Safe: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load(text: str) -> Any:
    """The values of a YAML document; YAMLError as PyYAML raises it, and for what its output would hide."""
    depth = 0
    for event in yaml.parse(text, _Safe):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH:
                mark = cast(yaml.Mark, event.start_mark)  # libyaml's own kind has the same fields
                raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return yaml.load(text, _Loader)


class _Loader(_Safe):  # type: ignore[valid-type, misc]
    """The safe loader, which in addition refuses what its output would hide."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _measure(node, {})
        return node


def _measure(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """The number of nodes, and of collections within each other, once every alias is followed; YAMLError
    where they are too many.
    """
    if id(node) in known:
        if known[id(node)] == UNFINISHED:
            raise yaml.MarkedYAMLError(
                problem="an alias inside of what it stands for", problem_mark=node.start_mark
            )
        return known[id(node)]
    known[id(node)] = UNFINISHED
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key, value in Counter(names).items() if value > 1), None)
        if twice is not None:
            raise yaml.MarkedYAMLError(
                problem=f"the key {twice[:80]!r} stands twice", problem_mark=node.start_mark
            )
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.ScalarNode):
        _refuse_scalar(node)
    measured = [_measure(child, known) for child in children]
    count = 1 + sum(nodes for nodes, _ in measured)
    depth = max((depth for _, depth in measured), default=0) + bool(children)
    if count > YAML_NODES:
        raise yaml.MarkedYAMLError(problem=f"more than {YAML_NODES} values", problem_mark=node.start_mark)
    if depth > DEPTH:
        raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=node.start_mark)
    known[id(node)] = count, depth
    return count, depth


def _refuse_scalar(node: yaml.ScalarNode) -> None:
    if any("\ud800" <= letter <= "\udfff" for letter in node.value):
        raise yaml.MarkedYAMLError(problem="half a character (a surrogate)", problem_mark=node.start_mark)
    if node.tag == "tag:yaml.org,2002:int" and (
        len(node.value) > DIGITS or abs(yaml.SafeLoader("").construct_yaml_int(node)) >= 1 << 63
    ):
        raise yaml.MarkedYAMLError(problem="a number beyond 64 bits", problem_mark=node.start_mark)
