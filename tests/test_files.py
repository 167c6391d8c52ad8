"""JSON and YAML that nest, hide, overflow or are no text: one line each; what is well formed is read. What is
written goes where links lead, and replaces nothing but files and folders.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from torch import nn

from rtmpose.config import load_params
from rtmpose.data.shards.complete_folders import complete_folder, resumable_folder
from rtmpose.deploy.export import write_onnx
from rtmpose.ending import line_of
from rtmpose.files import UserError, append, locked, read_json, read_yaml, write_atomic
from rtmpose.models import save_tensors
from rtmpose.search.ledger import Ledger
from rtmpose.tracking.runs import _prepare

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"b{i}: &b{i} [{', '.join(['*a' if i == 0 else f'*b{i - 1}'] * 9)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "cut off"),
        (b'{"a": 1', "cut off"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'"\\ud800"', "no characters"),
        (b'{"\\udfff": 1}', "no characters"),
        (b'"\xed\xa0\x80"', "no characters"),
        (b'"\xff\xfa"', "no characters"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice"),
        (b'[{"id": 99999999999999999999}]', "beyond 64 bits"),
        (b"[" + b"9" * 5000 + b"]", "beyond 64 bits"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "JSON"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=word) as caught:
        read_json(path, "fetch it again")
    text = str(caught.value)
    assert "\n" not in text and str(path) in text and text.endswith("fetch it again") and len(text) < 500


@pytest.mark.parametrize(
    "value",
    [
        {"a": "\U0001f600 é \\ud800", "b": [2**63 - 1, -(2**63) + 1, 1e300, 0.1234567890123456789]},
        ["\ud83d\ude00", "12345678901234567890123", {"a": {"a": {"a": None}}}],
    ],
)
def test_json_that_is_read(tmp_path: Path, value: object) -> None:
    expected = json.loads(json.dumps(value))
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        (tmp_path / "a.json").write_bytes(json.dumps(value).encode(encoding))
        assert read_json(tmp_path / "a.json") == expected


def test_files_that_are_none(tmp_path: Path) -> None:
    for read in (read_json, read_yaml):
        with pytest.raises(UserError, match="a folder stands where a file belongs"):
            read(tmp_path)
        with pytest.raises(UserError, match="no such file"):
            read(tmp_path / "absent")
        with pytest.raises(UserError, match="shorten the name"):
            read(tmp_path / ("a" * 300))
        with pytest.raises(UserError, match="no name of a file"):
            read(Path("a\0b"))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"a: [1", "line"),
        (b"a: 1\nb: 2\na: 3\n", "the key 'a' stands twice"),
        (LAUGHS.encode(), "more than 100000 values"),
        (b"a: &a [*a]\n", "an alias inside of what it stands for"),
        (b"[" * 50_000, "nested too deeply"),
        (b"- " * 50_000, "nested too deeply"),
        (
            b"".join(
                b"- &s%d %s*s%d%s\n" % (n, b"[" * 90, n - 1, b"]" * 90) if n else b"- &s0 a\n"
                for n in range(12)
            ),
            "nested too deeply",
        ),
        (b"a: \xff\xfe", "not valid YAML"),
        (b"\x00\x01\x02", "not valid YAML"),
        (b'a: "\\ud800"', "surrogate|Unicode"),
        (b"a: 99999999999999999999", "beyond 64 bits"),
        (b"a: 0x" + b"f" * 100, "beyond 64 bits"),
        (b"a: 2026-99-99", "not valid YAML"),
        (b"a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        (b"? {a: b}\n: c\n", "not valid YAML"),
        (b"#" * (1 << 21), "too many"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=word) as caught:
        read_yaml(path)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text and len(text) < 500


def test_yaml_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "\ufeffbase: &base {lr: 0.1, n: 3}\nother: {<<: *base, n: 9223372036854775807}\nname: é\n"
    )
    expected = {"lr": 0.1, "n": 2**63 - 1}
    assert read_yaml(path) == {"base": {"lr": 0.1, "n": 3}, "other": expected, "name": "é"}


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999"])
def test_parameters_are_finite(tmp_path: Path, value: str) -> None:
    text = Path("params.yaml").read_text().replace("tau: 0.1", f"tau: {value}", 1)
    assert value in text
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml: .*tau"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("size", [[0, 0], [-96, -128], [96, 0], [96.5, 128]])
@pytest.mark.parametrize("key", ["input_size", "shard.input_size", "datasets.hard.render.size"])
def test_sizes_are_positive(key: str, size: list[float], tmp_path: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    *parents, last = key.split(".")
    group = params
    for parent in parents:
        group = group[parent]
    assert last in group
    group[last] = size
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    with pytest.raises(UserError, match=rf"params\.yaml: {key}\.[01]: "):
        load_params(path)


def test_a_mistake_is_one_line_whatever_is_in_it() -> None:
    assert str(UserError("a: \n b\r\nc")) == "a:   b c"
    assert line_of(UserError("a\nb")) == "a b" and line_of(KeyError("a")) is None


def other_than_a_file(folder: Path, kind: str) -> Path:
    path = folder / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    return path


WRITERS: dict[str, Callable[[Path], object]] = {
    "write_atomic": lambda path: write_atomic(path, "new"),
    "append": lambda path: append(path, "new"),
    "locked": lambda path: locked(path, wait=0).__enter__(),
    "ledger": lambda path: Ledger(path).start({"a": 1}, seed=1, kind="searched"),
    "data base": lambda path: _prepare(path),
    "complete_folder": lambda path: complete_folder(path).__enter__(),
    "resumable_folder": lambda path: resumable_folder(path, path.parent / "work", []).__enter__(),
}


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "ring"])
@pytest.mark.parametrize("writer", [name for name in WRITERS if "folder" not in name])
def test_what_is_no_file_is_neither_replaced_nor_opened(writer: str, kind: str, tmp_path: Path) -> None:
    path = other_than_a_file(tmp_path, kind)
    before = path.lstat()
    with pytest.raises(UserError, match=rf"{path}: [^\n]*{'circle' if kind == 'ring' else kind}[^\n]*; "):
        WRITERS[writer](path)
    after = path.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writer", [name for name in WRITERS if "folder" in name])
def test_what_is_no_folder_is_not_replaced_by_one(writer: str, tmp_path: Path) -> None:
    path = other_than_a_file(tmp_path, "pipe")
    with pytest.raises(UserError, match=f"{path}: [^\n]*pipe[^\n]*; name a folder"):
        WRITERS[writer](path)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match="a file stands where a folder belongs"):
        WRITERS[writer](tmp_path / "file")
    assert path.is_fifo() and (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a\0b"])
def test_a_path_without_a_name_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match=r"a folder stands where a file belongs|no name of a file"):
        write_atomic(Path(name), "new")


def test_a_link_to_a_protected_file_is_replaced_as_dvc_expects(tmp_path: Path) -> None:
    cached, link = tmp_path / "cache", tmp_path / "out.json"
    cached.write_text("old")
    cached.chmod(0o444)
    link.symlink_to(cached)
    write_atomic(link, "new")
    assert link.read_text() == "new" and not link.is_symlink() and cached.read_text() == "old"


def test_what_a_link_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    for name in ("there", "not yet"):
        link = tmp_path / name
        link.symlink_to(tmp_path / "far" / name)
        if name == "there":
            (tmp_path / "far" / name).write_text("old")
        for content in ("new", "newer"):
            assert write_atomic(link, content) == link
            assert link.is_symlink() and (tmp_path / "far" / name).read_text() == content
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == ["not yet", "there"]


@pytest.mark.parametrize("existing", [True, False])
def test_what_a_link_to_a_folder_leads_to_is_replaced(existing: bool, tmp_path: Path) -> None:
    link, target = tmp_path / "shards", tmp_path / "far" / "shards"
    target.parent.mkdir()
    link.symlink_to(target)
    if existing:
        target.mkdir()
        (target / "old").touch()
    with complete_folder(link) as folder:
        (folder / "new").touch()
    assert link.is_symlink() and [path.name for path in target.iterdir()] == ["new"]
    with resumable_folder(link, tmp_path / "work", ["part"]) as (folder, _):
        (folder / "newer").touch()
    assert link.is_symlink() and [path.name for path in target.iterdir()] == ["newer"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_commands_leave_pipes_and_links_as_they_are(tmp_path: Path) -> None:
    net = nn.Conv2d(3, 2, 1)
    pipe, link = other_than_a_file(tmp_path, "pipe"), tmp_path / "link.onnx"
    with pytest.raises(UserError, match=f"{pipe}: [^\n]*pipe"):
        write_onnx(net, (64, 64), pipe)
    with pytest.raises(UserError, match=f"{pipe}: [^\n]*pipe"):
        save_tensors(pipe, net.state_dict())
    with pytest.raises(UserError, match=r"^\.: [^\n]*a folder stands where a file belongs"):
        write_onnx(net, (64, 64), Path())
    (tmp_path / "far").mkdir()
    link.symlink_to(tmp_path / "far" / "m.onnx")
    write_onnx(net, (64, 64), link)
    assert pipe.is_fifo() and link.is_symlink()
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["m.onnx"]
