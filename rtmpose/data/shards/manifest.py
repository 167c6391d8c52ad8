"""A folder of shards as a whole: its manifest, its index files, its photographs.

`manifest.json` lists shards only. The tars and their `.idx` files lie beside it, or under the URL that it
names.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.config import AugmentConfig
from rtmpose.data.raw.exif import orientation, upright
from rtmpose.data.raw.photograph import decode
from rtmpose.data.shards.cache import RemoteFile, RemoteShard, ShardCache
from rtmpose.data.shards.sample import INDEX, read_sample, span
from rtmpose.files import UserError, read_json, write_atomic

MANIFEST = "manifest.json"
FORMAT = 2


@dataclass(frozen=True, eq=False)
class EvalImage:
    """One whole photograph (H, W, 3) uint8 RGB with its annotations in COCO's fields."""

    image_id: int | str
    image: NDArray[np.uint8]
    width: int
    height: int
    annotations: list[dict[str, Any]]
    file_name: str


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest of a shard folder of `kind` "train" or "eval"; UserError where there is none or a shard is
    not whole. A local tar without its index gets a new one.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{path} is missing: cut the shards first (stage shard)")
    manifest = read_json(path, "cut the shards again (stage shard)")
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{path}: format {manifest.get('format')}, this version reads {FORMAT}; cut the shards again "
            "(stage shard)"
        )
    if manifest["kind"] != kind:
        raise UserError(f"{path}: these are {manifest['kind']} shards, {kind} shards are needed")
    for shard in manifest["shards"] if manifest["url"] is None else ():
        file = folder / shard["name"]
        if not file.is_file() or file.stat().st_size != shard["bytes"]:
            raise UserError(
                f"{file}: missing or not {shard['bytes']} bytes long; cut the shards again (stage shard)"
            )
        index = file.with_suffix(".idx")
        if not index.is_file() or index.stat().st_size != shard["samples"] * INDEX.itemsize:
            rows = index_tar(file).tobytes()
            if hashlib.sha256(rows).hexdigest() != shard["idx_sha256"]:
                raise UserError(f"{file}: not the shard that was cut; cut or fetch it again (stage shard)")
            write_atomic(index, rows)
    return manifest


def remote_shard(manifest: dict[str, Any], number: int) -> RemoteShard:
    """What to fetch for shard `number` of a manifest that names a URL."""
    entry = manifest["shards"][number]
    url = f"{manifest['url'].rstrip('/')}/{entry['name']}"
    index, size = url.removesuffix(".tar") + ".idx", entry["samples"] * INDEX.itemsize
    return RemoteShard(
        RemoteFile(url, entry["bytes"], entry["sha256"]), RemoteFile(index, size, entry["idx_sha256"])
    )


def refuse_larger(folder: Path, manifest: dict[str, Any], size: tuple[int, int]) -> None:
    """UserError where the crops are too coarse for inputs of `size` (w, h) px, or of another shape."""
    cut = manifest["cut_for"]["input_size"]
    if size[0] > cut[0] or size[1] > cut[1] or size[0] * cut[1] != size[1] * cut[0]:
        raise UserError(
            f"{folder / MANIFEST}: cut for inputs of the shape of {cut[0]}x{cut[1]} and up to it, input_size "
            "is "
            f"{size[0]}x{size[1]}; set shard.input_size and cut the shards again"
        )


def refuse_stronger(folder: Path, manifest: dict[str, Any], augment: AugmentConfig) -> None:
    """UserError where an augmentation can show more of the photograph than the crops hold."""
    for name in ("shift", "scale", "rotate"):
        allowed, asked = manifest["cut_for"][name], getattr(augment, name)
        if asked > allowed:
            raise UserError(
                f"{folder / MANIFEST}: cut for augmentation with {name} up to {allowed:g}, not {asked:g}"
            )


def refuse_small_cache(cache: ShardCache | None, manifests: list[dict[str, Any]], held: list[int]) -> None:
    """UserError where `held` shards of each remote set do not fit together: they would be fetched again and
    again.
    """
    remote = [(manifest, count) for manifest, count in zip(manifests, held, strict=True) if manifest["url"]]
    needed = sum(
        count * max((shard["bytes"] for shard in manifest["shards"]), default=0) for manifest, count in remote
    )
    if remote and (cache is None or cache.max_bytes < needed):
        raise UserError(
            f"params.yaml: hardware.cache_gb: the shards at {remote[0][0]['url']} need a cache of "
            f"{needed / 1e9:.2f} GB for "
            "three windows; raise it or lower stream.window"
        )


def read_eval(folder: Path, ids: Collection[int | str] | None = None) -> Iterator[EvalImage]:
    """The photographs of a folder of evaluation shards, in the raw set's order; with `ids` only these.

    Evaluation sets are small and read again and again: they always lie beside their manifest.
    """
    manifest = read_manifest(folder, "eval")
    wanted = None if ids is None else set(ids)
    for entry in manifest["shards"]:
        shard = folder / entry["name"]
        for row in np.fromfile(shard.with_suffix(".idx"), INDEX):
            fields, content = read_sample(shard, row)
            image_id = fields["image_id"]
            if wanted is not None and image_id not in wanted:
                continue
            image = decode(content)
            if image is None:
                raise UserError(
                    f"{shard}: image {image_id} cannot be decoded; cut the shards again (stage shard)"
                )
            if fields.get("exif") == "display":
                image = upright(image, orientation(bytes(content)))
            yield EvalImage(
                image_id, image, fields["width"], fields["height"], fields["annotations"], fields["file_name"]
            )


def index_tar(path: Path) -> NDArray[Any]:
    """The `.idx` rows of a tar: a JSON and one more member per key, in the tar's order.

    Raises UserError for what no shard holds: links, devices, folders, absolute names or names with `..`, keys
    without their two members, keys that occur twice.
    """
    spans: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, kind = _sample_key(path, member)
                if kind in spans.setdefault(key, {}):
                    raise UserError(f"{path}: two samples with the key {key}: image ids are not unique")
                spans[key][kind] = (member.offset_data, member.size)
    except tarfile.TarError as error:
        raise UserError(f"{path}: not a whole tar ({error}); cut or fetch the shard again") from error
    rows = np.zeros(len(spans), INDEX)
    with path.open("rb") as file:
        for row, (key, found) in zip(rows, spans.items(), strict=True):
            if set(found) != {"image", "json"}:
                raise UserError(
                    f"{path}: key {key} has no {'image' if 'json' in found else 'JSON'}; cut the shard again"
                )
            (row["image"], row["image_bytes"]), (row["json"], row["json_bytes"]) = (
                found["image"],
                found["json"],
            )
            row["key"] = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
            first, end = span(row)
            file.seek(first)
            content = file.read(end - first)
            if len(content) < end - first:
                raise UserError(f"{path} at byte {first}: the tar is cut off; cut or fetch the shard again")
            row["crc"] = zlib.crc32(content)
    return rows


def _sample_key(path: Path, member: tarfile.TarInfo) -> tuple[str, str]:
    name = PurePosixPath(member.name)
    if not member.isreg():
        raise UserError(
            f"{path} at byte {member.offset}: {member.name!r} is no plain file; a shard holds nothing else: "
            "refused"
        )
    if name.is_absolute() or ".." in name.parts:
        raise UserError(
            f"{path} at byte {member.offset}: the name {member.name!r} leads out of its folder: refused"
        )
    key, _, suffix = member.name.rpartition(".")
    return key, "json" if suffix == "json" else "image"
