"""Training of RTMDet on the boxes of people, through the loop that poses are trained with: the same updates,
average, checkpoints and resuming (`rtmpose.training`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rtmpose.config import AugmentConfig, OptimParams, TrainParams
from rtmpose.detection.conversion import rtmdet_from_onnx, with_statistics
from rtmpose.detection.detector import NetworkDetector
from rtmpose.detection.evaluate import LEAST_SCORE, Photograph, judge
from rtmpose.detection.forms import Boxes
from rtmpose.detection.graph import Pixels
from rtmpose.detection.loss import detection_task
from rtmpose.detection.network import RTMDet, load_rtmdet
from rtmpose.detection.stream import PhotographStream
from rtmpose.files import UserError, sha256_of, write_atomic
from rtmpose.fingerprint import code_version, fingerprint, git_commit
from rtmpose.models import MEAN, STD, normalise
from rtmpose.provenance.sources import UNKNOWN, DataSource, note
from rtmpose.released.checkpoint import sources_before
from rtmpose.tracking import runs
from rtmpose.training.checkpoint import BEST, Store
from rtmpose.training.job import TRAINING_CODE
from rtmpose.training.loop import Position, Run
from rtmpose.training.reporter import Reporter, open_run
from rtmpose.training.system_metrics import system_metrics

STAGE = "detector"
CODE = ("detection", *TRAINING_CODE)
REFERENCE_RATE, REFERENCE_BATCH = 4e-3, 256  # of arXiv 2212.07784, section 4
WARMUP = 1000  # updates, or a tenth of a shorter run
CHECKPOINT_STEPS = 200  # updates that a kill loses at most, in epochs that are longer
STATISTICS = 8  # batches that give the norms of a published file's weights their statistics
STRONG = AugmentConfig(scale=0.5, shift=0.5)
WEAK = AugmentConfig(scale=0.0, shift=0.0, hue=0, saturation=0, value=0)
SUPPRESSION = 0.6


@dataclass(frozen=True)
class Training:
    """One training run. `lr` None: the published rate for the batch, in proportion. The last `weak_epochs`
    show photographs as they will be detected in, but for mirrors.
    """

    input_size: tuple[int, int]  # w, h px
    epochs: int
    batch_size: int = 16
    lr: float | None = None
    weak_epochs: int = 0
    evaluate_every: int = 1  # epochs
    weight_decay: float = 0.05
    ema_momentum: float = 2e-4
    seed: int = 21
    threads: int = 1

    def params(self, steps_per_epoch: int) -> TrainParams:
        """As the loop takes it."""
        rate = self.lr or REFERENCE_RATE * self.batch_size / REFERENCE_BATCH
        warmup = min(WARMUP, self.epochs * steps_per_epoch // 10)
        return TrainParams(
            epochs=self.epochs,
            weak_epochs=self.weak_epochs,
            batch_size=self.batch_size,
            evaluate_every=self.evaluate_every,
            checkpoint_steps=CHECKPOINT_STEPS,
            optim=OptimParams(lr=rate, warmup_steps=warmup),
            strong=STRONG,
            weak=WEAK,
        )


def train_detector(
    training: Training,
    init: Path | str,
    photographs: Sequence[Photograph],
    tuning: Sequence[Photograph],
    *,
    root: Path,
    weights: Path,
    report: Callable[[dict[str, Any]], None],
    licence: str = UNKNOWN,
) -> Position:
    """Train on `photographs` and write the `weights` with the best box AP on those for `tuning`.

    `init`: a checkpoint, official or ours, an ONNX file of RTMDet-nano, or the name of a size to start from
    nothing. The weights note whose data is in them, and under which `licence` the photographs are. The run's
    store lies below `root`; one that was killed goes on from its last checkpoint, and ends with the bits of
    an undisturbed one. Each line for `report` goes into the store's log and the run's curves in MLflow, too.
    UserError as the loop raises it, and where AP was never a number.
    """
    torch.manual_seed(training.seed)
    torch.set_num_threads(training.threads)
    stream = PhotographStream(
        photographs,
        training.input_size,
        batch_size=training.batch_size,
        seed=training.seed,
        threads=training.threads,
    )
    network = initial(init, stream)
    name = _named(training, init, photographs, tuning)
    store = Store.open(root, f"{STAGE}-{name}", fresh=False)
    run_id = _tracked(store, training, init, name)
    store = Store(store.folder, store.token, {"run_id": run_id}, note(sources(init, photographs, licence)))
    reporter = Reporter(STAGE, run_id, store)

    def evaluate(model: nn.Module) -> dict[str, float]:
        found = judge(detector_of(model, training.input_size), tuning)
        return {key: found.figures[key] for key in ("AP", "AP50", "AP75")}

    def told(line: dict[str, Any]) -> None:
        reporter(line)
        report(line)

    with runs.finished(run_id), system_metrics(run_id):
        position = Run(
            detection_task(network, training.input_size),
            stream,
            store,
            params=training.params(stream.steps_per_epoch),
            model_params=training,
            evaluate=evaluate,
            report=told,
            epoch_done=lambda _: None,
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            precision="fp32",
        ).train()
        _hand_over(store, position, weights)
    return position


def _named(
    training: Training, init: Path | str, photographs: Sequence[Photograph], tuning: Sequence[Photograph]
) -> str:
    """The name of a run: what its result depends on."""
    return fingerprint(
        training=asdict(training) | {"threads": None},
        init=sha256_of(init) if isinstance(init, Path) else init,
        data=[_data(some) for some in (photographs, tuning)],
        code=code_version(CODE),
    )


def _hand_over(store: Store, position: Position, weights: Path) -> None:
    """Write the best weights of a run; UserError where it has none."""
    if not position.best_sha256 or not store.best_is(position.best_sha256):
        raise UserError(
            f"{store.folder}: holds no weights that could be chosen: AP on the tuning images was never a "
            "number, or they are damaged; lower --lr, or delete the folder to start anew"
        )
    write_atomic(weights, (store.folder / BEST).read_bytes())


def _tracked(store: Store, training: Training, init: Path | str, name: str) -> str:
    """The run's id in MLflow, opened or found again, with what it trains and from where."""
    known = (store.load() or {}).get("run_id")
    tags = {"stage": STAGE, "fingerprint": name, "git_commit": git_commit()}
    run_id = open_run(store.folder, STAGE, tags, known)
    runs.log_params_flat(run_id, {STAGE: asdict(training) | {"init": Path(init).name}})
    return run_id


