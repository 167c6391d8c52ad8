"""A reader of pickles that calls nothing: it goes through the opcodes and builds containers, numbers, texts
and tensors.

A pickle is a program for a small stack machine, and Python's own machine calls whatever the program names.
This one knows the few names in `rebuild`; every other name becomes a `Placeholder`. It
never hashes, compares or walks what it has built, so nesting and sharing cost nothing, and `OPCODES` bounds
its work.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

OPCODES = 1_000_000  # with optimizer and EMA, each weight a group of its own, RTMDet-x has 136,000

STORAGES: Mapping[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
}
# What a tensor is rebuilt by, and why the result is none that a weight can be read from.
UNUSABLE = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_qtensor": "quantised",
    "_rebuild_meta_tensor_no_storage": "on the meta device, without values",
    "_rebuild_nested_tensor": "nested",
}
VALUES = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
)  # fmt: skip
CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS, GETS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")

Storage = Callable[[str, torch.dtype, int], Tensor]


class Placeholder:
    """Stands for whatever a file names that is not rebuilt."""

    __slots__ = ()


class Unusable(NamedTuple):
    """Stands for a tensor of a kind that no weight is read from; `kind` says which."""

    kind: str


@dataclass(frozen=True)
class Name:
    """A module and a name in it, as the file gives them; never imported."""

    module: str
    name: str


class PickleReader:
    """Reads one pickle after another from `file`; `storage(key, dtype, count)` gives the flat tensor that a
    storage holds. Raises ValueError for what no checkpoint contains.
    """

    def __init__(self, file: IO[bytes], storage: Storage) -> None:
        self._file, self._storage = file, storage
        self._left = OPCODES

    def load(self) -> Any:
        """What the next pickle holds. Text keys stay, whole numbers become text, others a note of their
        type.
        """
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        for opcode, argument, _ in pickletools.genops(self._file):
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"more than {OPCODES} opcodes")
            if opcode.name == "STOP":
                return self._pop()
            self._step(opcode.name, argument)
        raise ValueError("the pickle does not end")

    def _step(self, name: str, argument: Any) -> None:
        if name in VALUES:
            self._stack.append(argument)
        elif name in CONSTANTS:
            self._stack.append(CONSTANTS[name])
        elif name in PUTS:
            self._remember(int(argument))
        elif name == "MEMOIZE":
            self._remember(len(self._memo))
        elif name in GETS:
            self._stack.append(self._memo[int(argument)])
        elif name in TUPLES:
            count = TUPLES[name]
            self._stack.append(tuple(self._pop() for _ in range(count))[::-1])
        elif name not in ("PROTO", "FRAME"):
            step = getattr(self, f"_op_{name.lower()}", None)
            if step is None:
                raise ValueError(f"the opcode {name}, which no checkpoint contains")
            step() if argument is None else step(argument)

    def _remember(self, index: int) -> None:
        # Indices far apart could be chosen so that the dict degenerates into a list.
        if not 0 <= index <= OPCODES:
            raise ValueError(f"the memo index {index}")
        self._memo[index] = self._top()

    def _top(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise ValueError("an opcode without its operand")
        return self._stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _op_mark(self) -> None:
        self._marks.append(len(self._stack))

    def _op_pop(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._pop()

    def _op_pop_mark(self) -> None:
        self._pop_mark()

    def _op_dup(self) -> None:
        self._stack.append(self._top())

    def _op_tuple(self) -> None:
        self._stack.append(tuple(self._pop_mark()))

    def _op_empty_list(self) -> None:
        self._stack.append([])

    def _op_list(self) -> None:
        self._stack.append(self._pop_mark())

    def _op_append(self) -> None:
        self._extend([self._pop()])

    def _op_appends(self) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        if isinstance(target := self._top(), list):
            target.extend(items)

    def _op_empty_dict(self) -> None:
        self._stack.append({})

    def _op_dict(self) -> None:
        self._stack.append(_filled({}, _pairs(self._pop_mark())))

    def _op_setitem(self) -> None:
        value = self._pop()
        self._set([(self._pop(), value)])

    def _op_setitems(self) -> None:
        self._set(_pairs(self._pop_mark()))

    def _set(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        if isinstance(target := self._top(), dict):
            _filled(target, pairs)

    def _op_empty_set(self) -> None:
        self._stack.append(Placeholder())

    def _op_additems(self) -> None:
        self._pop_mark()

    def _op_frozenset(self) -> None:
        self._pop_mark()
        self._stack.append(Placeholder())

    def _op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(Name(module, name))

    def _op_stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._stack.append(Name(str(module), str(name)) if isinstance(name, str) else Placeholder())

    def _op_reduce(self) -> None:
        arguments, what = self._pop(), self._pop()
        self._stack.append(rebuild(what, arguments))

    _op_newobj = _op_reduce

    def _op_newobj_ex(self) -> None:
        self._pop()
        self._op_reduce()

    def _op_inst(self, _: str) -> None:
        self._pop_mark()
        self._stack.append(Placeholder())

    def _op_obj(self) -> None:
        self._pop_mark()
        self._stack.append(Placeholder())

    def _op_build(self) -> None:
        self._pop()  # attributes, such as a state dict's `_metadata`: not taken over

    def _op_persid(self, _: str) -> None:
        self._stack.append(Placeholder())

    def _op_binpersid(self) -> None:
        match self._pop():
            case ("storage", Name("torch", kind), str(key), _, int(count), *more) if not any(more):
                dtype = STORAGES.get(kind)
                self._stack.append(Placeholder() if dtype is None else self._storage(key, dtype, count))
            case _:
                self._stack.append(Placeholder())


def _pairs(items: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(items[::2], items[1::2], strict=True)


def _filled(target: dict[str, Any], pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    for key, value in pairs:
        name = key if isinstance(key, str) else _key_text(key)
        if name in target and isinstance(key, str):
            raise ValueError(f"the key {name[:80]!r} occurs twice")
        target[name] = value
    return target


def _key_text(key: Any) -> str:
    # Numbers are not used as keys themselves: a file could choose a million of equal hash.
    return str(key) if isinstance(key, int) and abs(key) < 1 << 63 else f"({type(key).__name__})"


def rebuild(what: Any, arguments: Any) -> Any:
    """What `what(*arguments)` stands for, without a call: a tensor, a dict, or a placeholder."""
    if not isinstance(what, Name) or not isinstance(arguments, tuple):
        return Placeholder()
    match what.module, what.name:
        case "collections", "OrderedDict" | "defaultdict":
            return _ordered(arguments)
        case "torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2":
            return view(arguments)
        case "torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state":
            return arguments[0] if arguments else Placeholder()
        case "torch._tensor", "_rebuild_from_type_v2":
            return _of_type(arguments)
        case ("torch._utils", name) if name.startswith("_rebuild_"):
            return Unusable(UNUSABLE.get(name, f"of a kind that is rebuilt by {name[:60]}"))
        case _:
            return Placeholder()


def _ordered(arguments: tuple[Any, ...]) -> dict[str, Any]:
    items = arguments[0] if arguments and isinstance(arguments[0], list) else []
    pairs = [item for item in items if isinstance(item, list | tuple) and len(item) == 2]
    return _filled({}, ((key, value) for key, value in pairs))


def _of_type(arguments: tuple[Any, ...]) -> Any:
    """A tensor with attributes, or of a subclass: the tensor alone."""
    match arguments:
        case (
            Name("torch._utils", "_rebuild_tensor_v2"),
            Name("torch._tensor" | "torch", "Tensor"),
            tuple(own),
            _,
        ):
            return view(own)
        case _:
            return Unusable("of a subclass of Tensor")


def view(arguments: tuple[Any, ...]) -> Tensor | Unusable | Placeholder:
    """A storage as a tensor of `size` and `stride` from `offset` on; ValueError where it reaches beyond."""
    flat, offset, size, stride, *more = arguments
    if not isinstance(flat, Tensor):
        return Unusable("of another device or type of storage")
    if len(more) > 2 and more[2]:
        return Unusable("a conjugate or negative view")
    whole = [offset, *size, *stride]
    if any(type(number) is not int or not 0 <= number < 1 << 48 for number in whole) or len(size) != len(
        stride
    ):
        raise ValueError("a tensor with an impossible size, stride or offset")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= len(flat):
        raise ValueError(f"a tensor that reaches beyond its storage of {len(flat)} numbers")
    return torch.as_strided(flat, size, stride, offset) if 0 not in size else flat.new_empty(size)
