"""Pickles that call something as they are read: each takes the file that the call makes."""

from __future__ import annotations

import functools
import importlib
import io
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Reduce:
    """Pickles as a call of `function` with `args`, then `state` for `__setstate__`."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts

    def __call__(self) -> None:
        """Pickle asks whether what it shall call can be called."""


def text(source: str) -> bytes:
    return source.encode()


ATTACKS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda mark: Reduce(os.system, (f"touch {mark}",)),
    "eval": lambda mark: Reduce(eval, (f"open({str(mark)!r}, 'w')",)),
    "exec": lambda mark: Reduce(exec, (f"open({str(mark)!r}, 'w')",)),
    "import": lambda mark: [Reduce(importlib.import_module, ("os",)), Reduce(os.mkdir, (str(mark),))],
    "torch.save": lambda mark: Reduce(torch.save, ({}, str(mark))),
    "nested": lambda mark: {"a": [(Reduce(io.FileIO, (str(mark), "w")),)]},
    "setstate": lambda mark: Reduce(
        Reduce(functools.partial, (print,), (os.mkdir, (str(mark),), {}, None)), ()
    ),
    "list items": lambda mark: Reduce(list, (), None, iter([Reduce(os.mkdir, (str(mark),))])),
    "dict items": lambda mark: Reduce(dict, (), None, None, iter([(1, Reduce(os.mkdir, (str(mark),)))])),
    "inside the weights": lambda mark: OrderedDict(x=Reduce(os.mkdir, (str(mark),))),
}
OPCODES: dict[str, Callable[[Path], bytes]] = {
    "posix.system": lambda mark: text(f"cposix\nsystem\n(S'touch {mark}'\ntR."),
    "INST": lambda mark: text(f"(S'touch {mark}'\niposix\nsystem\n."),
    "getattr chain": lambda mark: text(
        f"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'touch {mark}'\ntR."
    ),
    "dotted name": lambda mark: (
        b"\x80\x04\x8c\x09torch.hub\x8c\x09os.system\x93\x8c" + bytes([len("touch "
                                                                           f"{mark}")]) + "touch "
                                                                                          f"{mark}".encode()
        + b"\x85R."
    ),
    "through torch.serialization": lambda mark: (
        b"\x80\x04\x8c\x13torch.serialization\x8c\x09os.system\x93\x8c" + bytes([len(f"touch {mark}")])
        + f"touch {mark}".encode() + b"\x85R."
    ),
}  # fmt: skip
