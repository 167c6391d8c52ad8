"""MMPose's own training step, timed: runs in `.peers/mmpose`, started by `train_step.py`.

    python mmpose_step.py FOLDER DEVICE

The network, its loss, its data preprocessor, AdamW with its groups and the EMA hook are built from the
RTMPose-m 256x192 configuration that the package ships; SyncBN becomes batch norm as its runner does on one
device, and on a GPU its AMP wrapper takes the place of the plain one. FOLDER holds `weights.pt`, a state
dict, and `batches.npz`: RGB images (N, B, H, W, 3), keypoints (N, B, K, 2) and weights (N, B, K). Targets are
encoded once, beforehand: MMPose does it in its loader. Answers lines of JSON {"threads", "steps", "lr"} with
{"samples", "wall", "cpu"} in seconds and the losses.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmpose_pipeline import CONFIG, Stand  # type: ignore[import-not-found]


class Trainer:
    """MMPose's network, optimizer wrapper and EMA hook, and the batches it is fed."""

    def __init__(self, folder: Path, device: str) -> None:
        sys.meta_path.insert(0, Stand())
        import mmpose.models  # type: ignore[import-not-found]
        import torch
        from mmengine.config import Config  # type: ignore[import-not-found]
        from mmengine.model import revert_sync_batchnorm  # type: ignore[import-not-found]
        from mmengine.optim import build_optim_wrapper  # type: ignore[import-not-found]
        from mmengine.registry import init_default_scope  # type: ignore[import-not-found]
        from mmpose.registry import HOOKS, MODELS  # type: ignore[import-not-found]

        init_default_scope("mmpose")
        settings = Config.fromfile(Path(mmpose.__file__).parent / CONFIG)
        settings.model.backbone.init_cfg = None  # the weights come from the folder
        self.device = device
        self.model = revert_sync_batchnorm(MODELS.build(settings.model)).to(device)
        self.model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
        self.model.train()
        if device != "cpu":
            settings.optim_wrapper.type = "AmpOptimWrapper"
        self.optim_wrapper = build_optim_wrapper(self.model, settings.optim_wrapper)
        hook = {key: value for key, value in settings.custom_hooks[0].items() if key != "priority"}
        self.ema = HOOKS.build(hook)
        self.runner = SimpleNamespace(
            model=self.model, iter=0, epoch=0
        )  # all that the hook asks a runner for
        self.ema.before_run(self.runner)
        self.batches = read_batches(folder, settings.codec)

    def steps(self, threads: int, steps: int, lr: float) -> dict[str, Any]:
        import torch

        torch.set_num_threads(threads)
        losses, samples = [], 0
        self._wait()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            for group in self.optim_wrapper.param_groups:
                group["lr"] = lr
            batch = self.batches[self.runner.iter % len(self.batches)]
            losses.append(self.model.train_step(batch, optim_wrapper=self.optim_wrapper)["loss"])
            self.ema.after_train_iter(self.runner, self.runner.iter)
            self.runner.iter += 1
            samples += len(batch["inputs"])
        self._wait()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {"samples": samples, "wall": wall, "cpu": cpu, "losses": [float(loss) for loss in losses]}

    def _wait(self) -> None:
        import torch

        if self.device != "cpu":
            torch.cuda.synchronize()


def read_batches(folder: Path, codec: Any) -> list[dict[str, Any]]:
    """The batches as MMPose's loader collates them: lists of BGR images (3, H, W) and of samples with their
    targets.
    """
    import numpy as np
    import torch
    from mmengine.structures import InstanceData  # type: ignore[import-not-found]
    from mmpose.registry import KEYPOINT_CODECS
    from mmpose.structures import PoseDataSample  # type: ignore[import-not-found]

    encoder = KEYPOINT_CODECS.build(codec)
    batches = []
    with np.load(folder / "batches.npz") as file:
        for images, keypoints, weights in zip(
            file["images"], file["keypoints"], file["weights"], strict=True
        ):
            inputs = [
                torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))
                for image in images
            ]
            samples = []
            for points, visible in zip(keypoints, weights, strict=True):
                labels = encoder.encode(points[None], visible[None])
                sample = PoseDataSample(metainfo={"img_shape": images.shape[1:3]})
                sample.gt_instance_labels = InstanceData(
                    **{name: torch.from_numpy(label) for name, label in labels.items()}
                )
                samples.append(sample)
            batches.append({"inputs": inputs, "data_samples": samples})
    return batches


def main() -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # what loading prints is no answer
        trainer = Trainer(Path(sys.argv[1]), sys.argv[2])
    print(json.dumps({"parameters": sum(p.numel() for p in trainer.model.parameters())}), flush=True)
    for line in sys.stdin:
        print(json.dumps(trainer.steps(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
