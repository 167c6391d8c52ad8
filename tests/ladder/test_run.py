"""The ladder's figures on known numbers, and a small ladder that is killed and goes on."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from rtmpose.config import load_params, with_values
from rtmpose.ladder import run as ladder
from rtmpose.ladder.report import Interval, interval, markdown, publish, steps
from rtmpose.ladder.run import Row, drop_checkpoints, minutes, plateau_samples, with_prefix
from rtmpose.ladder.rungs import RUNGS, Rung
from rtmpose.models import build_pose_net, load_weights
from rtmpose.training import launch
from rtmpose.training.checkpoint import Store
from rtmpose.training.job import Job, build_task, open_stream, tuning_ap
from rtmpose.training.loop import Run
from tests.search.searching import children
from tests.test_workflow import compose
from tests.workspace import Workspace


def line(step: int, error: float, mean: float = 1.0) -> dict[str, Any]:
    return {"step": step, "AP": 0.0, "error": error, "mean_pose_error": mean}


def row(rung: str, seed: int, ap: float, plateau: int | None = None, **more: Any) -> Row:
    figures = {
        "tuning_AP": ap,
        "samples": 800,
        "pretrain_samples": 0,
        "minutes": 1.5,
        "parameters": 3_300_000,
    }
    return {"rung": rung, "seed": seed, "AP": ap, "plateau_samples": plateau} | figures | more


def test_interval_of_known_numbers() -> None:
    found = interval([1.0, 2.0, 3.0])  # standard deviation 1
    assert found.mean == 2.0 and found.half == pytest.approx(4.30265 / 3**0.5)
    assert interval([4.0]) == Interval(4.0, None) and not interval([4.0]).clear
    assert Interval(-1.0, 0.9).clear and not Interval(-1.0, 1.1).clear
    assert Interval(1.25, 0.5).shown(True) == "+1.2 ± 0.5" and Interval(61.04, None).shown() == "61.0"


def test_the_plateau_is_left_at_the_first_evaluation_below_nine_tenths() -> None:
    log = [{"step": 2, "loss": 1.0}, line(2, 0.95), line(4, 0.9), line(6, 0.89), line(8, 0.95)]
    assert plateau_samples(log, 64) == 6 * 64
    assert plateau_samples(log[:3], 64) is None
    assert plateau_samples([line(2, 0.17, 0.2)], 10) == 20


def test_minutes_are_those_of_the_updates() -> None:
    log = [
        {"step": 30, "loss": 1.0, "samples_per_s": 64.0},
        line(30, 1),
        {"step": 60, "loss": 1.0, "samples_per_s": 32.0},
    ]
    assert minutes(log, 64) == pytest.approx((30 + 60) / 60)


def test_gains_are_paired_by_seed() -> None:
    rungs = [RUNGS[3], RUNGS[4], RUNGS[9]]
    rows = [row("cspnext", seed, 0.1 * seed) for seed in (1, 2, 3)]
    rows += [row("pretrain", seed, 0.1 * seed + 0.05, 128 * seed) for seed in (1, 2, 3)]
    first, second = steps(rungs, rows)
    assert first.gain is None and second.gain is not None
    assert second.gain.mean == pytest.approx(5.0) and second.gain.half == pytest.approx(0.0, abs=1e-9)
    assert second.paper_gain == pytest.approx(0.6)
    assert first.plateau() == "3 of 3 not within budget" and second.plateau() == "256 (128–384)"
    assert (
        steps(rungs[:1], [row("cspnext", 1, 0.1, 7), row("cspnext", 2, 0.1)])[0].plateau()
        == "7 (7–7), 1 of 2 not within budget"
    )


def test_table_and_files(tmp_path: Path) -> None:
    params = load_params(compose(tmp_path, "recipe=ladder"))
    rows = [row("cspnext", seed, 0.10 + 0.01 * seed, 640) for seed in (1, 2, 3)]
    rows += [row("pretrain", seed, 0.30 + 0.01 * seed, 64, pretrain_samples=1600) for seed in (1, 2, 3)]
    files = {name: tmp_path / name for name in ("table", "metrics", "report", "picture")}
    publish(params, list(RUNGS), rows, **files)
    text = files["report"].read_text()
    assert (
        "| CSPNeXt instead of ResNet-50 | 3.30 | 800 | 12.0 ± 2.5 |  | 69.7 |  | 640 (640–640) | 1.5 |"
        in text
    )
    assert (
        "| + UDP pretraining | 3.30 | 800 + 1,600 | 32.0 ± 2.5 | **+20.0 ± 0.0** | 70.3 | +0.6 | 64 (64–64) "
        "| 1.5 |" in text
    )
    assert "trained on coco17, and the last rung on all sets" in text and "Of 1 such" in text
    assert json.loads(files["metrics"].read_text())["pretrain"]["gain"] == pytest.approx(20.0)
    assert [found["rung"] for found in csv.DictReader(files["table"].open())] == ["cspnext"] * 3 + [
        "pretrain"
    ] * 3
    assert files["picture"].read_bytes().startswith(b"\x89PNG")
    assert markdown(params, []).startswith("# The ladder on `ladder`")


def test_bare_imagenet_weights_get_the_networks_names(tmp_path: Path) -> None:
    net = build_pose_net("t", "heatmap", 3, (32, 32), backbone="resnet50")
    bare = net.backbone.state_dict() | {"fc.weight": torch.zeros(4, 2048)}
    torch.save(bare, tmp_path / "resnet50.pth")
    named = with_prefix(tmp_path / "resnet50.pth", tmp_path / "run/resnet50.pt")
    other = build_pose_net("t", "simcc_plain", 3, (32, 32), backbone="resnet50")
    mismatch = load_weights(other, named, prefix="backbone.")
    assert not mismatch.missing and mismatch.unexpected == ("backbone.fc.weight",)
    assert torch.equal(other.backbone.state_dict()["conv1.weight"], bare["conv1.weight"])
    torch.save({"state_dict": net.state_dict()}, tmp_path / "whole.pth")
    assert with_prefix(tmp_path / "whole.pth", tmp_path / "x.pt") == tmp_path / "whole.pth"


def test_checkpoints_go_and_weights_stay(tmp_path: Path) -> None:
    for name in ("latest.json", "step-00000004.pt", "best.pt", "train.log"):
        (tmp_path / name).write_text("x")
    drop_checkpoints(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "train.log"]


class Killed(Exception):
    """Stands for the moment a process is killed."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Rendered people in shards, and a ladder of one epoch of pretraining and two of finetuning, about 80
    samples each.
    """
    workspace = Workspace(tmp_path_factory.mktemp("ladder")).small()
    workspace.set(
        ladder={"samples": 160, "pretrain_samples": 80, "seeds": [1, 2, 3], "base": ["coco17"],
        "rungs": ["hidden", "gau"]}, pretrain__enabled=True, pretrain__batch_size=16, finetune__batch_size=16,
        model__hidden=16, pretrain__hidden=8, input_size=[32, 32], shard__input_size=[32, 32],
        finetune__checkpoint_steps=None, pretrain__checkpoint_steps=None,
    )  # fmt: skip
    for stage, *arguments in (("raw", "coco17"), ("shard", "coco17"), ("mix",)):
        done = workspace.stage(stage, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    return workspace


def test_a_ladder_cut_off_in_a_rung_goes_on_in_it(
    prepared: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a real ladder but Ray: pretraining is shared, nothing is trained twice, all of it is one set in
    MLflow.
    """
    monkeypatch.chdir(prepared.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", prepared.environment["MLFLOW_TRACKING_URI"])
    monkeypatch.setattr(ladder, "ray_cluster", lambda cpus: nullcontext())
    params, epochs = load_params(), []
    params = with_values(params, {"hardware.storage": "runs/here"})

    def launch_here(job: Job) -> None:
        store, task = Store(job.store, job.token, {"run_id": job.run_id}), build_task(job)
        cpu = torch.device("cpu")
        stream = open_stream(job.params, job.train, job.mix, udp=task.codec.udp)

        def epoch_done(position: dict[str, Any]) -> None:
            epochs.append((job.stage, job.params.seed, position["epoch"]))
            if len(epochs) == limit:
                raise Killed

        Run(
            task, stream, store, params=job.train, model_params=job.params.model, evaluate=tuning_ap(job,
            task, cpu), report=store.append_log, epoch_done=epoch_done, device=cpu, precision="fp32",
        ).train()  # fmt: skip

    monkeypatch.setattr(launch, "launch", launch_here)
    published: list[int] = []

    def climb() -> tuple[list[Rung], list[Row], str]:
        return ladder.run_ladder(
            params, mix=Path("data/mix.json"), publish=lambda rungs, rows: published.append(len(rows))
        )

    limit = 5  # the first epoch of the second seed's finetuning
    with pytest.raises(Killed):
        climb()
    assert epochs[-1][:2] == ("finetune", 2) and published == []
    limit = 0
    _, rows, run_id = climb()
    assert published == [3, 6, 6] and [row["seed"] for row in rows] == [1, 2, 3, 1, 2, 3]
    # hidden and gau are the same epochs of a seed
    assert len(set(epochs)) == 3 + 3 * 2 and len(epochs) == 3 + 6 * 2
    assert all(row["samples"] == 2 * row["pretrain_samples"] > 0 for row in rows)
    assert rows[0]["parameters"] == rows[2]["parameters"] < rows[3]["parameters"]
    runs = children(run_id)
    assert sorted(run.data.tags["rung"] for run in runs) == ["gau"] * 3 + ["hidden"] * 3 + ["pretraining"] * 3
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len({run.data.tags["ladder"] for run in runs}) == 1
    known = len(epochs)
    assert climb()[1] == rows and len(epochs) == known
    store = prepared.folder / "runs/here"
    assert not list(store.glob("*/step-*.pt")) and not list(store.glob("ladder-*/weights.pt"))
    more = with_values(params, {"ladder.seeds": [1, 2, 3, 4], "ladder.rungs": ["gau"]})
    found = ladder.run_ladder(more, mix=Path("data/mix.json"), publish=lambda rungs, rows: None)
    assert found[1][:3] == rows[3:] and len(epochs) == known + 1 + 2 and found[2] == run_id


@pytest.mark.slow
def test_a_killed_stage_goes_on_where_it_was(prepared: Workspace) -> None:
    prepared.set(ladder__samples=16, ladder__rungs=["cspnext"])
    runs, process = prepared.folder / "runs", prepared.start(sys.executable, "-m", "pipelines.ladder")
    deadline = time.monotonic() + 300
    while not list(runs.glob("ladder-*/rows/*.json")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (first,) = runs.glob("ladder-*/rows/cspnext-1.json")
    written, known = first.read_text(), json.loads(first.read_text())
    trained = (Path(known["store"]) / "train.log").read_bytes()

    done = prepared.stage("ladder")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rungs, 3 runs → reports/ladder.md" in done.stdout and "handed over again" in done.stdout
    assert first.read_text() == written and (Path(known["store"]) / "train.log").read_bytes() == trained
    found = list(csv.DictReader((prepared.folder / "metrics/ladder.csv").open()))
    assert [(entry["rung"], entry["seed"]) for entry in found] == [("cspnext", seed) for seed in "123"]
    assert (prepared.folder / "reports/ladder.png").exists()
