"""The wheel carries the library and its data: `rtmpose` runs from it outside the checkout, and answers at
once.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rtmpose.files import locked
from tests.support import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds nothing but the unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    into = ["install", "--no-deps", "--target", str(folder / "site")]
    built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    with locked(tmp_path_factory.getbasetemp().parent / "wheel.lock"):  # setuptools builds in the checkout
        subprocess.run(built, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, *into, str(wheel)], check=True, capture_output=True)
    return folder / "site"


def output(site: Path, code: str) -> str:
    """What `code` prints when the wheel's packages come first."""
    command = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[str(site), *sys.path]!r}; {code}"]
    done = subprocess.run(command, cwd=site.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_module(installed: Path) -> None:
    ours, theirs = (
        {str(path.relative_to(folder)) for path in (folder / "rtmpose").rglob("*.py")}
        for folder in (ROOT, installed)
    )
    assert ours and ours <= theirs, sorted(ours - theirs)


def test_descriptors_come_from_the_wheel(installed: Path) -> None:
    code = (
        "import rtmpose.descriptors as d; from rtmpose.deploy.targets import load_target;"
        "print(d.__file__, len(d.load_skeleton('coco_wholebody').names), load_target('cpu-x86').name)"
    )
    assert output(installed, code).split() == [str(installed / "rtmpose/descriptors.py"), "133", "cpu-x86"]


def test_help_imports_nothing_slow(installed: Path) -> None:
    code = (
        "import rtmpose.cli.app; slow = {'torch', 'ray', 'mlflow', 'cv2', 'onnx'} & set(sys.modules);"
        "print(sorted(slow)); sys.argv = ['rtmpose', '--help']; rtmpose.cli.app.main()"
    )
    printed = output(installed, code)
    assert printed.startswith("[]\n") and "export" in printed and "benchmark" in printed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["weights", "check", "missing.pth"], "missing.pth"),
        (["export", "missing.pth", "x.onnx", "--input", "192"], "--input"),
        (["predict", "photo.jpg", "--box", "1,2,3"], "--box"),
        (["benchmark", "missing.onnx"], "missing.onnx"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], expected: str) -> None:
    command = [sys.executable, "-m", "rtmpose.cli.app", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        done.stderr.startswith("error: ")
        and len(done.stderr.strip().splitlines()) == 1
        and expected in done.stderr
    )
    assert not list(tmp_path.iterdir())
