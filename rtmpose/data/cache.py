"""Remote shards, copied whole into one bounded folder that all processes of a machine share.

A copy is named by its content's hash, appears under that name only when it is whole, and goes when it is the one longest
unused and the folder is full. Whoever holds an evicted file open reads on.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rtmpose.config import UserError

ATTEMPTS = 5
FIRST_PAUSE = 0.5  # seconds; each further pause is twice as long
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
    """A folder of copies, of at most `max_bytes` together; `first_pause` seconds lie before the second attempt."""

    folder: Path
    max_bytes: int
    first_pause: float = FIRST_PAUSE

    def fetch(self, shard: RemoteShard) -> Path:
        """The local copy of a shard's tar with its `.idx` beside it, downloaded now or before.

        Raises UserError naming the URL when it stays unreadable, or another content than was cut, after five attempts.
        """
        path = self.folder / f"{shard.tar.sha256[:40]}.tar"
        if not self._touch(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / f".{path.stem}.lock"):
                if not self._touch(path):  # another process may have been quicker
                    self._make_room(shard.tar.bytes + shard.index.bytes)
                    self._download(shard.index, path.with_suffix(".idx"))
                    self._download(shard.tar, path)
        return path

    def _touch(self, path: Path) -> bool:
        """Whether the copy is there; it then counts as used now."""
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return path.with_suffix(".idx").exists()

    def _make_room(self, wanted: int) -> None:
        now = time.time()
        for file, status in self._files(".*.tmp"):  # of a process that was killed
            if now - status.st_mtime > STALE:
                file.unlink(missing_ok=True)
        copies = self._files("*.tar")
        held = sum(status.st_size for _, status in copies)
        for file, status in sorted(copies, key=lambda copy: copy[1].st_mtime):
            if held + wanted <= self.max_bytes:
                return
            file.unlink(missing_ok=True)
            file.with_suffix(".idx").unlink(missing_ok=True)
            held -= status.st_size

    def _files(self, pattern: str) -> list[tuple[Path, os.stat_result]]:
        """The folder's files of a pattern, less those that another process removes meanwhile."""
        found = []
        for file in self.folder.glob(pattern):
            with suppress(FileNotFoundError):
                found.append((file, file.stat()))
        return found

    def _download(self, remote: RemoteFile, path: Path) -> None:
        """Copy a remote file, checked by its hash, under a temporary name first; tries again after growing pauses."""
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        reason = ""
        try:
            for attempt in range(ATTEMPTS):
                if attempt:
                    time.sleep(self.first_pause * 2 ** (attempt - 1))
                try:
                    with temporary.open("wb") as file:
                        found = _copy(remote, file)
                except (FileNotFoundError, PermissionError) as error:
                    raise UserError(f"{remote.url}: {_plain(error)}; check the URL and the store's credentials") from error
                except Exception as error:  # each store has failures of its own: all may pass, and the last one is reported
                    reason = _plain(error)
                    continue
                if found == remote.sha256:
                    temporary.rename(path)
                    return
                reason = f"its content is not what was cut (sha256 {found[:12]}, expected {remote.sha256[:12]})"
        finally:
            temporary.unlink(missing_ok=True)
        raise UserError(f"{remote.url}: {ATTEMPTS} attempts failed, the last one: {reason}; check the store, then start again")


def _copy(remote: RemoteFile, file: BinaryIO) -> str:
    """Write the remote content to `file` -> its SHA-256."""
    import fsspec

    digest = hashlib.sha256()
    with fsspec.open(remote.url, "rb").open() as source:
        while block := source.read(BLOCK):
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _plain(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock ends with its holder, however that ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