def sources(
    init: Path | str, photographs: Sequence[Photograph], licence: str = UNKNOWN
) -> tuple[DataSource, ...]:
    """Whose data is in a detector: the photographs, by the folder that holds all of them, and what `init` was
    trained on.
    """
    folder = Path(os.path.commonpath([one.path.absolute().parent for one in photographs]))
    own = DataSource(name=folder.name, sha256=_data(photographs), licence=licence)
    if isinstance(init, str):
        return (own,)
    return (own, *sources_before(init, "initial weights"))


def _data(photographs: Sequence[Photograph]) -> str:
    return fingerprint(all=[(one.path.name, one.boxes.tolist()) for one in photographs])


def initial(init: Path | str, stream: PhotographStream) -> RTMDet:
    """The network to start from, for one class; `stream` gives norms without statistics theirs."""
    if isinstance(init, str):
        return RTMDet(init)
    if init.suffix != ".onnx":
        return load_rtmdet(init)
    network = rtmdet_from_onnx(init)
    batches = islice(stream.epoch(0, WEAK), STATISTICS)
    return with_statistics(network, (normalise(batch.images) for batch in batches))


def detector_of(model: nn.Module, size: tuple[int, int], threshold: float = LEAST_SCORE) -> NetworkDetector:
    """A network in PyTorch as a detector; `size` (w, h) px is that of its input."""
    model.eval()
    device = next(model.parameters()).device

    @torch.inference_mode()
    def run(images: NDArray[np.float32]) -> list[NDArray[Any]]:
        logits, boxes = model(torch.from_numpy(images).to(device))
        return [boxes.float().cpu().numpy(), logits.float().sigmoid().cpu().numpy()]

    return NetworkDetector(
        run,
        Boxes(0, 1, logits=False),
        path=Path("network"),
        size=size,
        pixels=Pixels(MEAN, STD, bgr=False),
        threshold=threshold,
        nms=SUPPRESSION,
    )
