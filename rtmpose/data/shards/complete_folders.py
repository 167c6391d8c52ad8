"""Folders that appear complete or not at all, at once or over several killed attempts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from rtmpose.files import destination, locked, temporary_beside, writing

BUSY = "another process is writing the same shards; wait until it has ended"


@contextmanager
def complete_folder(path: Path) -> Iterator[Path]:
    """A folder under a temporary name beside `path` that takes its place, and an older one's, when the block
    succeeds. Where `path` is a link, that is the folder it leads to.
    """
    path = destination(path, folder=True)
    _remove_left_behind(path)
    temporary = temporary_beside(path)
    with writing(path):
        temporary.mkdir(parents=True)
    try:
        yield temporary
        _take_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def resumable_folder(path: Path, work: Path, parts: Collection[str]) -> Iterator[tuple[Path, Path]]:
    """Two folders below `work` that outlive a killed block, so that the next one goes on: what the first
    holds takes the place of `path` when the block succeeds, the second is for notes on it. Only `parts` of an
    earlier block are kept.

    The notes stay, so that a block that is run again finds all that it made before: the first folder then
    begins with hard links to the files of `path` (on one file system; elsewhere it begins empty).
    Raises UserError while another process is at work there.
    """
    path, work = destination(path, folder=True), destination(work, folder=True)
    with locked(work / "lock", wait=0, busy=BUSY):
        _remove_left_behind(path)
        folder, notes = work / "shards", work / "receipts"
        with writing(work):
            for place in (folder, notes):
                place.mkdir(exist_ok=True)
                for old in place.iterdir():
                    if old.name not in parts:
                        shutil.rmtree(old)
        for part in parts:
            if (notes / part).is_dir() and (path / part).is_dir() and not (folder / part).exists():
                _link(path / part, folder / part)
        yield folder, notes
        _take_place(folder, path)


def _link(source: Path, target: Path) -> None:
    """Make a folder `target` of hard links to the files of `source`, or none where links are not possible."""
    try:
        shutil.copytree(source, target, copy_function=os.link)
    except (OSError, shutil.Error):  # another file system, or one that has no links
        shutil.rmtree(target, ignore_errors=True)


def _take_place(new: Path, path: Path) -> None:
    """Move the folder `new` to `path`; what was there goes. On another file system than `path` it is copied
    first.
    """
    old, copy = temporary_beside(path), temporary_beside(path)
    whole = new
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if os.stat(new).st_dev != os.stat(path.parent).st_dev:
                whole = Path(shutil.copytree(new, copy))
            if path.exists():
                path.rename(old)
            whole.rename(path)
        except OSError:
            shutil.rmtree(copy, ignore_errors=True)
            if old.exists():
                old.rename(path)
            raise
    for gone in (old, new):
        shutil.rmtree(gone, ignore_errors=True)


def _remove_left_behind(path: Path) -> None:
    """What a killed process left beside `path`."""
    for left_behind in path.parent.glob(f".{path.name}.*.tmp"):
        shutil.rmtree(left_behind, ignore_errors=True)
