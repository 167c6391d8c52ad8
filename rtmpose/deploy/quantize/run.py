"""All attempts on one exported model: int8 files are made and judged, the other runtimes and precisions are
judged as they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from rtmpose.config import QuantizeParams
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.e2e import export_e2e
from rtmpose.deploy.export import export_onnx
from rtmpose.deploy.graphs import save_card
from rtmpose.deploy.quantize.apart import APART, RECIPES, Apart, quantize_apart
from rtmpose.deploy.quantize.attempt import Attempt, Figure, refused
from rtmpose.deploy.quantize.calibration import Calibration
from rtmpose.deploy.quantize.gate import InRuntime, Reference, card_reasons, judged
from rtmpose.deploy.quantize.graph import HEAD, parts
from rtmpose.deploy.quantize.onnx import (
    Method,
    Quantizer,
    Recipe,
    precision_map,
    save_quantized,
)
from rtmpose.deploy.quantize.sensitivity import Sensitivity, measure
from rtmpose.deploy.runtimes.apart import remove_others
from rtmpose.deploy.runtimes.base import (
    TENSORRT,
    DeviceKind,
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    RuntimeName,
)
from rtmpose.deploy.runtimes.onnx_form import remove_other_symmetric
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.runtimes.session import open_session
from rtmpose.deploy.sizes import file_mb
from rtmpose.files import UserError, one_line
from rtmpose.machine import cores, needs_reduced_range
from rtmpose.models import load_exactly

BATCH = 32  # crops computed at a time; a session is opened for so many
FINETUNED = "quantisation-aware finetuning, then "
Tell = Callable[[str], None]
Tried = tuple[RuntimeName, Precision, DeviceKind]


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
        """The attempt with the size of its file, where it ran, and every reason against it. A runtime's own
        form has the exported model's card.
        """
        card = read_card(path) if path.suffix == ".onnx" and path.is_file() else self.card
        attempt = refused(attempt, *card_reasons(card, self.card, self.sigma))
        if self.reference is not None and not attempt.refused:
            place = Placement(attempt.device, cores())
            try:
                session = open_session(attempt.runtime, self.files, attempt.precision, place, BATCH)
                found = self.reference.compared(InRuntime(session.infer, BATCH))
            except NotPossible as reason:
                return self.not_run(attempt, str(reason))
            except (UserError, OSError):
                raise
            except Exception as error:  # each runtime has errors of its own
                return self.not_run(attempt, f"it fails in a call: {one_line(error)[:300]}")
            attempt = judged(attempt, found)
        size = file_mb(self.files, attempt.runtime, attempt.precision)
        attempt = attempt.model_copy(update={"megabytes": size})
        self.tell(line(attempt))
        return attempt

    def not_run(self, attempt: Attempt, reason: str) -> Attempt:
        """The attempt, refused since it cannot run here."""
        attempt = refused(attempt, f"not run here: {reason}")
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
    place = " on the GPU" if attempt.device == "gpu" else ""
    return f"{attempt.runtime} {attempt.precision}{place}  {size}{shown}  {verdict}"


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
    sensitive parts in float besides. The last file stays, with its end-to-end form beside it, and each
    attempt is reported.

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
            recipe_text = f"{FINETUNED if source else ''}{one}"
            precisions = _write(trial, quantizer, one, recipe_text, calibration, path)
            attempt = Attempt(
                runtime="onnxruntime", precision="int8", recipe=recipe_text, precisions=precisions
            )
            attempts.append(trial.tried(attempt, path))
            if not attempts[-1].refused:
                break
    save_card(path, read_card(path).with_more(measured=measured(attempts[-1])))
    export_e2e(path)
    return attempts, found


def quantize_for_tensorrt(
    trial: Trial,
    calibration: Calibration,
    asked: Sequence[Tried],
    sensitive: Sequence[str] = (),
    *,
    method: Method = "minmax",
) -> list[Attempt]:
    """Write the symmetric int8 ONNX file, and judge it in the runtimes of TensorRT that are `asked` for: with
    the head alone in float, and where they refuse what it costs, with the `sensitive` parts in float besides.

    It is judged in these runtimes alone: where none of them runs here, the first file stays, unjudged.
    """
    path = trial.files.onnx_for("tensorrt", "int8")
    recipe = Recipe(reduce_range=False, method=method, symmetric=True)
    recipes = [recipe]
    if sensitive:
        recipes.append(replace(recipe, kept_float=(*recipe.kept_float, *sensitive)))
    attempts: list[Attempt] = []
    with Quantizer(trial.files.onnx, calibration.inputs(trial.card)) as quantizer:
        for one in recipes:
            precisions = _write(trial, quantizer, one, str(one), calibration, path)
            found = as_they_are(trial, asked, str(one))
            attempts += [attempt.model_copy(update={"precisions": precisions}) for attempt in found]
            ran = [attempt for attempt in found if attempt.sets]
            if not ran or not all(attempt.refused for attempt in ran):
                break
    return attempts


def _write(
    trial: Trial, quantizer: Quantizer, recipe: Recipe, text: str, calibration: Calibration, path: Path
) -> dict[str, list[str]]:
    """Write one int8 ONNX file of the exported model; what of it computes in int8 and in float32. `text`:
    the recipe in words, as the card has it.
    """
    model = quantizer.quantized(recipe)
    described = f"{text}; {len(calibration.pixels)} crops (sha256 {calibration.sha256})"
    about = {"precision": "int8", "quantization": described, "weight_bits": recipe.weight_bits}
    save_quantized(model, path, trial.card.with_more(**about, measured={}), trial.files.onnx)
    return precision_map(model)


def measured(attempt: Attempt) -> dict[str, dict[str, float]]:
    """What an int8 file's own card says of its accuracy, by evaluation set: AP, and the difference to PyTorch
    fp32 with its interval, points of 100. It does not say what was measured of the float file.
    """
    return {
        name: {"AP": one.ap.value, "difference": one.difference.value}
        | {"difference_low": one.difference.low, "difference_high": one.difference.high}
        for name, one in attempt.sets.items()
    }


def quantize_finetuned(
    trial: Trial,
    weights: Path,
    calibration: Calibration,
    probe: NDArray[np.float32],
    options: QuantizeParams,
) -> list[Attempt]:
    """As `quantize_for_onnxruntime`, with weights that were finetuned for int8."""
    network = trial.card.network()
    load_exactly(network, weights)
    with tempfile.TemporaryDirectory() as folder:
        source = export_onnx(network, trial.card.input_size, Path(folder, "finetuned.onnx"), card=trial.card)
        attempts, _ = quantize_for_onnxruntime(
            trial,
            calibration,
            probe,
            method=options.method,
            seconds=options.sensitivity_seconds,
            source=source,
        )
    return attempts


def quantize_for_openvino(
    trial: Trial, calibration: Calibration, sensitive: Sequence[str] = ()
) -> list[Attempt]:
    """Write the int8 file for OpenVINO: first with the head alone in float, and where the gate refuses that,
    with the `sensitive` parts in float besides. The last file stays.
    """
    return _until_one_passes(partial(_for_openvino, trial, calibration), sensitive)


def quantize_for_apart(
    trial: Trial, calibration: Calibration, runtime: Apart, sensitive: Sequence[str] = ()
) -> list[Attempt]:
    """As `quantize_for_openvino`, for a runtime with an environment of its own."""
    return _until_one_passes(partial(_for_apart, trial, calibration, runtime), sensitive)


def _until_one_passes(
    attempt: Callable[[tuple[str, ...]], Attempt], sensitive: Sequence[str]
) -> list[Attempt]:
    """Attempts with no part of the backbone in float, and where that is refused for its accuracy, with the
    sensitive ones.
    """
    attempts: list[Attempt] = []
    for kept in dict.fromkeys(((), tuple(sensitive))):
        attempts.append(attempt(kept))
        if not (attempts[-1].refused and attempts[-1].sets):
            break
    return attempts


def _for_openvino(trial: Trial, calibration: Calibration, kept: Sequence[str]) -> Attempt:
    from rtmpose.deploy.quantize import openvino

    path = trial.files.form("int8", ".xml")
    recipe = f"NNCF post-training, preset {openvino.PRESET}, float32: {', '.join((HEAD, *kept))}"
    described = f"{recipe}; {len(calibration.pixels)} crops (sha256 {calibration.sha256})"
    card = trial.card.with_more(precision="int8", quantization=described, measured={})
    attempt = Attempt(runtime="openvino", precision="int8", recipe=recipe)
    of = parts(onnx.load(str(trial.files.onnx)))
    nodes = [node for part in kept for node in of[part]]
    try:
        model = openvino.quantized(trial.files.onnx, calibration.inputs(trial.card), nodes)
    except NotPossible as reason:
        return trial.not_run(attempt, str(reason))
    openvino.save_quantized(model, path, card, trial.files.onnx)
    attempt = trial.tried(attempt.model_copy(update={"precisions": openvino.precision_map(model)}), path)
    openvino.save_quantized(model, path, card.with_more(measured=measured(attempt)), trial.files.onnx)
    return attempt


def _for_apart(trial: Trial, calibration: Calibration, runtime: Apart, kept: Sequence[str]) -> Attempt:
    recipe = f"{RECIPES[runtime]}, float32: {', '.join((HEAD, *kept))}"
    described = f"{recipe}; {len(calibration.pixels)} crops (sha256 {calibration.sha256})"
    precisions = {"int8": ["backbone"], "float32": [HEAD, *kept]}
    attempt = Attempt(runtime=runtime, precision="int8", recipe=recipe, precisions=precisions)
    try:
        path = quantize_apart(runtime, trial.files, calibration.inputs(trial.card), described, kept)
    except NotPossible as reason:
        return trial.not_run(attempt, str(reason))
    return trial.tried(attempt, path)


def every_attempt(
    trial: Trial,
    asked: Sequence[Tried],
    calibration: Calibration,
    probe: NDArray[np.float32],
    options: QuantizeParams,
    finetuned: Callable[[], list[Attempt]] | None = None,
) -> tuple[list[Attempt], Sensitivity]:
    """All that is asked for: first the files as exported, then int8, for which `finetuned` makes further
    attempts where the gate refuses the files made without.
    """
    remove_others(trial.files)
    remove_other_symmetric(trial.files)
    attempts = as_they_are(trial, [one for one in asked if one[1] != "int8"])
    int8, sensitivity = quantize_for_onnxruntime(
        trial, calibration, probe, method=options.method, seconds=options.sensitivity_seconds
    )
    if finetuned and options.finetune_epochs and all(attempt.refused for attempt in int8):
        int8 += finetuned()
    kept = sensitivity.sensitive()
    attempts += [*int8, *quantize_for_openvino(trial, calibration, kept)]
    for runtime in APART:
        if any(one[:2] == (runtime, "int8") for one in asked):
            attempts += quantize_for_apart(trial, calibration, runtime, kept)
    if for_tensorrt := [one for one in asked if one[1] == "int8" and one[0] in TENSORRT]:
        attempts += quantize_for_tensorrt(trial, calibration, for_tensorrt, kept, method=options.method)
    made = ("onnxruntime", "openvino", *APART, *TENSORRT)
    others = [one for one in asked if one[1] == "int8" and one[0] not in made]
    return attempts + as_they_are(trial, others, int8[-1].recipe), sensitivity


def as_they_are(trial: Trial, tried: Sequence[Tried], recipe: str = "as exported") -> list[Attempt]:
    """Attempts with ONNX files that are there: other runtimes in fp32, half precision, and int8 in runtimes
    that have no file of their own for it.
    """
    return [
        trial.tried(
            Attempt(runtime=runtime, precision=precision, device=device, recipe=recipe),
            trial.files.onnx if precision == "bf16" else trial.files.onnx_for(runtime, precision),
        )
        for runtime, precision, device in tried
    ]


def report(
    trial: Trial, calibration: Calibration, attempts: Sequence[Attempt], sensitivity: Sensitivity | None
) -> dict[str, Any]:
    """Everything as it is written to JSON; AP in points of 100."""
    from rtmpose.deploy.machine import machine

    reference: Mapping[str, Figure] = trial.reference.figures() if trial.reference is not None else {}
    return recorded(attempts, reference) | {
        "calibration": calibration.described(),
        "sensitivity": None if sensitivity is None else sensitivity.model_dump(mode="json"),
        "ap_loss": ap_loss(attempts),
        "machine": machine(),
    }


def recorded(attempts: Sequence[Attempt], reference: Mapping[str, Figure]) -> dict[str, Any]:
    """Attempts, and AP of what they are compared with, as the stage `pick` reads them."""
    return {
        "reference": {name: one.model_dump() for name, one in reference.items()},
        "attempts": [attempt.model_dump(mode="json") for attempt in attempts],
    }


def ap_loss(attempts: Sequence[Attempt]) -> dict[str, float]:
    """What attempts may lose on the set that decides, by their names; points of 100."""
    return {one.name: max(0.0, -next(iter(one.sets.values())).difference.low) for one in attempts if one.sets}


def network_of(files: ModelFiles) -> nn.Module:
    """The network that attempts are compared with: PyTorch fp32 where its weights are at hand, else the
    exported file in ONNX Runtime.
    """
    runtime: RuntimeName = "onnxruntime" if files.weights is None else "pytorch"
    place = Placement("cpu", cores())
    return InRuntime(open_session(runtime, files, "fp32", place, BATCH).infer, BATCH)
