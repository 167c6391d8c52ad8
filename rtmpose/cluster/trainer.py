"""Ray Train's trainer without the helper processes that our work has no use for.

Each is a Python process that takes one and a half seconds of a core to start.
"""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

from rtmpose.cluster.session import joins_cluster


class Trainer(TorchTrainer):
    """A TorchTrainer of a fixed number of workers, whose samples do not come from Ray Data: nothing hands out
    its data sets.

    In the driver of a local cluster, which ends with it and never grows, nobody asks for machines, and nobody
    waits to free the cores of a run whose controller died. A trial of a search is no such driver: its process
    is told the cluster's address, and the cluster goes on when it is stopped.
    """

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        unused: tuple[type, ...] = (DatasetsCallback,)
        if not joins_cluster():
            unused += (PlacementGroupCleanerCallback,)
            parts["scaling_policy"] = _NoRequests(self.scaling_config)
        parts["callbacks"] = [callback for callback in parts["callbacks"] if not isinstance(callback, unused)]
        return super()._initialize_and_run_controller(**parts)


class _NoRequests(FixedScalingPolicy):
    """As many workers as asked for, of the cores that are there."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """No request for machines is registered."""

    def _maybe_send_resource_request(self) -> None:
        """No request for machines is renewed."""
