"""What a machine says it can compute in: instruction sets, the cap of oneDNN, GPUs, and Ray's priority."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rtmpose import machine
from rtmpose.config import setup_environment
from rtmpose.files import UserError
from rtmpose.machine import bf16_instructions, cpu_kind, cpu_line, training_device, usable_flags

AVX2 = frozenset({"avx2", "fma", "sse4_2"})
AVX512 = AVX2 | {"avx512f", "avx512_vnni"}
ZEN4 = AVX512 | {"avx512_bf16"}
SAPPHIRE = ZEN4 | {"amx_bf16", "amx_int8", "avx_vnni"}


@pytest.fixture(autouse=True)
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for name in machine.CAP_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def has(monkeypatch: pytest.MonkeyPatch, flags: frozenset[str], cap: str | None = None) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: flags)
    if cap is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)


@pytest.mark.parametrize(
    ("flags", "kind", "native"),
    [
        (AVX2, "avx2", False),
        (AVX512, "avx512_vnni", False),
        (AVX512 - {"avx512_vnni"}, "avx512f", False),
        (ZEN4, "avx512_bf16, avx512_vnni", True),
        (SAPPHIRE, "amx_bf16, amx_int8, avx512_bf16, avx512_vnni, avx_vnni", True),
        (frozenset({"asimd", "bf16", "i8mm", "sve"}), "bf16, i8mm", True),
        (frozenset({"asimd"}), "asimd", False),
        (frozenset(), "x86_64", False),
    ],
)
def test_kinds_of_cpu(
    flags: frozenset[str], kind: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, flags)
    device = training_device(on_gpu=False)
    assert (device.kind, device.bf16) == (kind, native) == (cpu_kind(), bool(bf16_instructions()))
    assert kind in cpu_line() and f"({kind})" in str(device)
    costs = {True: "", False: "about twice slower" if "avx512f" in flags else "about 35 times slower"}
    assert device.emulated.startswith(costs[native]) and bool(device.emulated) != native


@pytest.mark.parametrize(
    ("cap", "left"),
    [
        ("AVX2", {"avx2"}),
        ("avx2_vnni", {"avx2", "avx_vnni"}),
        ("AVX512_CORE", {"avx2", "avx_vnni", "avx512f"}),
        ("AVX512_CORE_VNNI", {"avx2", "avx_vnni", "avx512f", "avx512_vnni"}),
        ("AVX512_CORE_BF16", {"avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16"}),
        ("AVX512_CORE_FP16", {"avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16"}),
        ("AVX512_CORE_AMX", SAPPHIRE & set(machine.RELEVANT)),
        ("ALL", SAPPHIRE & set(machine.RELEVANT)),
        ("nonsense", SAPPHIRE & set(machine.RELEVANT)),  # oneDNN does not heed it either
    ],
)
def test_a_cap_of_onednn_hides_what_comes_later(
    cap: str, left: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, SAPPHIRE, cap)
    assert usable_flags() & set(machine.RELEVANT) == left
    assert training_device(on_gpu=False).bf16 == bool(left & machine.BF16)
    hides = left != SAPPHIRE & set(machine.RELEVANT)
    assert cpu_kind().endswith(f", ONEDNN_MAX_CPU_ISA={cap.upper()}") == hides


def test_the_cap_is_known_by_its_older_name_and_is_none_of_an_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, ZEN4)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    assert not bf16_instructions()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    has(monkeypatch, frozenset({"asimd", "bf16"}))
    assert bf16_instructions() == {"bf16"}


@pytest.mark.parametrize(
    ("capabilities", "kind", "native"),
    [
        ([(9, 0)], "CUDA 9.0", True),
        ([(8, 0), (8, 6)], "CUDA 8.0", True),
        ([(8, 6), (7, 5)], "CUDA 7.5", False),
    ],
)
def test_gpus_are_as_old_as_the_oldest(
    capabilities: list[tuple[int, int]], kind: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: len(capabilities),
        "get_device_name": lambda index: f"GPU {capabilities[index][0]}",
        "get_device_capability": lambda index: capabilities[index],
    }.items():
        monkeypatch.setattr(f"torch.cuda.{name}", value)
    device = training_device(on_gpu=True)
    assert (device.kind, device.bf16, device.on_gpu) == (kind, native, True)
    assert device.name == " and ".join(sorted({f"GPU {major}" for major, _ in capabilities}))


def test_no_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"^params\.yaml: hardware\.gpus_per_worker: .*set it to 0"):
        training_device(on_gpu=True)


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, rtmpose.machine, rtmpose.precision; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rays_priority_is_ours_unless_the_user_has_set_another(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "RAY_worker_niceness"
    monkeypatch.delenv(name, raising=False)
    setup_environment()
    assert os.environ[name] == "0"
    monkeypatch.setenv(name, "15")
    setup_environment()
    assert os.environ[name] == "15"
