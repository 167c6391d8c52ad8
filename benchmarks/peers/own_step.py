"""Our training step, timed in a process of its own as the peer's is: started by `train_step.py`.

    python own_step.py FOLDER DEVICE

FOLDER holds `weights.pt` and `batches.npz` as `mmpose_step.py` describes them. Answers lines of JSON {"what":
...}: `steps` with times and losses of one of the ways to train in `WAYS`, `stream` with those of batches read
from shards, `peak` with what a large matrix product or convolution reaches here, `profile` with PyTorch's
table of operators, `macs` with the multiply-adds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rtmpose.config import AugmentConfig, OptimParams, Precision
from rtmpose.data.stream.batch import Batch
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.stream import TrainStream
from rtmpose.descriptors import load_skeleton
from rtmpose.files import read_yaml
from rtmpose.machine import training_device
from rtmpose.models import build_pose_net
from rtmpose.targets import SimCC
from rtmpose.training.loop import prefetched, timed
from rtmpose.training.update import Updater, simcc_task

SIZE, TAU = (192, 256), 0.1
WEIGHT_DECAY, EMA_MOMENTUM = 0.05, 0.0002
WAYS: dict[str, tuple[Precision | None, bool]] = {  # precision (None: what this device has), compiled
    "bf16": ("bf16", False),
    "fp32": ("fp32", False),
    "compiled": (None, True),
}
Step = Callable[[Batch, float], Tensor]


class Side:
    """The weights and batches of a folder, and each way's trainer once it has been asked for."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, torch.device(device)
        self.has_bf16 = training_device(self.device.type == "cuda").bf16
        with np.load(folder / "batches.npz") as file:
            images, points, weights = (
                torch.from_numpy(file[name]) for name in ("images", "keypoints", "weights")
            )
        self.batches = [Batch(*parts, [], []) for parts in zip(images, points, weights, strict=True)]
        self.trainers: dict[str, Step] = {}
        self.done: dict[str, int] = {}

    @property
    def rows(self) -> int:
        return len(self.batches[0].images)

    def network(self) -> nn.Module:
        model = build_pose_net("m", "simcc", 17, SIZE)
        model.load_state_dict(torch.load(self.folder / "weights.pt", weights_only=True))
        return model.train()

    def trainer(self, way: str) -> Step:
        if way not in self.trainers:
            self.trainers[way] = self._eager() if way == "eager" else self._ours(*WAYS[way])
        return self.trainers[way]

    def _eager(self) -> Step:
        from peers.eager import Eager

        return Eager(
            simcc_task(self.network().to(self.device), SimCC(SIZE), TAU),
            self.device,
            global_batch=self.rows,
            weight_decay=WEIGHT_DECAY,
            momentum=EMA_MOMENTUM,
            optim=OptimParams(),
        ).step

    def _ours(self, precision: Precision | None, compiled: bool) -> Step:
        updater = Updater(
            simcc_task(self.network(), SimCC(SIZE), TAU),
            device=self.device,
            precision=precision or ("bf16" if self.has_bf16 else "fp32"),
            global_batch=self.rows,
            weight_decay=WEIGHT_DECAY,
            optim=OptimParams(),
            ema_momentum=EMA_MOMENTUM,
            compile=compiled,
        )
        return lambda batch, lr: updater.step(batch, lr).loss

    def steps(self, way: str, threads: int, steps: int, lr: float) -> dict[str, Any]:
        """Updates on the folder's batches, one after the other."""
        torch.set_num_threads(threads)
        step, first = self.trainer(way), self.done.get(way, 0)
        self.done[way] = first + steps
        losses = []
        self._wait()
        wall, cpu = time.perf_counter(), time.process_time()
        for number in range(first, first + steps):
            losses.append(step(self.batches[number % len(self.batches)], lr))
        self._wait()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {
            "samples": steps * self.rows,
            "wall": wall,
            "cpu": cpu,
            "losses": [float(loss) for loss in losses],
        }

    def stream(
        self, shards: str, way: str, threads: int, workers: int, steps: int, lr: float
    ) -> dict[str, Any]:
        """Updates on batches that loader workers read and augment, and the seconds spent waiting for them."""
        torch.set_num_threads(threads)
        step, batches = self.trainer(way), timed(prefetched(self._read(Path(shards), workers), self.device))
        for _ in range(2):  # the workers start
            step(next(batches)[0], lr)
        waited, samples = 0.0, 0
        self._wait()
        wall = time.perf_counter()
        for _ in range(steps):
            batch, seconds = next(batches)
            step(batch, lr)
            waited += seconds
            samples += len(batch.images)
        self._wait()
        return {"samples": samples, "wall": time.perf_counter() - wall, "waited": waited}

    def _read(self, shards: Path, workers: int) -> Iterator[Batch]:
        skeleton = load_skeleton("coco17")
        stream = TrainStream(
            [MixEntry(shards, 1)], skeleton, SIZE, batch_size=self.rows, seed=0, workers=workers
        )
        recipe = read_yaml(Path(__file__).resolve().parent.parent.parent / "conf/recipe/published.yaml")
        augment = AugmentConfig.model_validate(recipe["finetune"]["strong"])
        return (batch for epoch in count() for batch in stream.epoch(epoch, augment))

    def peak(self, threads: int, rounds: int) -> dict[str, float]:
        """Multiply-adds per second of the product of two large square matrices or of a convolution, whichever
        has more, the best of some rounds; on a CPU per second of processor time. Of bf16 only where it is not
        emulated.
        """
        torch.set_num_threads(threads)
        clock = time.perf_counter if self.device.type == "cuda" else time.process_time
        side = 8192 if self.device.type == "cuda" else 2048
        left, right = torch.randn(2, side, side, device=self.device).unbind()
        images = torch.randn(self.rows, 256, 32, 24, device=self.device).contiguous(
            memory_format=torch.channels_last
        )
        weight = torch.randn(256, 256, 3, 3, device=self.device)
        pixels = self.rows * 32 * 24
        found = {}
        types = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if self.has_bf16 else {})
        for name, dtype in types.items():
            one, other, x, w = (each.to(dtype) for each in (left, right, images, weight))
            product = best_seconds(partial(torch.matmul, one, other), clock, self._wait, rounds)
            conv = best_seconds(partial(nn.functional.conv2d, x, w, padding=1), clock, self._wait, rounds)
            found[name] = max(side**3 / product, pixels * weight.numel() / conv)
        return found

    def macs(self) -> dict[str, float]:
        """Multiply-adds of one image's forward pass."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.network().eval()(torch.zeros(1, 3, SIZE[1], SIZE[0]))
        return {"macs": counter.get_total_flops() / 2}

    def profile(self, way: str, threads: int, steps: int, lr: float) -> dict[str, str]:
        """PyTorch's table of the operators that a few updates spend their own time in."""
        from torch.profiler import ProfilerActivity, profile

        on_gpu = self.device.type == "cuda"
        self.steps(way, threads, 2, lr)
        with profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        ) as found:
            self.steps(way, threads, steps, lr)
        by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        return {"table": found.key_averages().table(sort_by=by, row_limit=30, max_name_column_width=70)}

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def best_seconds(
    work: Callable[[], Tensor], clock: Callable[[], float], wait: Callable[[], None], rounds: int
) -> float:
    """The least that `work` took in some rounds after a first one."""
    times = []
    for _ in range(rounds + 1):
        wait()
        start = clock()
        work()
        wait()
        times.append(clock() - start)
    return min(times[1:])


def answer(side: Any, names: Iterable[str]) -> None:
    """Answer questions, lines of JSON on stdin, by the methods of `side` that they name."""
    print(json.dumps({"ready": True}), flush=True)
    answers: dict[str, Callable[..., dict[str, Any]]] = {name: getattr(side, name) for name in names}
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(answers[question.pop("what")](**question)), flush=True)


def main() -> None:
    sys.path.append(str(Path(__file__).resolve().parent.parent))  # where `peers` lies
    answer(Side(Path(sys.argv[1]), sys.argv[2]), ("steps", "stream", "peak", "macs", "profile"))


if __name__ == "__main__":
    main()
