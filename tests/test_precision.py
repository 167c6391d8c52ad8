"""What `hardware.precision: auto` becomes, on one machine and on unlike ones, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rtmpose import precision
from rtmpose.config import Params, load_params
from rtmpose.files import UserError, read_yaml
from rtmpose.machine import Device
from rtmpose.precision import announce, choose, refuse_emulation
from rtmpose.training.job import job_fingerprint
from tests.support import ROOT

NEW = Device("AMD EPYC", "avx512_bf16", bf16=True)
OLD = Device("Intel Xeon", "avx2", bf16=False, emulated="about 35 times slower than fp32")
GPU = Device("NVIDIA H100", "CUDA 9.0", bf16=True, on_gpu=True)


def params(asked: str = "auto", size: tuple[int, int] = (96, 128), gpus: float = 0) -> Params:
    content = read_yaml(ROOT / "params.yaml")
    content["hardware"] |= {"precision": asked, "gpus_per_worker": gpus}
    content |= {"input_size": size}
    return Params.model_validate(content)


@pytest.mark.parametrize(
    ("asked", "size", "devices", "expected"),
    [
        ("auto", (96, 128), [NEW], "bf16"),
        ("auto", (96, 128), [OLD], "fp32"),
        ("auto", (96, 128), [NEW, NEW, OLD], "fp32"),  # one precision for all ranks: what all have
        ("auto", (64, 96), [NEW], "fp32"),
        ("auto", (64, 96), [GPU], "bf16"),  # the limit is that of oneDNN
        ("fp32", (96, 128), [NEW], "fp32"),
        ("bf16", (96, 128), [OLD], "bf16"),
    ],
)
def test_precision_of_devices(
    asked: str, size: tuple[int, int], devices: list[Device], expected: str
) -> None:
    chosen = choose(params(asked, size), devices)
    assert (chosen.precision, chosen.asked) == (expected, asked)
    assert chosen.line.startswith(f"{expected} on {devices[0]}") and f"precision: {asked}" in chosen.line
    assert json.loads(json.dumps(chosen.facts()))["precision"] == expected


def test_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    announce("finetune", choose(params(), [OLD, NEW, NEW]))
    said = capsys.readouterr()
    assert said.out == (
        "finetune  fp32 on Intel Xeon (avx2) and AMD EPYC (avx512_bf16); hardware.precision: auto, and not "
        "all of these have bf16 instructions\n"
    )
    assert not said.err
    announce("finetune", choose(params("bf16"), [NEW, OLD]))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "warning: hardware.precision: bf16 is emulated on Intel Xeon (avx2), about 35 times slower than "
        "fp32; auto takes fp32 there"
    )
    announce("finetune", choose(params(size=(64, 64)), [NEW]))
    assert "under 96 px in fp32" in capsys.readouterr().out


def test_bf16_of_small_inputs_is_refused_where_it_is_set_by_hand() -> None:
    with pytest.raises(ValueError, match=r"input_size \[64, 64\] needs hardware\.precision fp32 or auto"):
        params("bf16", (64, 64))
    params("bf16", (64, 64), gpus=1)


def test_auto_without_any_machine_is_one_line() -> None:
    with pytest.raises(UserError, match="set bf16 or fp32"):
        choose(params(), [])
    assert choose(params("fp32"), []).precision == "fp32"


def test_auto_is_the_default_everywhere() -> None:
    assert load_params(ROOT / "params.yaml").hardware.precision == "auto"
    for path in (ROOT / "conf/hardware").glob("*.yaml"):
        assert read_yaml(path)["precision"] == "auto", path


def test_a_worker_on_a_machine_without_bf16_ends_a_run_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "training_device", lambda on_gpu: OLD)
    with pytest.raises(UserError, match=r"one of its workers was started on Intel Xeon \(avx2\)"):
        refuse_emulation("bf16", "auto", on_gpu=False)
    refuse_emulation("bf16", "bf16", on_gpu=False)  # the user's own choice
    refuse_emulation("fp32", "auto", on_gpu=False)


def test_what_auto_became_names_the_run(tmp_path: Path) -> None:
    mix = tmp_path / "mix.json"
    mix.write_text("{}")

    def name(asked: str, *found: Any) -> str:
        return job_fingerprint("finetune", params(asked), mix, None, 0.1, None, *found)

    assert name("auto", "bf16") == name("bf16") != name("auto", "fp32") == name("fp32")
    assert name("auto") not in (name("bf16"), name("fp32"))  # the task, before anybody knows the machines
