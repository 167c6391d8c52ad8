"""The command line as a user starts it: quick help, one line for a mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rtmpose.cli.options import box_numbers, input_pair
from rtmpose.files import UserError

SLOW = (
    "torch",
    "ray",
    "mlflow",
    "cv2",
    "onnx",
    "onnxruntime",
    "openvino",
    "numpy",
    "scipy",
    "albumentations",
)


def test_help_and_the_groups_of_commands_import_nothing_slow() -> None:
    code = (
        "import sys, rtmpose.cli.app;"
        f"print([name for name in {SLOW!r} if name in sys.modules]);"
        "sys.argv = ['rtmpose', '--help']; rtmpose.cli.app.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "[]"
    for command in ("weights", "convert", "export", "predict", "benchmark", "dataset"):
        assert any(line.split()[:1] == [command] for line in lines), command


@pytest.mark.parametrize("start", [["-m", "rtmpose.cli"], ["-c", "from rtmpose.cli import main; main()"]])
def test_every_way_in_gives_one_line_and_exit_code_2(start: list[str], tmp_path: Path) -> None:
    command = [sys.executable, *start, "predict", "photo.jpg", "--box", "nan,1,2,3"]
    if start[0] == "-c":
        command = [sys.executable, "-c", f"import sys; sys.argv = {['rtmpose', *command[3:]]!r}; {start[1]}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: --box:") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,2,3", "is not x,y,w,h"),
        ("1,2,3,4,5", "is not x,y,w,h"),
        ("a,b,c,d", "is not x,y,w,h"),
        ("", "is not x,y,w,h"),
        ("nan,2,3,4", "not finite"),
        ("1,2,nan,4", "not finite"),
        ("1,-inf,3,4", "not finite"),
        ("1,2,inf,4", "not finite"),
        ("1,2,3,1e999", "not finite"),
        ("1,2,0,4", "no size"),
        ("1,2,3,-4", "no size"),
    ],
)
def test_a_box_that_is_none_is_one_line(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"^--box: {text!r}[^\n]*{reason}[^\n]*$"):
        box_numbers(text)


def test_boxes_and_sizes_are_read() -> None:
    assert box_numbers("1,-2.5,3e1, 4") == (1.0, -2.5, 30.0, 4.0)
    assert input_pair("192X256") == (192, 256)


@pytest.mark.parametrize("text", ["192", "192x", "x256", "0x256", "192x-32", "192x256x3", "²x32", "1.5x32"])
def test_a_size_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^--input: [^\n]*WIDTHxHEIGHT[^\n]*$"):
        input_pair(text)
