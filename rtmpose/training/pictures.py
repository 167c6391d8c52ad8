"""Pictures of predictions in MLflow, as a network learns.

They are for people: whatever goes wrong here costs a picture, never the run.
"""

from __future__ import annotations

from pathlib import Path

import cv2

from rtmpose.config import TrainParams
from rtmpose.drawing import draw_predictions
from rtmpose.evaluation.evaluator import Results, sample_images
from rtmpose.skeleton import Skeleton
from rtmpose.tracking import runs
from rtmpose.training.checkpoint import Store

IMAGES_SHOWN = 12  # of the tuning split
CELL_SIZE = (320, 240)  # (w, h) px that each of them is drawn in


class Pictures:
    """Predictions on the same dozen images of the tuning split, every `picture_every` epochs: PNG files in
    the store, which go on to MLflow as one image with a slider over steps.

    They are drawn from the results of the last evaluation, so they cost no forward pass. MLflow is asked what
    it has; what a killed process had only drawn, or what a server that did not answer has missed, is sent
    with the next picture.
    """

    def __init__(
        self,
        stage: str,
        run_id: str,
        store: Store,
        train: TrainParams,
        tune: Path,
        skeleton: Skeleton,
        steps_per_epoch: int,
    ) -> None:
        self.key, self.run_id, self.store, self.train = f"{stage}/predictions", run_id, store, train
        self.folder = store.folder / "pictures"
        self.tune, self.skeleton, self.steps_per_epoch = tune, skeleton, steps_per_epoch
        self.results: Results = []
        self.sent: set[int] | None = None

    def remember(self, results: Results) -> None:
        """Keep the results of an evaluation, until the next one, for the picture of its step."""
        self.results = results

    def due(self, step: int) -> bool:
        """Whether the evaluation at `step` gets a picture: the first one of every `picture_every` epochs, and
        the last.
        """
        epoch, every = step // self.steps_per_epoch, self.train.picture_every
        return every is not None and (epoch % every < self.train.evaluate_every or epoch == self.train.epochs)

    def __call__(self, step: int) -> None:
        """Draw what was remembered at `step`, where a picture is due, and send what MLflow does not have."""
        if not self.due(step):
            return
        try:
            images = sample_images(self.tune, IMAGES_SHOWN)
            draw_predictions(
                images, self.results, self.skeleton, self.folder / f"{step:08d}.png", cell=CELL_SIZE
            )
            self._send()
        except Exception as error:  # stores of artifacts raise classes of their own, and none is worth a run
            reason = str(error).partition("\n")[0]
            self.store.warn(f"step {step}: the picture of predictions is not logged ({reason})")

    def _send(self) -> None:
        if self.sent is None:
            self.sent = runs.image_steps(self.run_id, self.key)
        for path in sorted(self.folder.glob("*.png")):
            step = int(path.stem)
            if step not in self.sent:
                pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
                runs.log_image(self.run_id, pixels, self.key, step)
                self.sent.add(step)
