"""Damage to any file: its bytes, or the values in its JSON or YAML. All chance is the given generator's."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import yaml

MARK = "executed"  # the file that would appear if anything in an input ever ran
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 10**6, 2**31, 2**63, -(2**63), 10**30, 10**400,
    0.5, -0.5, 1e-300, 1e308, float("nan"), float("inf"), float("-inf"),
    "", " ", "0", "1.5", "nan", "a" * 300, "x\n y", "\0", "\ud800", "é",
    "../../etc/passwd", "/etc/passwd", "..\\..\\x",
    [], {}, [None], [[]], [1, 2, 3], {"a": 1}, [[1.0] * 51],
)  # fmt: skip


def laughs(levels: int = 12, times: int = 9) -> bytes:
    """YAML in which every list holds the one before nine times."""
    lines = [b"b0: &b0 [x]"]
    for level in range(1, levels):
        lines.append(b"b%d: &b%d [%s]" % (level, level, b", ".join([b"*b%d" % (level - 1)] * times)))
    return b"\n".join(lines)


TEXTS = (
    b"", b"\0", b"null", b"[]", b"{}", b"3", b'"text"', b"[" * 100_000, b'{"a":' * 100_000,
    b"\xff\xfe\x00\x00", b"\x80\x81\x82", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n", b"a: &a [*a]\n",
    b"- - - - " * 20_000, b"PK\x03\x04", laughs(), b"a: 1\na: 2\n", b'{"a": 1, "a": 2}', b'"\\ud800"',
    b"x: !!python/object/apply:os.system ['touch %s']\n" % MARK.encode(),
    b"1" * 5000, b"\xef\xbb\xbf{}", b"<html></html>",
)  # fmt: skip


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes after one to three of: bits flipped; cut; a part zeroed, removed, doubled, moved or made
    noise.
    """
    if rng.random() < 0.05:
        return TEXTS[rng.integers(len(TEXTS))]
    for _ in range(int(rng.integers(1, 4))):
        content = _once(content, rng)
    return content


def _once(content: bytes, rng: np.random.Generator) -> bytes:
    size = len(content)
    if not size:
        return content
    # Half of all places lie in the first or last kilobyte, where headers and tables are.
    near = int(rng.integers(max(1, min(size, 1024))))
    at = int(rng.choice([near, size - 1 - near, *rng.integers(size, size=2)]))
    length = int(min(size - at, rng.choice([1, 2, 4, 8, 64, 512, 4096])))
    before, part, after = content[:at], content[at : at + length], content[at + length :]
    match int(rng.integers(8)):
        case 0 | 1:
            bits = bytearray(content)
            for place in [at, *rng.integers(size, size=int(rng.integers(0, 4))).tolist()]:
                bits[place] ^= 1 << int(rng.integers(8))
            return bytes(bits)
        case 2:
            return before
        case 3:
            return before + bytes(length) + after
        case 4:
            return before + after
        case 5:
            return before + part + part + after
        case 6:
            return before + rng.bytes(length) + after
        case _:
            return after + part + before


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in nested dicts and lists."""
    found = [path]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += places(value, (*path, key))
    return found


def changed(tree: Any, rng: np.random.Generator) -> Any:
    """A copy with one to three values removed, renamed, doubled, wrapped, or of another kind."""
    tree = copy.deepcopy(tree)
    for _ in range(int(rng.integers(1, 4))):
        known = places(tree)
        # Long lists of alike things would take nearly every draw.
        depths = sorted({len(path) for path in known})
        depth = depths[int(rng.integers(len(depths)))]
        level = [path for path in known if len(path) == depth]
        path = level[int(rng.integers(len(level)))]
        if not path:
            if rng.random() < 0.2:
                return VALUES[rng.integers(len(VALUES))]
            continue
        holder = tree
        for key in path[:-1]:
            holder = holder[key]
        _change(holder, path[-1], rng)
    return tree


def _change(holder: Any, key: Any, rng: np.random.Generator) -> None:
    value = holder[key]
    match int(rng.integers(8)):
        case 0 | 1:
            del holder[key]
        case 2 | 3 | 4:
            holder[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
        case 5:
            holder[key] = [str(value), [value], {"a": value}, [value, value]][int(rng.integers(4))]
        case 6:
            if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(value))
            else:
                holder[f"{key}x"] = holder.pop(key)
        case _:
            if isinstance(value, int | float) and not isinstance(value, bool):
                holder[key] = value * float(rng.choice([-1, 0, 1e6, 1e-6, 1e300]))
            elif isinstance(value, list | dict | str):
                holder[key] = type(value)()


def json_bytes(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def yaml_bytes(tree: Any) -> bytes:
    return yaml.safe_dump(tree).encode("utf-8", "surrogatepass")
