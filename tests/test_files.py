"""JSON and YAML that nest, hide, overflow or are no text: one line each; what is well formed is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rtmpose.config import load_params
from rtmpose.ending import line_of
from rtmpose.files import UserError, read_json, read_yaml

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
        (b"a: \xff\xfe", "not valid YAML"),
        (b"\x00\x01\x02", "not valid YAML"),
        (b'a: "\\ud800"', "surrogate"),
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


def test_a_mistake_is_one_line_whatever_is_in_it() -> None:
    assert str(UserError("a: \n b\r\nc")) == "a:   b c"
    assert line_of(UserError("a\nb")) == "a b" and line_of(KeyError("a")) is None
