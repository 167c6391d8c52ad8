"""Where finished shards lie, and the receipts by which a later run knows them: a folder, or a URL that fsspec
opens.

A shard's receipt is written last. What has none is not finished, whatever else is there of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rtmpose.files import ATTEMPTS, FIRST_PAUSE, UserError, one_line, retried, sha256_of, write_atomic

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Receipt = dict[
    str, Any
]  # name, samples, bytes, sha256, idx_sha256, photographs, skipped; of a remote shard also store_hash
Value = TypeVar("Value")

PLAN = "plan"
STORE_HASHES = ("ETag", "etag", "md5Hash", "content_md5")  # what stores call the hash of an object's content


class Place(Protocol):
    """What both places can do."""

    def open(self, names: Sequence[str], *, fresh: bool) -> list[Receipt]:
        """Get ready for the shards `names` -> the receipts of those that are finished and whole; with `fresh`
        none is.
        """

    def put(self, tar: Path, index: bytes, receipt: Receipt) -> None:
        """Take a finished tar, whose file may be used up in it, its index and, last, its receipt."""


@dataclass(frozen=True)
class LocalPlace:
    """A folder of shards; their receipts lie in another one, which belongs to one `plan`, or are not kept
    (None).
    """

    folder: Path
    receipts: Path | None = None
    plan: str = ""

    def open(self, names: Sequence[str], *, fresh: bool) -> list[Receipt]:
        kept: list[Receipt] = []
        if self.receipts is not None:
            if fresh or not self._is_ours(self.receipts):
                shutil.rmtree(self.receipts, ignore_errors=True)
                write_atomic(self.receipts / PLAN, self.plan)
            paths = [path for name in names if (path := self.receipts / f"{name}.json").is_file()]
            found = [_unsealed(path.read_bytes()) for path in paths]
            kept = [receipt for receipt in found if receipt is not None and self._is_whole(receipt)]
        self.folder.mkdir(parents=True, exist_ok=True)
        whole = {name for receipt in kept for name in (receipt["name"], _index_name(receipt))}
        for path in self.folder.iterdir():
            if path.name not in whole:
                path.unlink(missing_ok=True)
        return kept

    def put(self, tar: Path, index: bytes, receipt: Receipt) -> None:
        if self.receipts is not None and not self._is_ours(self.receipts):
            # This worker has outlived its killed driver, and a run with another plan has begun.
            raise RuntimeError(f"{self.receipts}: another run has taken this folder over")
        # Nothing is forced to the disk: a receipt is believed only if the bytes are there.
        os.replace(tar, self.folder / receipt["name"])
        tar.write_bytes(index)
        os.replace(tar, self.folder / _index_name(receipt))
        if self.receipts is not None:
            write_atomic(self.receipts / f"{receipt['name']}.json", _sealed(receipt))

    def _is_ours(self, receipts: Path) -> bool:
        known = receipts / PLAN
        return known.is_file() and known.read_text() == self.plan

    def _is_whole(self, receipt: Receipt) -> bool:
        tar, index = self.folder / receipt["name"], self.folder / _index_name(receipt)
        if not (tar.is_file() and index.is_file() and tar.stat().st_size == receipt["bytes"]):
            return False
        return sha256_of(tar) == receipt["sha256"] and sha256_of(index) == receipt["idx_sha256"]


@dataclass(frozen=True)
class RemotePlace:
    """A URL below which shards, indices and receipts lie side by side. Every call is tried several times.

    Raises UserError naming the URL and the last reason when the store goes on failing.
    """

    url: str
    first_pause: float = FIRST_PAUSE  # seconds; each further pause is twice as long

    def open(self, names: Sequence[str], *, fresh: bool) -> list[Receipt]:
        self.write(PLAN, self.url)  # before hours of work: does the store take anything at all?
        found = self._try("", self._list)
        kept = []
        for name in names:
            if f"{name}.json" not in found:
                continue
            if fresh:
                self._try(f"{name}.json", lambda fs, path: fs.rm_file(path))
                continue
            receipt = _unsealed(self._try(f"{name}.json", lambda fs, path: fs.cat_file(path)))
            if receipt is not None and self._is_whole(receipt, found):
                kept.append(receipt)
        return kept

    def put(self, tar: Path, index: bytes, receipt: Receipt) -> None:
        stored = self._try(receipt["name"], lambda fs, path: _upload(fs, tar, path))
        self._try(_index_name(receipt), lambda fs, path: fs.pipe_file(path, index))
        self.write(f"{receipt['name']}.json", _sealed(receipt | {"store_hash": stored}))

    def write(self, name: str, text: str) -> None:
        """Put a small file there."""
        self._try(name, lambda fs, path: fs.pipe_file(path, text.encode()))

    def _list(self, fs: AbstractFileSystem, path: str) -> dict[str, dict[str, Any]]:
        fs.invalidate_cache()
        return {PurePosixPath(entry["name"]).name: entry for entry in fs.ls(path, detail=True)}

    def _is_whole(self, receipt: Receipt, found: dict[str, dict[str, Any]]) -> bool:
        """By size and by the store's own hash of the content; a store that has none is read."""
        name = receipt["name"]
        if _index_name(receipt) not in found or found.get(name, {}).get("size") != receipt["bytes"]:
            return False
        stored = _store_hash(found[name])
        if stored is not None:
            return bool(stored == receipt["store_hash"])
        return bool(self._try(name, _read_hash) == receipt["sha256"])

    def _try(self, name: str, action: Callable[[AbstractFileSystem, str], Value]) -> Value:
        url = f"{self.url}/{name}" if name else self.url
        try:
            file_system, path = _file_system(url)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"{url}: {one_line(error)}; correct shard.url or install what it needs"
            ) from error
        try:
            return retried(
                lambda: action(file_system, path),
                self.first_pause,
                is_final=lambda error: isinstance(error, FileNotFoundError | PermissionError),
            )
        except (FileNotFoundError, PermissionError) as error:
            fix = "check shard.url and the store's credentials"
            raise UserError(f"{url}: {one_line(error)}; {fix}") from error
        except Exception as error:
            failed = f"{ATTEMPTS} attempts failed, the last one: {one_line(error)}"
            raise UserError(f"{url}: {failed}; check the store, then start again") from error


