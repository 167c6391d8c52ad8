"""The deployed files of a registered version, checked by their hashes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rtmpose.files import UserError, sha256_of
from rtmpose.tracking.runs import client, reachable, tracking_uri

ONNX, DIGEST = "rtmpose.onnx", "sha256"


def digests(tags: Mapping[str, str]) -> dict[str, str]:
    """Hashes by file name, from a version's tags."""
    return {
        ONNX if tag == DIGEST else tag.removeprefix(f"{DIGEST}."): digest
        for tag, digest in tags.items()
        if tag.partition(".")[0] == DIGEST
    }


def version_files(name: str, version: int | str, folder: Path) -> dict[str, Path]:
    """Fetch the deployed files of a version into `folder` -> where each lies, by its name; UserError where
    one is missing or has another hash.
    """
    store = client()
    with reachable(tracking_uri()):
        found = store.get_model_version(name, str(version))
        wanted = digests(found.tags)
        folder.mkdir(parents=True, exist_ok=True)
        path = found.source.partition("/artifacts/")[2] if "/artifacts/" in found.source else "model"
        paths = {
            file: Path(store.download_artifacts(found.run_id, f"{path}/artifacts/{file}", str(folder)))
            for file in wanted
        }
    for file, path_ in paths.items():
        if sha256_of(path_) != wanted[file]:
            raise UserError(f"{name} version {version}: {file} has not the hash of the version's tags")
    return {file: one.replace(folder / file) for file, one in paths.items()}
