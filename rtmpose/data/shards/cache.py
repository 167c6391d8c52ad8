"""Remote shards, copied whole into one bounded folder that all processes of a machine share.

A copy is named by its content's hash, appears under that name only when it is whole, and goes when it is the
one longest unused and the folder is full. Whoever holds an evicted file open reads on.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rtmpose.files import ATTEMPTS, FIRST_PAUSE, UserError, locked, one_line, retried, temporary_beside

BLOCK = 1 << 20
STALE = 3600.0  # seconds after which an unfinished download is nobody's


class RemoteFile(NamedTuple):
    """A URL that fsspec opens, and the size and SHA-256 that its content must have."""

    url: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class RemoteShard:
    """A tar and its index."""

    tar: RemoteFile
    index: RemoteFile


@dataclass(frozen=True)
class ShardCache:
    """A folder of copies, of at most `max_bytes` together, those in the making included; `first_pause`
    seconds lie before the second attempt.
    """

    folder: Path
    max_bytes: int
    first_pause: float = FIRST_PAUSE

    def fetch(self, shard: RemoteShard) -> Path:
        """The local copy of a shard's tar with its `.idx` beside it, downloaded now or before.

        Raises UserError naming the URL when it stays unreadable, or another content than was cut, after five
        attempts; and naming the folder when that cannot be written to.
        """
        path = self._path(shard)
        if self.touch(shard):
            return path
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / f".{path.stem[:2]}.lock"):  # one process downloads; 256 locks for all
                if not self.touch(shard):
                    temporary = self._reserve(shard)
                    try:
                        self._download(shard.index, temporary[0])
                        self._download(shard.tar, temporary[1])
                        temporary[0].rename(path.with_suffix(".idx"))
                        temporary[1].rename(path)
                    finally:
                        for file in temporary:
                            file.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.folder}: {one_line(error)}; free space there, or name another hardware.cache"
            ) from error
        return path

    def touch(self, shard: RemoteShard) -> bool:
        """Whether the copy is there, in full length; it then counts as used now."""
        path = self._path(shard)
        try:
            os.utime(path)
            return (
                path.stat().st_size == shard.tar.bytes
                and path.with_suffix(".idx").stat().st_size == shard.index.bytes
            )
        except (FileNotFoundError, NotADirectoryError):
            return False

    def drop(self, shard: RemoteShard) -> None:
        """Remove a copy that turned out to be damaged."""
        self._path(shard).unlink(missing_ok=True)

    def _path(self, shard: RemoteShard) -> Path:
        return self.folder / f"{shard.tar.sha256[:40]}.tar"

    def _reserve(self, shard: RemoteShard) -> list[Path]:
        """Make room for a shard, and take it by two temporary files of full length: index and tar."""
        wanted = shard.tar.bytes + shard.index.bytes
        with locked(self.folder / ".room.lock"):
            now = time.time()
            for file, status in self._files(".*.tmp"):  # of a process that was killed
                if now - status.st_mtime > STALE:
                    file.unlink(missing_ok=True)
            held = sum(
                status.st_size
                for pattern in ("*.tar", "*.idx", ".*.tmp")
                for _, status in self._files(pattern)
            )
            for file, status in sorted(self._files("*.tar"), key=lambda copy: copy[1].st_mtime):
                if held + wanted <= self.max_bytes:
                    break
                index = file.with_suffix(".idx")
                held -= status.st_size + (index.stat().st_size if index.exists() else 0)
                file.unlink(missing_ok=True)
                index.unlink(missing_ok=True)
            taken = []
            for suffix, remote in ((".idx", shard.index), (".tar", shard.tar)):
                taken.append(temporary_beside(self._path(shard).with_suffix(suffix)))
                with taken[-1].open("wb") as new:
                    new.truncate(remote.bytes)
        return taken

    def _files(self, pattern: str) -> list[tuple[Path, os.stat_result]]:
        """The folder's files of a pattern, less those that another process removes meanwhile."""
        found = []
        for file in self.folder.glob(pattern):
            with suppress(FileNotFoundError):
                found.append((file, file.stat()))
        return found

    def _download(self, remote: RemoteFile, path: Path) -> None:
        """Copy a remote file into a temporary one, checked by its hash; tries again after growing pauses."""
        with path.open("r+b") as file:
            try:
                retried(lambda: _copy_checked(remote, file), self.first_pause, is_final=_is_final)
            except (FileNotFoundError, PermissionError) as error:
                fix = "check the URL and the store's credentials"
                raise UserError(f"{remote.url}: {one_line(error)}; {fix}") from error
            except Exception as error:
                if _is_full(error):
                    raise
                failed = f"{ATTEMPTS} attempts failed, the last one: {one_line(error)}"
                raise UserError(f"{remote.url}: {failed}; check the store, then start again") from error


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno == errno.ENOSPC


def _is_final(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError | PermissionError) or _is_full(error)


def _copy_checked(remote: RemoteFile, file: BinaryIO) -> None:
    file.seek(0)
    found = _copy(remote, file)
    if found != remote.sha256:
        expected = remote.sha256[:12]
        raise ValueError(f"its content is not what was cut (sha256 {found[:12]}, expected {expected})")


def _copy(remote: RemoteFile, file: BinaryIO) -> str:
    """Write the remote content to `file` -> its SHA-256."""
    import fsspec

    digest = hashlib.sha256()
    with fsspec.open(remote.url, "rb").open() as source:
        while block := source.read(BLOCK):
            digest.update(block)
            file.write(block)
    file.truncate()
    return digest.hexdigest()