def _file_system(url: str) -> tuple[AbstractFileSystem, str]:
    import fsspec

    local = url.startswith(("file:", "local:"))  # whose folders, unlike an object's prefix, have to be made
    file_system, path = fsspec.core.url_to_fs(url, **({"auto_mkdir": True} if local else {}))
    return file_system, path


def _upload(fs: AbstractFileSystem, tar: Path, path: str) -> str | None:
    fs.put_file(str(tar), path)
    fs.invalidate_cache()
    stored = fs.info(path)
    if stored["size"] != tar.stat().st_size:
        raise OSError(f"{stored['size']} bytes arrived of {tar.stat().st_size}")
    return _store_hash(stored)


def _store_hash(entry: dict[str, Any]) -> str | None:
    return next((str(entry[name]) for name in STORE_HASHES if entry.get(name)), None)


def _read_hash(fs: AbstractFileSystem, path: str) -> str:
    with fs.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _index_name(receipt: Receipt) -> str:
    return Path(receipt["name"]).with_suffix(".idx").name


def _sealed(receipt: Receipt) -> str:
    """A receipt's text, with its own hash in a second line."""
    text = json.dumps(receipt)
    return f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}"


def _unsealed(content: bytes) -> Receipt | None:
    """The receipt; None for one that a kill cut short or that was damaged."""
    text, _, seal = content.partition(b"\n")
    return json.loads(text) if seal == hashlib.sha256(text).hexdigest().encode() else None
