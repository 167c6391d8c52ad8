"""Weights files that attack or confuse: each builder writes one file. Nothing in them may ever run."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"


def archive(path: Path, pickled: bytes, compress: int = zipfile.ZIP_STORED, **entries: bytes) -> Path:
    """An archive as PyTorch lays it out, around any pickle; one storage of four numbers lies in it."""
    with zipfile.ZipFile(path, "w", compress) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/data/0", struct.pack("<4f", 1, 2, 3, 4))
        for name, content in entries.items():
            file.writestr(f"archive/data/{name}", content)
    return path


def state_dict(tensor: bytes, key: str = "backbone.stem.0.conv.weight") -> bytes:
    """A pickle {key: tensor} with the tensor's own opcodes."""
    name = key.encode()
    return b"\x80\x02}X" + struct.pack("<I", len(name)) + name + tensor + b"s."


def rebuilt(size: str, stride: str, offset: str = "I0", storage: bytes = STORAGE) -> bytes:
    """Opcodes of `_rebuild_tensor_v2` over the one storage; numbers as text opcodes."""

    def numbers(text: str) -> bytes:
        return b"(" + b"".join(f"{part}\n".encode() for part in text.split()) + b"t"

    call = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return call + storage + f"{offset}\n".encode() + numbers(size) + numbers(stride) + b"\x89}tR"


def nested(path: Path, depth: int = 200_000) -> Path:
    return archive(path, b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")


def nested_key(path: Path, depth: int = 200_000) -> Path:
    """A tuple in a tuple …, as a key, whose hash would be computed level by level."""
    return archive(path, b"\x80\x02})" + b"\x85" * depth + b"K\x01s.")


def doubled(path: Path, times: int = 80, as_key: bool = True) -> Path:
    """t = (t, t), again and again: 2^80 leaves for whoever walks it."""
    grown = b")" + b"2\x86" * times
    return archive(path, b"\x80\x02}" + grown + b"K\x01s." if as_key else b"\x80\x02" + grown + b".")


def memo_doubled(path: Path, times: int = 80) -> Path:
    grown = b")q\x00" + b"h\x00h\x00\x86q\x00" * times
    return archive(path, b"\x80\x02}" + grown + b"K\x01s.")


def equal_hashes(path: Path, count: int = 30_000) -> Path:
    """Keys of one hash, each of which a dict would compare with all others."""
    keys = b"".join(b"\x8a\x0c" + (i * (2**61 - 1)).to_bytes(12, "little") + b"N" for i in range(1, count))
    return archive(path, b"\x80\x02}(" + keys + b"u.")


def bomb(path: Path) -> Path:
    """Half a gigabyte of zeros in half a megabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", state_dict(rebuilt("I134217728", "I1")))
        with file.open("archive/data/0", "w") as entry:
            for _ in range(64):
                entry.write(bytes(1 << 23))
    return path


def overlapping(path: Path) -> Path:
    """An entry that claims more bytes than the file has."""
    archive(path, state_dict(rebuilt("I4", "I1")))
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    struct.pack_into("<II", data, central + 20, 1 << 30, 1 << 30)
    path.write_bytes(data)
    return path


def many_entries(path: Path, count: int = 100_001) -> Path:
    local, central, offset = [], [], 0
    for i in range(count):
        name = f"a/{i}".encode()
        local.append(
            b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0) + name
        )
        fields = (20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, offset)
        central.append(b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", *fields) + name)
        offset += len(local[-1])
    listing = b"".join(central)
    # More than 65,535 entries need the longer record at the end.
    long_end = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(listing), offset)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, offset + len(listing), 1)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(b"".join(local) + listing + long_end + locator + end)
    return path


def same_name_twice(path: Path) -> Path:
    archive(path, state_dict(rebuilt("I4", "I1")))
    data = path.read_bytes()
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/data/1", struct.pack("<4f", 9, 9, 9, 9))
    path.write_bytes(path.read_bytes().replace(b"archive/data/1", b"archive/data/0"))
    assert path.stat().st_size > len(data)
    return path


def legacy_claim(path: Path, count: int = 1 << 40) -> Path:
    """The older format with a storage of terabytes in a few hundred bytes."""
    torch.save({"x": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"K\x04", b"\x8a\x06" + count.to_bytes(6, "little")))
    return path


def endless_text(path: Path) -> Path:
    return archive(path, b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.")


def many_opcodes(path: Path) -> Path:
    return archive(path, b"\x80\x02" + b"N0" * 550_000 + b"N.")


def long_number(path: Path) -> Path:
    return archive(path, b"I" + b"9" * 1_000_000 + b"\n.")


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "lists 200,000 deep": nested,
    "a key 200,000 deep": nested_key,
    "tuples doubled 80 times, as a key": doubled,
    "tuples doubled 80 times": lambda path: doubled(path, as_key=False),
    "memo doubled 80 times": memo_doubled,
    "keys of one hash": equal_hashes,
    "compressed zeros": bomb,
    "an entry larger than the file": overlapping,
    "100,001 entries": many_entries,
    "two entries of one name": same_name_twice,
    "terabytes in the older format": legacy_claim,
    "a text of 2^62 bytes": endless_text,
    "1.1 million opcodes": many_opcodes,
    "a number of a million digits": long_number,
    "an unknown opcode": lambda path: archive(path, b"\x80\x02\xff."),
    "a pickle without end": lambda path: archive(path, b"\x80\x02]"),
    "an empty stack": lambda path: archive(path, b"\x80\x020."),
    "a mark that is not there": lambda path: archive(path, b"\x80\x02t."),
    "a memo that was not filled": lambda path: archive(path, b"\x80\x02h\x07."),
    "a memo index far away": lambda path: archive(path, b"Np4000000000\n."),
    "an extension code": lambda path: archive(path, b"\x80\x02\x82\x01."),
    "beyond the storage": lambda path: archive(path, state_dict(rebuilt("I5", "I1"))),
    "beyond the storage by its offset": lambda path: archive(path, state_dict(rebuilt("I2", "I1", "I3"))),
    "a negative stride": lambda path: archive(path, state_dict(rebuilt("I2", "I-1", "I3"))),
    "a negative offset": lambda path: archive(path, state_dict(rebuilt("I2", "I1", "I-1"))),
    "a negative size": lambda path: archive(path, state_dict(rebuilt("I-2", "I1"))),
    "a size of 2^62": lambda path: archive(path, state_dict(rebuilt("I4611686018427387904", "I0"))),
    "sizes whose product overflows": lambda path: archive(
        path, state_dict(rebuilt("I4294967296 I4294967296", "I0 I0"))
    ),
    "a size that is text": lambda path: archive(path, state_dict(rebuilt("S'2'", "I1"))),
    "a storage of another length": lambda path: archive(
        path, state_dict(rebuilt("I4", "I1", storage=STORAGE.replace(b"K\x04t", b"K\x05t")))
    ),
    "a storage that is not there": lambda path: archive(
        path, state_dict(rebuilt("I4", "I1", storage=STORAGE.replace(b"\x000X", b"\x00zX")))
    ),
    "one key twice": lambda path: archive(
        path, b"\x80\x02}X\x01\x00\x00\x00aK\x01sX\x01\x00\x00\x00aK\x02s."
    ),
}
