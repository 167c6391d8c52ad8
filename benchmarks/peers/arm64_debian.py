"""An emulated 64-bit ARM Python in a folder: qemu, Debian's arm64 packages and aarch64 wheels. Nothing is
installed, and no file outside the folder is written.

apt takes the packages from the mirrors that this system has configured, with lists and a cache of its own,
and checks them as always. Each part of the folder appears when it is whole, and is then kept.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email import message_from_string
from email.message import Message
from importlib.metadata import version
from pathlib import Path

from rtmpose.data.shards.complete_folders import complete_folder
from rtmpose.files import UserError

SUITE, PYTHON = "bookworm", "3.11"  # of Debian 12: a release and its Python
NEWER = f"{SUITE}-backports"  # the release's own qemu is of 2022
EMULATOR = ("qemu-user",)
PACKAGES = (f"python{PYTHON}", "libstdc++6")  # what they depend on comes along
WHEELS = ("numpy", "onnxruntime")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
APT_SOURCES = Path("/etc/apt")
LINE = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+\S")
SIGNED_BY = re.compile(r"signed-by=(\S+)", re.IGNORECASE)

# The system's own configuration is read first: its proxies count, its sources, pins and hooks do not.
CONFIG = """
Dir::Etc::SourceList "{work}/debian.sources";
Dir::Etc::SourceParts "-";
Dir::Etc::Preferences "-";
Dir::Etc::PreferencesParts "-";
Dir::State "{work}/state";
Dir::State::status "{work}/status";
Dir::Cache "{work}/cache";
#clear APT::Architectures;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Default-Release "{suite}";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
"""


@dataclass(frozen=True)
class Emulated:
    """An ARM Python that this machine can run."""

    qemu: Path
    root: Path
    wheels: Path
    cpu: str  # by its name in qemu

    @property
    def command(self) -> list[str]:
        return [str(self.qemu), str(self.root / "usr" / "bin" / f"python{PYTHON}"), "-s"]

    @property
    def environment(self) -> dict[str, str]:
        """All that the emulated process sees of the environment: its own files, and no user's settings."""
        return {
            "QEMU_LD_PREFIX": str(self.root),
            "QEMU_CPU": self.cpu,
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": str(self.wheels),
            "OPENBLAS_NUM_THREADS": "1",
        }

    def emulator(self) -> str:
        """The emulator's name and version, in its own words."""
        return _ran([str(self.qemu), "--version"]).partition("\n")[0]


def set_up(folder: Path, cpu: str) -> Emulated:
    """Fetch what is not there yet; UserError in one line where this system has no apt, is no Debian 12, or
    cannot reach a mirror or a package index.
    """
    folder = folder.resolve()
    versions = [f"{name}=={version(name)}" for name in WHEELS]
    parts = (folder / "qemu", folder / f"python{PYTHON}", folder / "-".join(versions))
    if not parts[0].is_dir():
        _unpack(parts[0], "amd64", (SUITE, NEWER), EMULATOR)
    if not parts[1].is_dir():
        _unpack(parts[1], "arm64", (SUITE,), PACKAGES)
    if not parts[2].is_dir():
        print(f"fetching {' '.join(versions)} for {PLATFORMS[0]}", flush=True)
        with complete_folder(parts[2]) as target:
            platforms = [word for name in PLATFORMS for word in ("--platform", name)]
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
            where = ["--target", str(target), "--only-binary=:all:", "--python-version", PYTHON, *platforms]
            _ran([*pip, *where, *versions])
    return Emulated(parts[0] / "usr" / "bin" / "qemu-aarch64", parts[1], parts[2], cpu)


def _unpack(path: Path, architecture: str, suites: Sequence[str], packages: Sequence[str]) -> None:
    """Packages of the last of the suites, and what they depend on, unpacked as `path`."""
    sources = debian_sources(APT_SOURCES, suites)
    print(f"fetching {' '.join(packages)} of {suites[-1]} for {architecture}", flush=True)
    with complete_folder(path) as target, tempfile.TemporaryDirectory(dir=target.parent) as name:
        work = Path(name)
        for needed in ("state/lists/partial", "cache/archives/partial"):
            (work / needed).mkdir(parents=True)
        (work / "status").touch()  # nothing counts as installed
        (work / "debian.sources").write_text(sources)
        config = work / "apt.conf"
        config.write_text(CONFIG.format(work=work, architecture=architecture, suite=suites[-1]))
        apt = ["apt-get", "-qq", "-c", str(config)]
        _ran([*apt, "update"])
        _ran([*apt, "install", "--download-only", "--yes", *packages])
        for package in sorted((work / "cache" / "archives").glob("*.deb")):
            _ran(["dpkg-deb", "--extract", str(package), str(target)])


def debian_sources(etc: Path, suites: Sequence[str]) -> str:
    """The configured sources of Debian 12, which ask for `suites` and `main` instead, as apt's deb822 text.

    etc: the folder of `sources.list` and `sources.list.d`. UserError where no source has the release.
    """
    found = []
    for source in _configured(etc):
        kept = {name: source[name] for name in ("URIs", "Signed-By", "Trusted") if source[name]}
        wanted = {"Types": "deb", "Suites": " ".join(suites), "Components": "main"}
        found.append("".join(f"{name}: {value}\n" for name, value in (wanted | kept).items()))
    if not found:
        raise UserError(f"{etc}: no apt source has the suite {SUITE}; run this on Debian 12")
    return "\n".join(dict.fromkeys(found))


def _configured(etc: Path) -> Iterator[Message]:
    """The enabled binary sources whose suites hold the release itself, in either of apt's formats."""
    for path in (etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))):
        if not path.is_file() or path.suffix not in (".list", ".sources"):
            continue
        text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
        blocks = re.split(r"\n\s*\n", text) if path.suffix == ".sources" else map(_stanza, text.splitlines())
        for block in blocks:
            source = message_from_string(block.strip())
            enabled = source.get("Enabled", "yes").lower() not in ("no", "false", "0", "off")
            if enabled and "deb" in source.get("Types", "").split() and SUITE in _suites(source):
                yield source


def _suites(source: Message) -> list[str]:
    return [str(suite) for suite in source.get("Suites", "").split()]


def _stanza(line: str) -> str:
    """A line of a `.list` file in the format of `.sources` files; empty where it is none of packages."""
    match = LINE.match(line.strip())
    if match is None:
        return ""
    signed = SIGNED_BY.search(match["options"] or "")
    key = f"Signed-By: {signed[1]}\n" if signed else ""
    return f"Types: deb\nURIs: {match['uri']}\nSuites: {match['suite']}\n{key}"


def _ran(command: Sequence[str]) -> str:
    """A command's stdout; UserError with its own first error where it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"}
        )
    except FileNotFoundError:
        raise UserError(f"{command[0]}: not on this system; run this on Debian 12") from None
    if done.returncode:
        lines = done.stderr.splitlines()
        told = [line for line in lines if line.startswith(("E:", "ERROR:", "dpkg-deb: error"))]
        reason = (told or lines or [f"exit code {done.returncode}"])[0]
        raise UserError(f"{' '.join(command[:3])}: {reason[:500]}")
    return done.stdout
