"""A folder of shards as a whole: its manifest, its index files, its photographs.

`manifest.json` lists shards only. The tars and their `.idx` files lie beside it, or under the URL that it
names.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, cast

import numpy as np
from annotated_types import Len
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from rtmpose.config import AugmentConfig, Record, parse
from rtmpose.data.raw.exif import orientation, upright
from rtmpose.data.raw.photograph import decode
from rtmpose.data.shards.cache import RemoteFile, RemoteShard, ShardCache
from rtmpose.data.shards.sample import INDEX, checksum, read_sample, span
from rtmpose.files import UserError, parse_json, read_bytes, read_json, sha256_of, write_atomic

MANIFEST = "manifest.json"
FORMAT = 3
CUT_AGAIN = "cut the shards again (stage shard)"


class _Told(Record):
    model_config = ConfigDict(allow_inf_nan=False)


class _Shard(_Told):
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+\.tar$")  # beside the manifest, or below its URL
    samples: NonNegativeInt
    bytes: NonNegativeInt
    sha256: str
    idx_sha256: str


class _CutFor(_Told):
    input_size: list[PositiveInt] = Field(min_length=2, max_length=2)
    shift: float
    scale: float
    rotate: float


class _Skeleton(_Told):
    name: str
    names: list[str] = Field(min_length=1)
    flip: list[NonNegativeInt]
    upper: list[NonNegativeInt]
    lower: list[NonNegativeInt]
    maps: dict[str, dict[str, str]]
    limbs: list[Annotated[list[NonNegativeInt], Len(2, 2)]] = Field(default_factory=list)
    sigmas: list[float] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits_itself(self) -> _Skeleton:
        count = len(self.names)
        halves = [*self.upper, *self.lower]
        if sorted(self.flip) != list(range(count)) or max(halves, default=0) >= count:
            raise ValueError(f"flip or the halves do not fit {count} names")
        return self


class _Train(_Told):
    kind: Literal["train"]
    url: str | None
    shards: list[_Shard]
    skeleton: _Skeleton
    cut_for: _CutFor


class _Eval(_Told):
    kind: Literal["eval"]
    samples: NonNegativeInt
    url: None
    shards: list[_Shard]


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
    manifest = read_json(path, CUT_AGAIN)
    found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
    if found != FORMAT:
        raise UserError(f"{path}: format {str(found)[:80]}, this version reads {FORMAT}; {CUT_AGAIN}")
    if manifest.get("kind") != kind:
        raise UserError(f"{path}: these are {manifest.get('kind')} shards, {kind} shards are needed")
    parse(_Train if kind == "train" else _Eval, manifest, path)
    for shard in manifest["shards"] if manifest["url"] is None else ():
        _mend_index(folder / shard["name"], shard)
    return cast("dict[str, Any]", manifest)


def manifest_digest(folder: Path) -> str:
    """Hex SHA-256 of a folder's manifest as it is without its licence: other words for the terms of the same
    shards are no other data. UserError where there is none.
    """
    return digest_without_licence(folder / MANIFEST, {"indent": 1, "sort_keys": True})


def digest_without_licence(path: Path, form: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a JSON file of ours that was written in this form of `json.dumps`, as it would be if
    nothing in it had the key `licence`.
    """
    content = read_bytes(path)
    if b'"licence"' not in content:
        return hashlib.sha256(content).hexdigest()
    plain = _without_licence(parse_json(content, str(path)))
    return hashlib.sha256((json.dumps(plain, **form) + "\n").encode()).hexdigest()


def _without_licence(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_licence(value) for key, value in content.items() if key != "licence"}
    return [_without_licence(value) for value in content] if isinstance(content, list) else content


def _mend_index(tar: Path, shard: dict[str, Any]) -> None:
    """UserError where a shard is missing or has another length. An index that is missing, damaged or another
    tar's is made again.
    """
    if not tar.is_file() or tar.stat().st_size != shard["bytes"]:
        raise UserError(f"{tar}: missing or not {shard['bytes']} bytes long; {CUT_AGAIN}")
    index = tar.with_suffix(".idx")
    if index.is_file() and sha256_of(index) == shard["idx_sha256"]:
        return
    rows = index_tar(tar).tobytes()
    if hashlib.sha256(rows).hexdigest() != shard["idx_sha256"]:
        raise UserError(f"{tar}: not the shard that was cut; cut or fetch it again (stage shard)")
    write_atomic(index, rows)


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
            most = f"cut for augmentation with {name} up to {allowed:g}, not {asked:g}"
            fix = f"raise shard.reach.{name} and cut them again, or lower {name}"
            raise UserError(f"{folder / MANIFEST}: {most}; {fix}")


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
                raise UserError(f"{shard}: image {image_id} cannot be decoded; {CUT_AGAIN}")
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
                if not 0 <= member.size < 1 << 32:
                    raise UserError(f"{path}: {member.name!r} has {member.size} bytes, which no sample has")
                spans[key][kind] = (member.offset_data, member.size)
    except UserError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError) as error:
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
            row["crc"] = checksum(row, content)
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
