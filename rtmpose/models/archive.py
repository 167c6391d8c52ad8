"""PyTorch's two file formats, read without trust: zip archives, and the pickles in a row from before them.

What a file declares is held against its own length first, so that a few kilobytes cannot ask for gigabytes.
In an archive the CRC-32 of everything that is used is checked; the older format has no checksums.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtmpose.files import UserError
from rtmpose.models.pickled import PickleReader

ENTRIES = 100_000  # of an archive: one for each storage, and a handful more
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # what the older format begins with, pickled


def read_checkpoint(path: Path | str) -> Any:
    """What a checkpoint holds, tensors on the CPU; nothing that it names is imported or called. `UserError`
    for other files.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the path of a .pth checkpoint")
    try:
        return read_zip(path) if zipfile.is_zipfile(path) else read_legacy(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged or hostile file may fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path}: not a readable checkpoint, or damaged ({reason}); fetch it again"
        ) from error


def read_zip(path: Path) -> Any:
    """An archive as `torch.save` writes it; ValueError for one that is packed otherwise or damaged."""
    with zipfile.ZipFile(path) as archive:
        folder = _checked_folder(archive, path.stat().st_size)
        storages: dict[str, Tensor] = {}  # tensors may share one

        def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            if key not in storages:
                storages[key] = _flat(archive.read(f"{folder}data/{key}"), dtype, count)
            return _same(storages[key], key, dtype, count)

        return PickleReader(io.BytesIO(archive.read(f"{folder}data.pkl")), storage).load()


def _checked_folder(archive: zipfile.ZipFile, length: int) -> str:
    """The folder that an archive's entries lie in; ValueError where they cannot be what they claim."""
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    if len(entries) > ENTRIES or len(names) < len(entries):
        raise ValueError(f"{len(entries)} entries, {len(names)} names")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its entries are compressed, which PyTorch never does")
    if sum(entry.file_size for entry in entries) > length:
        raise ValueError(f"its entries claim more than the {length} bytes of the file")
    pickled = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickled) != 1:
        raise ValueError(f"{len(pickled)} entries data.pkl")
    folder = pickled[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("written on a big-endian machine")
    return folder


def read_legacy(path: Path) -> Any:
    """Pickles of magic, version, system, content and storage keys; then each storage with its count."""
    with path.open("rb") as start:
        head = PickleReader(io.BytesIO(start.read(64)), _no_storage)
        if head.load() != LEGACY_MAGIC:
            raise ValueError("it does not begin as a checkpoint")
    data = path.read_bytes()
    file = io.BytesIO(data)
    described: dict[str, Tensor] = {}

    def describe(key: str, dtype: torch.dtype, count: int) -> Tensor:
        described.setdefault(key, torch.empty(count, dtype=dtype, device="meta"))
        return _same(described[key], key, dtype, count)

    reader = PickleReader(file, describe)
    _, _, system = reader.load(), reader.load(), reader.load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("written on a big-endian machine")
    begin = file.tell()
    reader.load()  # described only: the storages come behind it
    keys = reader.load()
    storages = _storages_behind(data, file.tell(), keys, described)
    content = io.BytesIO(data)
    content.seek(begin)
    return PickleReader(content, lambda key, dtype, count: _same(storages[key], key, dtype, count)).load()


def _storages_behind(
    data: bytes, place: int, keys: list[str], described: dict[str, Tensor]
) -> dict[str, Tensor]:
    storages: dict[str, Tensor] = {}
    for key in keys:
        like = described[key]
        (count,) = struct.unpack_from("<q", data, place)
        place, size = place + 8, like.numel() * like.dtype.itemsize
        if count != len(like) or key in storages:
            raise ValueError(f"storage {key[:40]!r} has {count} numbers where {len(like)} belong")
        storages[key] = _flat(data[place : place + size], like.dtype, len(like))
        place += size
    return storages


def _no_storage(*_: Any) -> Tensor:
    raise ValueError("it does not begin as a checkpoint")


def _same(flat: Tensor, key: str, dtype: torch.dtype, count: int) -> Tensor:
    if flat.dtype != dtype or len(flat) != count:
        raise ValueError(f"storage {key[:40]!r} is described in two ways")
    return flat


def _flat(data: bytes, dtype: torch.dtype, count: int) -> Tensor:
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"a storage of {len(data)} bytes where {count * dtype.itemsize} belong")
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
