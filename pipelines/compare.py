"""Stage `compare`: AP and slices of what every target gets, beside the champion's on the same images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import stage
from rtmpose.config import Record, load_params, read_record
from rtmpose.files import UserError, read_json, sha256_of, write_atomic

if TYPE_CHECKING:
    from rtmpose.deploy.card import ModelCard
    from rtmpose.promotion.evidence import Accuracy

MIX, ONNX, WEIGHTS = Path("data/mix.json"), Path("models/rtmpose.onnx"), Path("models/rtmpose.pt")
PICKED, EXPORTED, TRAINED = (
    Path("metrics/pick.json"),
    Path("metrics/export.json"),
    Path("models/receipt.json"),
)
METRICS = Path("metrics/compare.json")


class Export(Record):
    exported_at: str


def main(argv: list[str]) -> None:
    from rtmpose.data.stream.mix import read_mix
    from rtmpose.deploy.machine import machine
    from rtmpose.deploy.quantize.gate import Judge
    from rtmpose.deploy.runtimes.base import ModelFiles
    from rtmpose.deploy.runtimes.onnxruntime import read_card
    from rtmpose.deploy.targets import load_target
    from rtmpose.promotion.comparison import Arena, accuracies
    from rtmpose.promotion.evidence import Comparison
    from rtmpose.promotion.files import Deployed, champion_of

    params, mix, card = load_params(), read_mix(MIX), read_card(ONNX)
    if not mix.val:
        raise UserError("params.yaml: datasets: none has `evaluate: true`; mark the one to compare models on")
    exported = read_record(Export, EXPORTED, "run the export stage again")["exported_at"]
    began = datetime.now(UTC)
    targets = [load_target(name) for name in params.targets]
    ours = Deployed(ModelFiles(ONNX, WEIGHTS if WEIGHTS.is_file() else None), card, picks())
    arena = Arena(
        Judge(card, mix.val, params.evaluate, seed=params.seed),
        lambda line: print(f"compare   {line}", flush=True),
    )
    with tempfile.TemporaryDirectory() as folder:
        champion = champion_of(params.register_as.name, Path(folder))
        who, theirs = champion or (None, None)
        found = accuracies(arena, targets, ours, theirs)
    comparison = Comparison(
        compared_at=began.replace(microsecond=0),
        exported_at=datetime.fromisoformat(exported),
        machine={key: value for key, value in machine().items() if key in ("cpu", "kind", "cores")},
        mix_sha256=sha256_of(MIX),
        keypoint_names=card.keypoint_names,
        card_problems=tuple(problems(card)),
        data=card.data,
        training_run=card.training_run,
        champion=who,
        targets=found,
    )
    write_atomic(METRICS, comparison.model_dump_json(indent=1) + "\n")
    for target, accuracy in found.items():
        print(f"compare   {target}: {line(accuracy)}")


def picks() -> dict[str, str | None]:
    """What the stage `pick` chose, by target."""
    content: dict[str, dict[str, Any]] = read_json(PICKED, "run the pick stage again")
    return {target: one["picked"] for target, one in content.items()}


def problems(card: ModelCard) -> list[str]:
    """What the cards of the exported files say otherwise than the training: σ than its receipt, all else than
    the exported file, which the others are made of.
    """
    from rtmpose.deploy.e2e import EndToEnd, e2e_path
    from rtmpose.deploy.quantize.gate import card_reasons
    from rtmpose.deploy.quantize.openvino import card_of
    from rtmpose.deploy.runtimes.base import ModelFiles
    from rtmpose.deploy.runtimes.onnxruntime import read_card

    again = "run the finetune stage again"
    sigma, files = read_json(TRAINED, again).get("sigma"), ModelFiles(ONNX)
    if sigma is None and card.split_ratio is not None:
        return [f"{TRAINED}: says no sigma, which SimCC is trained with; {again}"]
    ways: dict[Path, Callable[[Path], ModelCard]] = {
        ONNX: read_card,
        files.form("fp16"): read_card,
        files.form("int8"): read_card,
        files.onnx_for("tensorrt", "int8"): read_card,
        **{e2e_path(path): lambda path: EndToEnd.open(path).card for path in (ONNX, files.form("int8"))},
        files.form("int8", ".xml"): card_of,
    }
    cards = {path.name: read(path) for path, read in ways.items() if path.is_file()}
    return [f"{name}: {reason}" for name, one in cards.items() for reason in card_reasons(one, card, sigma)]


def line(accuracy: Accuracy) -> str:
    """AP on every set, and what it is more than the champion's."""
    parts = [
        f"{name} AP {one.ap.value:.1f}"
        + (f" ({one.difference.value:+.2f}, {one.difference.low:+.2f} to {one.difference.high:+.2f})"
           if one.difference else "")
        for name, one in accuracy.sets.items()
    ]  # fmt: skip
    beside = f" beside the champion's {accuracy.champion_picked}" if accuracy.champion_picked else ""
    why = f"; not compared: {accuracy.not_compared}" if accuracy.not_compared else ""
    return f"{accuracy.picked}{beside}: {', '.join(parts) or 'not measured'}{why}"


if __name__ == "__main__":
    stage(main)
