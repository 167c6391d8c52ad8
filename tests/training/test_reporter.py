from __future__ import annotations

from pathlib import Path

from rtmpose.training.checkpoint import Store
from rtmpose.training.reporter import Reporter, curves
from tests.training.tracked import metrics


def test_every_figure_to_watch_is_a_curve(tmp_path: Path, run_id: str) -> None:
    status = {
        "loss": 1.0,
        "lr": 0.1,
        "grad_norm": 2.0,
        "samples_per_s": 9.0,
        "data_wait": 0.1,
        "memory_gb": 1.0,
        "cuda_gb": 1.0,
    }
    report = Reporter("finetune", run_id, Store.open(tmp_path, "run", fresh=False))
    report({"step": 1, "steps": 9, "best_AP": -2.0} | status)
    report({"step": 2, "best_AP": 0.5, "AP": 0.5, "error": 0.1, "mean_pose_error": 0.3})
    names = {*status, "best_AP", "AP", "error", "mean_pose_error"}
    assert set(metrics(tmp_path, "finetune/%")) == {f"finetune/{name}" for name in names}
    assert metrics(tmp_path, "finetune/best_AP") == {"finetune/best_AP": [2]}
    assert curves("pretrain", {"step": 1, "steps": 2, "best_AP": -1.0}) == {"pretrain/best_AP": -1.0}
