"""Which number format a run computes in: what `hardware.precision` says, and for `auto` what its devices can.

`auto` is bf16 where every device that trains has bf16 instructions of its own, else fp32. A run keeps what
was chosen at its start to its end, wherever its workers are started again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rtmpose.config import Params, Precision, PrecisionChoice
from rtmpose.config.hardware import BF16_LEAST_SIDE
from rtmpose.files import UserError
from rtmpose.machine import Device, training_device


@dataclass(frozen=True)
class Chosen:
    """The precision of a run, what `hardware.precision` asked for, and the devices that it runs on."""

    precision: Precision
    asked: PrecisionChoice
    devices: tuple[Device, ...]
    note: str = ""  # why it is not what the devices would allow

    @property
    def line(self) -> str:
        """One line for people, such as "bf16 on AMD EPYC (avx512_bf16); hardware.precision: auto"."""
        return f"{self.precision} on {self.where}; hardware.precision: {self.asked}{self.note}"

    @property
    def where(self) -> str:
        return " and ".join(map(str, self.devices))

    @property
    def warning(self) -> str | None:
        """What it costs where bf16 was asked for on devices that have no instructions for it."""
        slow = next((device for device in self.devices if not device.bf16), None)
        if self.precision == "fp32" or slow is None:
            return None
        return f"hardware.precision: bf16 is emulated on {slow}, {slow.emulated}; auto takes fp32 there"

    def facts(self) -> dict[str, Any]:
        """What a receipt says of it, as JSON."""
        return {
            "precision": self.precision,
            "precision_asked": self.asked,
            "devices": [str(device) for device in self.devices],
        }


def choose(params: Params, devices: Sequence[Device]) -> Chosen:
    """The one precision of all `devices`; equal devices are named once. UserError for `auto` without any."""
    asked = params.hardware.precision
    kinds = tuple(dict.fromkeys(devices))
    if asked != "auto":
        return Chosen(asked, asked, kinds)
    if not kinds:
        raise UserError("hardware.precision: auto finds no machine that trains; set bf16 or fp32")
    if not all(device.bf16 for device in kinds):
        unlike = any(device.bf16 for device in kinds)
        return Chosen("fp32", asked, kinds, ", and not all of these have bf16 instructions" if unlike else "")
    if all(device.on_gpu for device in kinds) or min(params.input_size) >= BF16_LEAST_SIDE:
        return Chosen("bf16", asked, kinds)
    note = f", and a CPU trains input sides under {BF16_LEAST_SIDE} px in fp32"
    return Chosen("fp32", asked, kinds, note)


def choose_here(params: Params, on_gpu: bool) -> Chosen:
    """The precision on this machine alone, such as that of an evaluation; `on_gpu`: on its GPUs."""
    return choose(params, [training_device(on_gpu)])


def announce(stage: str, chosen: Chosen, to: TextIO | None = None) -> None:
    """Say what a stage computes in, as its first line, and on stderr what that costs where it is emulated;
    `to` None: stdout.
    """
    print(f"{stage:9} {chosen.line}", file=to, flush=True)
    if chosen.warning is not None:
        print(f"warning: {chosen.warning}", file=sys.stderr, flush=True)


def refuse_emulation(precision: Precision, asked: PrecisionChoice, on_gpu: bool) -> None:
    """UserError where `auto` chose bf16 at a run's start and this worker has come to a device without it."""
    if precision == "bf16" and asked == "auto" and not (device := training_device(on_gpu)).bf16:
        raise UserError(
            f"hardware.precision: this run computes in bf16, but one of its workers was started on {device}, "
            "which has no bf16 instructions; keep the run to machines that have them, or run the stage again "
            "to start anew in fp32"
        )
