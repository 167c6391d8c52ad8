"""The table and the picture of `benchmarks/mini_coco.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Row = dict[str, Any]
FIGURES = ("AP", "error", "mean_pose_error")


def with_interval(row: Row, name: str) -> str:
    """A figure with its 95 % interval."""
    return f"{row[name]:.4f} [{row[f'{name}_low']:.4f}, {row[f'{name}_high']:.4f}]"


def table_line(row: Row) -> str:
    """A row of the table that is printed."""
    place = f"{row['stage']:9} {row['epoch']:5d} {row['samples']:8d} {row['minutes']:7.1f}"
    return "  ".join([place, *(with_interval(row, name) for name in FIGURES)])


def draw(rows: list[Row], path: Path, network: str) -> None:
    """Both figures against epochs, with intervals, pretraining before finetuning."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    first = max((row["epoch"] for row in rows if row["stage"] == "pretrain"), default=0)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True)
    for axis, names, title in zip(
        axes, (("error", "mean_pose_error"), ("AP",)), ("mean keypoint error", "AP"), strict=True
    ):
        for name, colour in zip(names, ("tab:blue", "tab:grey"), strict=False):
            for stage, shift in (("pretrain", 0), ("finetune", first)):
                part = [row for row in rows if row["stage"] == stage]
                x = [row["epoch"] + shift for row in part]
                label = (
                    {"error": f"RTMPose-{network}", "mean_pose_error": "mean pose"}.get(name)
                    if stage == "finetune"
                    else None
                )
                axis.plot(x, [row[name] for row in part], "o-", markersize=3, color=colour, label=label)
                low, high = ([row[f"{name}_{end}"] for row in part] for end in ("low", "high"))
                axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        if first:
            axis.axvline(first, color="black", linewidth=0.8, linestyle=":")
        axis.set(title=title, xlabel="epoch (heatmap pretraining, then SimCC)", ylim=(0, None))
        if "error" in names:  # the first epochs of heatmaps are far above
            axis.set_ylim(0, 1.8 * max(row["mean_pose_error_high"] for row in rows))
        axis.grid(alpha=0.3)
    axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
