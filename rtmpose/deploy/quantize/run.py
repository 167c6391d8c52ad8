"""All attempts on one exported model: int8 files are made and judged, the other runtimes and precisions are
judged as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.quantize.attempt import Attempt, refused
from rtmpose.deploy.quantize.calibration import Calibration
from rtmpose.deploy.quantize.gate import InRuntime, Reference, card_reasons, judged
from rtmpose.deploy.quantize.onnx import (
    Method,
    Quantizer,
    Recipe,
    needs_reduced_range,
    precision_map,
    save_quantized,
)
from rtmpose.deploy.quantize.sensitivity import Sensitivity, measure
from rtmpose.deploy.runtimes.base import ModelFiles, NotPossible, Precision, RuntimeName
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.runtimes.session import open_session

BATCH = 32  # crops computed at a time; a session is opened for so many
FINETUNED = "quantisation-aware finetuning, then "
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """What all attempts on one model share: its files, its card, what they are compared with (None: accuracy
    is not measured), SimCC's σ of the training (None: not known), and who is told of each attempt.
    """

    files: ModelFiles
    card: ModelCard
    reference: Reference | None
    sigma: Sequence[float] | None = None
    tell: Tell = lambda line: None

    def tried(self, attempt: Attempt, path: Path) -> Attempt:
        """The attempt with the size of its file and every reason against it."""
        if path.suffix == ".onnx" and path.is_file():
            attempt = refused(attempt, *card_reasons(read_card(path), self.card, self.sigma))
        attempt = attempt.model_copy(update={"megabytes": megabytes(path)})
        if self.reference is not None and not attempt.refused:
            try:
                session = open_session(attempt.runtime, self.files, attempt.precision, batch=BATCH)
            except NotPossible as reason:
                attempt = refused(attempt, f"not run here: {reason}")
            else:
                attempt = judged(attempt, self.reference.compared(InRuntime(session.infer, BATCH)))
        self.tell(line(attempt))
        return attempt


def line(attempt: Attempt) -> str:
    """An attempt in one line."""
    shown = "  ".join(
        f"{name} AP {one.ap.value:.1f} ({one.difference.value:+.2f}, {one.difference.low:+.2f} to "
        f"{one.difference.high:+.2f})"
        for name, one in attempt.sets.items()
    )
    passes = "passes" if attempt.sets else "not judged"
    verdict = f"refused: {'; '.join(attempt.refused)}" if attempt.refused else passes
    size = "" if attempt.megabytes is None else f"{attempt.megabytes:.1f} MB  "
    return f"{attempt.runtime} {attempt.precision}  {size}{shown}  {verdict}"


def megabytes(path: Path) -> float | None:
    """The size of a file, of an .xml with its weights beside it; None where there is none."""
    parts = [path, *([path.with_suffix(".bin")] if path.suffix == ".xml" else [])]
    if not all(part.is_file() for part in parts):
        return None
    return round(sum(part.stat().st_size for part in parts) / 1e6, 3)


def quantize_for_onnxruntime(
    trial: Trial,
    calibration: Calibration,
    probe: NDArray[np.float32],
    *,
    method: Method = "minmax",
    reduce_range: bool | None = None,
    seconds: float = 30.0,
    source: Path | None = None,
) -> tuple[list[Attempt], Sensitivity]:
    """Write the int8 ONNX file: first with the head alone in float, and where the gate refuses that, with the
    sensitive parts in float besides. The last file stays, and each attempt is reported.

    `reduce_range` None: as this CPU needs it. `probe`: inputs that sensitivity is measured on, for at most
    `seconds`. `source`: the float file of a network that was finetuned for this; None: the exported model.
    """
    path = trial.files.form("int8")
    recipe = Recipe(needs_reduced_range() if reduce_range is None else reduce_range, method)
    attempts: list[Attempt] = []
    with Quantizer(source or trial.files.onnx, calibration.inputs(trial.card)) as quantizer:
        found = measure(quantizer, recipe, probe, trial.card.codec(), seconds)
        recipes = [recipe]
        if found.sensitive():
            recipes.append(replace(recipe, kept_float=(*recipe.kept_float, *found.sensitive())))
        for one in recipes:
            model = quantizer.quantized(one)
            recipe_text = f"{FINETUNED if source else ''}{one}"
            described = f"{recipe_text}; {len(calibration.pixels)} crops (sha256 {calibration.sha256})"
            card = trial.card.model_copy(update={"precision": "int8", "quantization": described})
            save_quantized(model, path, card)
            attempt = Attempt(
                runtime="onnxruntime", precision="int8", recipe=recipe_text, precisions=precision_map(model)
            )
            attempts.append(trial.tried(attempt, path))
            if not attempts[-1].refused:
                break
    return attempts, found


def quantize_for_openvino(trial: Trial, calibration: Calibration) -> Attempt:
    """Write the int8 file for OpenVINO, and judge it."""
    from rtmpose.deploy.quantize import openvino

    path = trial.files.form("int8", ".xml")
    model = openvino.quantized(trial.files.onnx, calibration.inputs(trial.card))
    recipe = f"NNCF post-training, preset {openvino.PRESET}, float32: head"
    described = f"{recipe}; {len(calibration.pixels)} crops (sha256 {calibration.sha256})"
    card = trial.card.model_copy(update={"precision": "int8", "quantization": described})
    precisions = openvino.precision_map(model)
    openvino.save_quantized(model, path, card)
    attempt = Attempt(runtime="openvino", precision="int8", recipe=recipe, precisions=precisions)
    return trial.tried(attempt, path)


def as_they_are(trial: Trial, tried: Sequence[tuple[RuntimeName, Precision]]) -> list[Attempt]:
    """Attempts with files that the export wrote: other runtimes in fp32, and half precision."""
    return [
        trial.tried(
            Attempt(runtime=runtime, precision=precision, recipe="as exported"),
            trial.files.form(precision) if precision == "fp16" else trial.files.onnx,
        )
        for runtime, precision in tried
    ]


def report(
    trial: Trial, calibration: Calibration, attempts: Sequence[Attempt], sensitivity: Sensitivity | None
) -> dict[str, Any]:
    """Everything as it is written to JSON; AP in points of 100."""
    from rtmpose.deploy.machine import machine

    reference: Mapping[str, Any] = trial.reference.figures() if trial.reference is not None else {}
    return {
        "reference": {name: one.model_dump() for name, one in reference.items()},
        "calibration": calibration.described(),
        "sensitivity": None if sensitivity is None else sensitivity.model_dump(mode="json"),
        "attempts": [attempt.model_dump(mode="json") for attempt in attempts],
        "ap_loss": {
            one.name: max(0.0, -next(iter(one.sets.values())).difference.low) for one in attempts if one.sets
        },
        "machine": machine(),
    }


def network_of(files: ModelFiles) -> nn.Module:
    """The network that attempts are compared with: PyTorch fp32 where its weights are at hand, else the
    exported file in ONNX Runtime.
    """
    runtime: RuntimeName = "onnxruntime" if files.weights is None else "pytorch"
    return InRuntime(open_session(runtime, files, batch=BATCH).infer, BATCH)
