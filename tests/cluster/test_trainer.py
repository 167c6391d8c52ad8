"""Which helpers of Ray Train a run starts: on a local cluster only those with work, on a shared one those too
that tidy up and ask for machines.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

RUN: Any = SimpleNamespace(run_id="0123abc")


def helpers(monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], Any]:
    """The names of the callbacks that a run is given, and its scaling policy."""
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    from rtmpose.cluster.trainer import Trainer

    given: dict[str, Any] = {}
    monkeypatch.setattr(
        TorchTrainer, "_initialize_and_run_controller", lambda self, **parts: given.update(parts)
    )
    trainer = Trainer(print, scaling_config=ScalingConfig(num_workers=2))
    trainer._initialize_and_run_controller(
        callbacks=trainer._create_default_callbacks(), scaling_policy="Ray's own"
    )
    return {type(callback).__name__ for callback in given["callbacks"]}, given["scaling_policy"]


def test_a_local_cluster_has_none_without_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    names, policy = helpers(monkeypatch)
    assert "BackendSetupCallback" in names
    assert not names & {"DatasetsCallback", "PlacementGroupCleanerCallback"}
    policy.after_controller_start(RUN)
    decision = policy.make_decision_for_non_running_worker_group()
    assert decision.num_workers == 2 and policy._coordinator_client is None, "nobody was asked for machines"
    policy.before_controller_abort()


def test_a_shared_cluster_is_tidied_and_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.10:6379")
    names, policy = helpers(monkeypatch)
    assert "PlacementGroupCleanerCallback" in names and "DatasetsCallback" not in names
    assert policy == "Ray's own"
