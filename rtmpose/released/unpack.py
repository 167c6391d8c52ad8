"""The one ONNX file of a zip, read without trust: no path from the archive is ever written to."""

from __future__ import annotations

import hashlib
import stat
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from rtmpose.files import UserError, writing
from rtmpose.released.transfer import BLOCK, MOST, Failed

ENTRIES = 10_000
ENCRYPTED = 1  # bit of an entry's flags


def extract(archive: Path, out: Path, member: str | None = None) -> str:
    """Write the ONNX file in `archive` to `out`; its hex SHA-256.

    It is the only entry that ends in `.onnx`, or with `member` the only one whose path ends so. Raises Failed
    for what is no whole zip, and for an entry that is a link, encrypted or too large.
    """
    with archive.open("rb") as file:
        if file.read(64).lstrip()[:1] == b"<":
            raise Failed("a page instead of the file: a log-in, or an error")
    try:
        with zipfile.ZipFile(archive) as opened:
            entry = _only(opened.infolist(), member)
            digest = hashlib.sha256()
            with opened.open(entry) as source, _written(out) as target:
                left = entry.file_size
                # A read of at most what the entry claims: a bomb ends there, and its checksum is wrong.
                while block := source.read(min(BLOCK, left + 1)):
                    left -= len(block)
                    if left < 0:
                        raise Failed(f"{entry.filename[:80]!r} is longer than it claims")
                    digest.update(block)
                    with writing(out):
                        target.write(block)
            if left:
                raise Failed(f"{entry.filename[:80]!r} is shorter than it claims")
            return digest.hexdigest()
    except UserError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, ValueError) as error:
        raise Failed(f"not a whole zip archive ({' '.join(str(error).split())[:120]})") from None


def _written(out: Path) -> BinaryIO:
    with writing(out):
        return out.open("wb")


def _only(entries: list[zipfile.ZipInfo], member: str | None) -> zipfile.ZipInfo:
    if len(entries) > ENTRIES:
        raise Failed(f"its zip has {len(entries)} entries")
    ending = f"/{member}" if member else ".onnx"
    fitting = [entry for entry in entries if f"/{entry.filename}".endswith(ending) and not entry.is_dir()]
    if len(fitting) != 1:
        raise Failed(f"its zip holds {len(fitting)} files {ending.removeprefix('/')} instead of one")
    entry = fitting[0]
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise Failed(f"its entry {entry.filename[:80]!r} is a link")
    if entry.flag_bits & ENCRYPTED:
        raise Failed(f"its entry {entry.filename[:80]!r} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Failed(
            f"its entry {entry.filename[:80]!r} is packed by method {entry.compress_type}, not deflate"
        )
    if entry.file_size > MOST:
        raise Failed(f"its entry {entry.filename[:80]!r} has {entry.file_size} bytes unpacked")
    return entry
