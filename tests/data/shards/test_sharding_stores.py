"""Sharding into a store: the same bytes as on a disk, also after a kill, and stores that fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from rtmpose.data.raw.annotations import RawImage
from rtmpose.data.shards import places
from rtmpose.data.shards.places import RemotePlace
from rtmpose.files import UserError
from tests.data.shards.resuming import Killed, alter, cut, kept, resumed, truncate
from tests.data.shards.test_write import contents
from tests.s3 import BUCKET, s3_server


def at_url(url: str) -> dict[str, bytes]:
    """Every file below a URL."""
    file_system, root = fsspec.core.url_to_fs(url)
    return {Path(name).name: file_system.cat_file(name) for name in file_system.find(root)}


def check_remote(manifest: dict[str, Any], out: Path, undisturbed: dict[str, bytes]) -> None:
    """Tars and indices are those of a local run, and lie at the manifest's URL only; nothing but it tells the
    two apart.
    """
    stored = at_url(manifest["url"])
    local = json.loads(undisturbed["manifest.json"])
    assert (
        json.loads(json.dumps(manifest))
        == local | {"url": manifest["url"]}
        == json.loads(stored["manifest.json"])
    )
    data = {name: content for name, content in undisturbed.items() if name.endswith((".tar", ".idx"))}
    assert {name: stored[name] for name in data} == data
    assert set(stored) - set(data) == {
        "manifest.json",
        "skipped.csv",
        "plan",
        *(f"{n}.json" for n in data if n.endswith("tar")),
    }
    assert set(contents(out)) == {"manifest.json", "skipped.csv"}


def test_into_a_store(
    images: list[RawImage], tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Also: a killed run goes on, and the store's own hash tells an object that was replaced."""
    with s3_server(monkeypatch):
        url = f"s3://{BUCKET}/set/train"
        with pytest.raises(Killed):
            resumed(images, tmp_path, stop=3, url=url)
        (folder,) = fsspec.filesystem("s3").ls(f"{BUCKET}/set/train")
        alter_object(f"s3://{folder}/train-000001.tar")
        manifest = resumed(images, tmp_path, url=url)
        assert kept(capsys.readouterr().out) == 2
        check_remote(manifest, tmp_path / "out/train", undisturbed)
        resumed(images, tmp_path, url=url)
        assert kept(capsys.readouterr().out) == len(manifest["shards"])
        resumed(images, tmp_path, url=url, fresh=True)
        assert kept(capsys.readouterr().out) == 0
        check_remote(manifest, tmp_path / "out/train", undisturbed)


def alter_object(url: str) -> None:
    """Other content of the same length."""
    with fsspec.open(url, "rb") as file:
        content = bytearray(file.read())
    content[600] ^= 1
    with fsspec.open(url, "wb") as file:
        file.write(bytes(content))


def test_a_store_without_hashes_is_read(
    images: list[RawImage], tmp_path: Path, undisturbed: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"file://{tmp_path}/store"
    with pytest.raises(Killed):
        resumed(images, tmp_path, stop=3, url=url)
    (folder,) = (tmp_path / "store").iterdir()
    alter(folder / "train-000000.tar")
    truncate(folder / "train-000001.tar.json")
    manifest = resumed(images, tmp_path, url=f"{url}/")
    assert kept(capsys.readouterr().out) == 1
    check_remote(manifest, tmp_path / "out/train", undisturbed)


def test_a_store_that_fails_for_a_while(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with s3_server(monkeypatch):
        place = RemotePlace(f"s3://{BUCKET}/set", first_pause=0.01)
        tar = tmp_path / "a"
        tar.write_bytes(b"tar" * 1000)
        receipt = {"name": "a.tar", "samples": 1, "bytes": 3000}
        upload = places._upload
        monkeypatch.setattr(places, "_upload", failing(4, upload))
        place.put(tar, b"rows", receipt)
        assert at_url(place.url)["a.tar"] == b"tar" * 1000
        monkeypatch.setattr(places, "_upload", failing(5, upload))
        with pytest.raises(
            UserError,
            match=rf"^s3://{BUCKET}/set/a\.tar: 5 attempts failed, the last one: out of order; [^\n]*$",
        ):
            place.put(tar, b"rows", receipt)
        with pytest.raises(UserError, match=r"^s3://nobucket/set/plan: [^\n]*check shard\.url"):
            RemotePlace("s3://nobucket/set", first_pause=60).open([], fresh=False)
    with pytest.raises(UserError, match=rf"^s3://{BUCKET}/set/plan: 5 attempts failed, [^\n]*$"):
        place.open([], fresh=False)  # nobody listens any more


def failing(times: int, action: Callable[..., Any]) -> Callable[..., Any]:
    """`action` that fails the first `times` times."""
    calls = 0

    def wrapped(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise RuntimeError("out\nof order")
        return action(*arguments)

    return wrapped


@pytest.mark.parametrize(("url", "expected"), [("nothing://x", "Protocol not known"), ("gs://x/y", "gcsfs")])
def test_urls_that_nobody_opens(images: list[RawImage], tmp_path: Path, url: str, expected: str) -> None:
    with pytest.raises(UserError, match=rf"^{url}/\w+/plan: [^\n]*{expected}[^\n]*$"):
        cut(images, tmp_path / "train", url=url)
