"""Which runtimes can open an exported model here, and which a recipe's deploy targets try."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from rtmpose.config import Params
from rtmpose.deploy.environments import ENVIRONMENTS, environment_python
from rtmpose.deploy.targets import Target, load_target
from rtmpose.doctor.child import ERROR, ask
from rtmpose.doctor.finding import Finding, lack, note
from rtmpose.doctor.fixes import Command
from rtmpose.files import UserError


@dataclass(frozen=True)
class Package:
    """A runtime as `rtmpose benchmark` names it, its module, and the extra that installs it ("": always)."""

    runtime: str
    title: str
    module: str
    extra: str = ""

    @property
    def fix(self) -> str:
        return f"pip install -e '.[{self.extra}]'" if self.extra else "make venv"


PACKAGES = (
    Package("onnxruntime", "ONNX Runtime", "onnxruntime"),
    Package("openvino", "OpenVINO", "openvino"),
    Package("ncnn", "ncnn", "ncnn", "ncnn"),
    Package("mnn", "MNN", "MNN", "mnn"),
    Package("tensorrt", "TensorRT", "tensorrt", "tensorrt"),
    Package("tensorrt-rtx", "TensorRT-RTX", "tensorrt_rtx", "tensorrt-rtx"),
    Package("coreml", "Core ML tools", "coremltools", "coreml"),
)
APART = {"litert": "LiteRT", "executorch": "ExecuTorch", "rknn": "RKNN"}


def installed(package: Package) -> Iterator[Finding]:
    """Whether a runtime is there and can be imported, its version, and what it can compute on."""
    if find_spec(package.module) is None:
        yield (note if package.extra else lack)(package.title, "not installed", package.fix)
        return
    answer = ask("module", package.module)
    if ERROR in answer:
        found = f"is installed and cannot be used: {answer[ERROR]}"
        yield (note if package.extra else lack)(package.title, found, package.fix)
        return
    details = f" ({', '.join(answer['details'])})" if answer["details"] else ""
    yield Finding(package.title, f"{answer['version']}{details}")


def apart() -> Iterator[Finding]:
    """The runtimes that have an environment of their own."""
    for name, title in APART.items():
        if environment_python(name) is None:
            size = f"not set up ({ENVIRONMENTS[name].gigabytes:g} GB)"
            yield note(title, size, f"rtmpose setup-runtime {name}")
        else:
            yield Finding(title, "set up in an environment of its own")


def tried_by(params: Params, known: Sequence[Finding], command: Command) -> Iterator[Finding]:
    """Each deploy target of a recipe: which of its runtimes are missing here. Only the reference is needed:
    without it nothing can be compared; what else is missing is left out of the table.
    """
    titles = {each.runtime: each.title for each in PACKAGES} | APART
    states = {finding.what: finding for finding in known}
    for name in params.targets:
        try:
            target = load_target(name)
            target.refuse_elsewhere()
        except UserError as error:
            yield lack(f"target {name}", str(error), command.to("targets=[cpu-x86]"))
            continue
        yield from _target(target, partial(_missing, titles, states))


def _missing(titles: dict[str, str], states: dict[str, Finding], runtime: str) -> Finding | None:
    """What is known of a runtime that cannot be used; None where it can, or where PyTorch brings it."""
    found = states.get(titles.get(runtime, ""))
    return found if found is not None and found.state != "ok" else None


def _target(target: Target, missing: partial[Finding | None]) -> Iterator[Finding]:
    what = f"target {target.name}"
    lost = {spec.name: found for spec in target.runtimes if (found := missing(spec.name)) is not None}
    if (needed := lost.get(target.reference.runtime)) is not None:
        yield lack(what, f"its reference {target.reference.runtime} is {needed.found}", needed.fix)
    for name, found in lost.items():
        if name != target.reference.runtime:
            yield note(what, f"will be measured without {name}: {found.found}", found.fix)
    int8 = any(spec.name == "openvino" and "int8" in spec.precisions for spec in target.runtimes)
    if int8 and find_spec("nncf") is None:
        yield note(what, "no int8 file for OpenVINO: nncf is not installed", "pip install -e '.[quantize]'")
    if not lost:
        yield Finding(what, f"{', '.join(spec.name for spec in target.runtimes)} are here")
