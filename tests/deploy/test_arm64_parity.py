"""What the comparison with an emulated ARM decides by itself; nothing is fetched or emulated here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.deploy.runtimes.onnxruntime import open_file
from rtmpose.deploy.samples import noise
from rtmpose.files import UserError
from tests.deploy.support import SIZE, card
from tests.support import ROOT

MIRROR, KEYS = "mirror+file:/etc/debian-mirrors", "/usr/share/keyrings/debian.gpg"
STANZAS = f"""Types: deb deb-src
# a comment in the middle
URIs: {MIRROR}
Suites: bookworm bookworm-updates
Components: main contrib
Architectures: amd64
Signed-By: {KEYS}

Types: deb
URIs: {MIRROR}-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: file:/switched-off
Suites: bookworm
Components: main

Types: deb-src
URIs: file:/source-alone
Suites: bookworm
Components: main
"""
LINES = f"""# deb file:/switched-off bookworm main
deb [arch=amd64 signed-by={KEYS}] {MIRROR} bookworm main non-free
deb-src file:/source-alone bookworm main
deb file:/another-vendor tools-bookworm main
"""


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = list(sys.path)
    import arm64_parity

    yield arm64_parity
    sys.path[:] = before


@pytest.mark.parametrize("name, text", [("debian.sources", STANZAS), ("debian.list", LINES)])
def test_sources_are_those_of_the_release_with_its_backports(
    parity: ModuleType, tmp_path: Path, name: str, text: str
) -> None:
    from peers.arm64_debian import debian_sources

    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / name).write_text(text)
    (tmp_path / "sources.list.d" / "old.sources.disabled").write_text(STANZAS.replace(MIRROR, "file:/old"))
    assert debian_sources(tmp_path, ("bookworm", "bookworm-backports")).splitlines() == [
        "Types: deb",
        "Suites: bookworm bookworm-backports",
        "Components: main",
        f"URIs: {MIRROR}",
        f"Signed-By: {KEYS}",
    ]


def test_a_key_that_stands_in_the_source_is_kept(parity: ModuleType, tmp_path: Path) -> None:
    from peers.arm64_debian import debian_sources

    key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEZ\n -----END PGP PUBLIC KEY BLOCK-----"
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(STANZAS.replace(f"Signed-By: {KEYS}", key))
    assert key.split("\n", 1)[1] in debian_sources(tmp_path, ("bookworm",))


def test_another_system_is_told_in_one_line(parity: ModuleType, tmp_path: Path) -> None:
    from peers.arm64_debian import debian_sources

    (tmp_path / "sources.list").write_text("deb file:/ubuntu noble main\n")
    with pytest.raises(UserError, match="no apt source has the suite bookworm"):
        debian_sources(tmp_path, ("bookworm",))
    with pytest.raises(UserError, match="riscv64"):
        parity.refuse_machine("riscv64")


@pytest.mark.parametrize("there", ["no apt", "no network"])
def test_what_cannot_be_fetched_is_one_line_and_leaves_nothing(
    parity: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    there: str,
) -> None:
    import peers.arm64_debian as debian

    programs, out = tmp_path / "bin", tmp_path / "out"
    programs.mkdir()
    if there == "no network":
        apt = programs / "apt-get"
        apt.write_text("#!/bin/sh\necho 'W: slow' >&2\necho 'E: Failed to fetch' >&2\nexit 100\n")
        apt.chmod(0o755)
    (tmp_path / "sources.list").write_text(LINES)
    monkeypatch.setattr(debian, "APT_SOURCES", tmp_path)
    monkeypatch.setattr(parity, "refuse_machine", lambda name: None)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/nowhere")
    assert parity.main(["--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: apt-get") and told.count("\n") == 1, told
    assert ("E: Failed to fetch" if there == "no network" else "not on this system") in told
    assert not list(out.iterdir())


def test_the_runner_gives_what_the_file_computes(
    parity: ModuleType, files: ModelFiles, tmp_path: Path
) -> None:
    images = noise(SIZE, 2)
    (tmp_path / "inputs").mkdir()
    np.save(tmp_path / "inputs" / "input.npy", images)
    said, found = parity.run([sys.executable], os.environ, [files.onnx], tmp_path / "here")
    assert said["files"][files.onnx.name]["providers"] == ["CPUExecutionProvider"]
    ours = found[files.onnx.name]
    expected = open_file(files.onnx).run(None, {"input": images})
    for name, values in zip(card().outputs, expected, strict=True):
        np.testing.assert_allclose(ours[name], values, atol=1e-4)
    row = parity.row("fp32", card(), ours, ours, ours)
    assert row["difference"] == row["max_px"] == 0 and row["same_argmax"] == 1 and not parity.faults([row])


def test_outputs_that_differ_or_are_no_numbers_are_faults(parity: ModuleType) -> None:
    _, sides = card().shapes(2)
    rng = np.random.default_rng(0)
    here = {name: rng.random(side, np.float32) for name, side in zip(card().outputs, sides, strict=True)}
    moved = {name: np.roll(values, 3, -1) for name, values in here.items()}
    row = parity.row("fp32", card(), here, here, moved)
    assert row["same_argmax"] < 0.1 and row["p99_px"] > 2 and row["here_from_fp32_p99_px"] == 0
    assert parity.faults([row])[0].startswith("fp32: outputs differ")
    assert not parity.faults([row | {"file": "fp16"}])
    broken = here | {"simcc_y": np.full_like(here["simcc_y"], np.nan)}
    row = parity.row("int8", card(), here, here, broken)
    assert parity.faults([row]) == ["int8: outputs are no numbers"] and "no numbers" in parity.line(row)
