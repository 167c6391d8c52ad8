"""Where a run is found: in a folder, or in MLflow by the id of a run or the name of a registered version.

What the page is made from goes with a registered version as artifacts, so that the page can be made again
where the folder is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rtmpose.checkout import code_root
from rtmpose.config import parse
from rtmpose.files import UserError, read_json
from rtmpose.promotion import registry
from rtmpose.promotion.registry import Version
from rtmpose.report.folder import SOURCES, UNKNOWN, Folder, Receipt
from rtmpose.tracking import runs
from rtmpose.tracking.answers import reachable

MODELS = re.compile(r"models:/(?P<name>[^@/]+)(@|/)(?P<which>[^@/]+)")
RUN_ID = re.compile(r"[0-9a-f]{32}")
REPORT, FILES, PAGE = "report", "files", "report.html"
RECEIPT = "models/receipt.json"
OLDER = "metrics"  # where runs that were registered before there were pages have their figures


def place(name: str, version: int | str) -> str:
    """The artifact folder of a registered version's page; several versions may share a run."""
    return f"{REPORT}/{name}/version-{version}"


def present(folder: Path) -> list[Path]:
    """The files of a folder that the page is made from, as far as they are there, relative to it."""
    found = [path for pattern in SOURCES for path in sorted(folder.glob(pattern)) if path.is_file()]
    return [path.relative_to(folder) for path in found]


def log(run_id: str, folder: Path, page: Path, where: str) -> None:
    """Log a page and what it was made from as artifacts of a run, below `where`."""
    for path in present(folder):
        runs.log_file(run_id, folder / path, f"{where}/{FILES}/{path.parent}".removesuffix("/."))
    runs.log_file(run_id, page, where)


@contextmanager
def found(run: str) -> Iterator[Folder]:
    """The files of a run: a folder's own, or those that MLflow has of it, in a folder that lasts as long as
    the block. UserError where there is no such run, or nothing of one.
    """
    named = MODELS.fullmatch(run)
    if named is not None:
        version = registry.find(named["name"], named["which"])
        with _fetched(version.run_id, [place(version.name, version.number), OLDER], str(version)) as folder:
            yield folder
    elif RUN_ID.fullmatch(run) and not Path(run).exists():
        if not runs.has_run(run):
            raise UserError(f"{run}: MLflow has no such run; give a folder, a run's id or models:/NAME@ALIAS")
        newest = [place(one.name, one.number) for one in _versions(run)]
        with _fetched(run, [*newest, OLDER], f"run {run}") as folder:
            yield folder
    else:
        yield _local(run)


def _local(run: str) -> Folder:
    folder = Path(run)
    if not folder.is_dir():
        raise UserError(f"{run}: no such folder; give one with a run, a run's id or models:/NAME@ALIAS")
    if not present(folder):
        raise UserError(f"{run}: holds nothing of a run, such as {SOURCES[0]}; `dvc repro` makes one")
    conf = folder / "conf"
    return Folder(folder, folder.resolve().name, _trained_by(folder), conf if conf.is_dir() else None)


def _trained_by(folder: Path) -> str:
    """The commit of the code that trained what lies in a folder, by the run that its receipt names; HEAD may
    have moved on since. "unknown" where MLflow has no such run.
    """
    try:
        run_id = parse(Receipt, read_json(folder / RECEIPT), Path(RECEIPT)).run_id
        if run_id is None or not runs.is_there() or not runs.has_run(run_id):
            return UNKNOWN
        return _commit_of(run_id)
    except UserError:  # no receipt, or a store that does not answer: the page says what it lacks in its place
        return UNKNOWN


def _commit_of(run_id: str) -> str:
    store = runs.client()
    with reachable(runs.tracking_uri()):
        return str(store.get_run(run_id).data.tags.get("git_commit", UNKNOWN))


def _versions(run_id: str) -> list[Version]:
    """The registered versions of a run, the newest first."""
    every = [one for name in registry.model_names() for one in registry.versions(name)]
    return sorted((one for one in every if one.run_id == run_id), key=lambda one: -one.created_ms)


@contextmanager
def _fetched(run_id: str, places: list[str], name: str) -> Iterator[Folder]:
    """The first of a run's artifact folders that is there, as a folder of a run."""
    store = runs.client()
    commit = _commit_of(run_id)
    root = code_root()
    conf = None if root is None or not (root / "conf").is_dir() else root / "conf"
    with TemporaryDirectory() as here:
        for where in places:
            inner = where if where == OLDER else f"{where}/{FILES}"
            with reachable(runs.tracking_uri()):
                if not store.list_artifacts(run_id, inner):
                    continue
                fetched = Path(store.download_artifacts(run_id, inner, here))
            folder = fetched.parent if where == OLDER else fetched
            yield Folder(folder, f"{name} in MLflow", commit, conf)
            return
    raise UserError(f"{name}: MLflow has no figures of it; `dvc repro` registers a version with them")
