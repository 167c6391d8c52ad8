"""The thin glue between a stage and the loop: a Ray Train run with one worker group, followed from the driver.

The loop's own store is the only truth; Ray gets the position after each epoch and restarts a worker group that died, which
then resumes from the store. Progress goes through the store's `train.log`, so following a run is the same on one machine
and on a cluster.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtmpose import registry
from rtmpose.config import FinetuneParams, Params, PretrainParams, TrainParams, UserError, setup_environment, write_atomic
from rtmpose.data.stream import TrainStream
from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.split import Evaluator, Mix, read_mix
from rtmpose.models import build_pose_net, load_weights
from rtmpose.targets import SimCC, UDPHeatmap
from rtmpose.training.checkpoint import Store, code_version, file_sha256, fingerprint, forced_by_dvc
from rtmpose.training.loop import Run, Task, heatmap_task, simcc_task
from rtmpose.training.progress import following

TRAINING_CODE = (
    "training",
    "models",
    "targets",
    "losses.py",
    "geometry.py",
    "skeleton.py",
    "data/stream.py",
    "data/augment.py",
    "oks.py",
    "evaluation/coco.py",
    "evaluation/predict.py",
    "evaluation/split.py",
)

MISTAKE = "mistake.txt"  # a UserError of a worker, on its way to the driver


@dataclass(frozen=True)
class Job:
    """Everything a worker needs, in plain picklable values; paths are absolute."""

    stage: str  # "pretrain" or "finetune"
    params: Params
    mix: Mix
    store: Path
    run_id: str
    tracking_uri: str
    init: Path | None
    tau: float
    sigma: tuple[float, float] | None

    @property
    def train(self) -> TrainParams:
        return self.params.pretrain if self.stage == "pretrain" else self.params.finetune


def build_task(job: Job) -> Task:
    """The network (its backbone from `init` when given), codec and loss of a job; seeded, so every rank builds the same."""
    params, model = job.params, job.params.model
    torch.manual_seed(params.seed)
    points = load_skeleton(job.train.skeleton).num_keypoints
    head = "heatmap" if job.stage == "pretrain" else "simcc"
    hidden = params.pretrain.hidden if job.stage == "pretrain" else model.hidden
    net = build_pose_net(
        model.size, head, points, params.input_size, backbone=model.backbone, kernel=model.kernel, hidden=hidden, gau=model.gau
    )
    if job.init is not None:
        load_weights(net, job.init, prefix="backbone.")
    if job.stage == "pretrain":
        assert isinstance(job.train, PretrainParams)
        return heatmap_task(net, UDPHeatmap(params.input_size, sigma=job.train.sigma))
    return simcc_task(net, SimCC(params.input_size, sigma=job.sigma), job.tau)


def open_stream(params: Params, train: TrainParams, mix: Mix, *, udp: bool, rank: int = 0, world: int = 1) -> TrainStream:
    """The training stream of a mix for one rank."""
    return TrainStream(
        mix.train,
        load_skeleton(train.skeleton),
        params.input_size,
        batch_size=train.batch_size,
        seed=params.seed,
        rank=rank,
        world=world,
        udp=udp,
        workers=params.hardware.loader_workers,
    )


def tuning_ap(job: Job, task: Task, device: torch.device) -> Callable[[nn.Module], dict[str, float]]:
    """AP on the tuning split with ground-truth boxes and no flip: what chooses checkpoints and τ, σ."""

    params, skeleton = job.params, load_skeleton(job.params.skeleton)

    def evaluate(model: nn.Module) -> dict[str, float]:
        judge = Evaluator(model, task.codec, skeleton, params.evaluate, params.hardware.precision, device).without_flip()
        figures, _, _ = judge.shards(job.mix.tune)
        return {key: figures[key] for key in ("AP", "AP50", "AP75", "AR")}

    return evaluate


def reporter(job: Job, store: Store) -> Callable[[dict[str, Any]], None]:
    """Reports go to MLflow once per step and to `train.log`; what an earlier, killed process logged is skipped."""
    logged = {(line["step"], "AP" in line) for line in store.read_log()}

    def report(line: dict[str, Any]) -> None:
        key = (line["step"], "AP" in line)
        if key not in logged:
            numbers = {f"{job.stage}/{name}": value for name, value in line.items() if name not in ("step", "steps")}
            registry.log_metrics(job.run_id, numbers, step=line["step"])
            logged.add(key)
        store.append_log(line)

    return report


def worker(config: dict[str, Any]) -> None:
    """What runs in each Ray Train worker; a user's mistake is left for the driver to say, not retried."""
    job: Job = config["job"]
    try:
        run_rank(job)
    except UserError as error:
        write_atomic(job.store / MISTAKE, str(error))


def run_rank(job: Job) -> None:
    """One rank's part of the run, resumed from the store."""
    import ray.train

    setup_environment()
    os.environ["MLFLOW_TRACKING_URI"] = job.tracking_uri
    context = ray.train.get_context()
    hardware = job.params.hardware
    device = torch.device("cuda", context.get_local_rank()) if hardware.gpus_per_worker else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(max(int(hardware.cpus_per_worker), 1))
    store, task = Store(job.store), build_task(job)
    stream = open_stream(
        job.params, job.train, job.mix, udp=task.codec.udp, rank=context.get_world_rank(), world=context.get_world_size()
    )
    Run(
        task,
        stream,
        store,
        params=job.train,
        model_params=job.params.model,
        evaluate=tuning_ap(job, task, device),
        report=reporter(job, store),
        epoch_done=ray.train.report,
        device=device,
        precision=hardware.precision,
        rank=context.get_world_rank(),
        world=context.get_world_size(),
    ).train()


@contextmanager
def ray_cluster(cpus: float) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names, else start a small local one; the one we started ends with us."""
    setup_environment()
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    import ray

    local = "RAY_ADDRESS" not in os.environ
    options: dict[str, Any] = {}
    if local:
        options = {"num_cpus": max(int(cpus), 1), "include_dashboard": False, "object_store_memory": 200 << 20}
    ray.init(logging_level="error", log_to_driver=False, **options)
    try:
        yield
    finally:
        ray.shutdown()


def launch(job: Job) -> None:
    """Run a job under Ray Train to its end, printing its progress; a worker's failure ends in its own traceback."""
    hardware = job.params.hardware
    with ray_cluster(hardware.workers * hardware.cpus_per_worker + 1), following(Store(job.store), job.stage):
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        resources: dict[str, float] = {"CPU": hardware.cpus_per_worker}
        if hardware.gpus_per_worker:
            resources["GPU"] = hardware.gpus_per_worker
        trainer = TorchTrainer(
            worker,
            train_loop_config={"job": job},
            torch_config=TorchConfig(backend="nccl" if hardware.gpus_per_worker else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=hardware.workers, use_gpu=hardware.gpus_per_worker > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name="ray", storage_path=str(job.store), failure_config=FailureConfig(max_failures=hardware.max_failures)
            ),
        )
        trainer.fit()
    mistake = job.store / MISTAKE
    if mistake.exists():
        text = mistake.read_text()
        mistake.unlink()
        raise UserError(text)


def job_fingerprint(stage: str, params: Params, mix: Path, init: Path | None, tau: float, sigma: object) -> str:
    """Names a run by everything its result depends on; worker counts and places are not among them."""
    train = params.pretrain if stage == "pretrain" else params.finetune
    return fingerprint(
        stage=stage,
        train=train.model_dump(),
        model=params.model.model_dump(),
        seed=params.seed,
        input_size=params.input_size,
        skeleton=params.skeleton,
        precision=params.hardware.precision,
        mix=file_sha256(mix),
        init=file_sha256(init) if init else None,
        tau=tau,
        sigma=sigma,
        code=code_version(TRAINING_CODE),
    )


def run_stage(
    stage: str,
    params: Params,
    *,
    mix: Path,
    init: Path | None,
    weights: Path,
    receipt: Path,
    tau: float = 0.1,
    sigma: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Train `stage` ("pretrain" or "finetune") and write its `weights` (EMA, best AP) and `receipt`.

    A run that was killed goes on from its last checkpoint; other parameters, other data, other code, a finished run or
    `dvc … -f` start anew.
    """
    name = job_fingerprint(stage, params, mix, init, tau, sigma)
    store = Store.open(Path(params.hardware.storage), f"{stage}-{name}", fresh=forced_by_dvc())
    state = store.load()
    if state is not None:
        print(f"{stage}: resuming run {name} from step {state['step']}", flush=True)
    run_file = store.folder / "run.json"
    known = json.loads(run_file.read_text())["run_id"] if run_file.exists() else None
    run_id = registry.start_or_resume_run(
        stage,
        known,
        tags={
            "stage": stage,
            "fingerprint": name,
            "git_commit": registry.git_commit(),
            "data_manifest_sha256": file_sha256(mix),
        },
    )
    write_atomic(run_file, json.dumps({"run_id": run_id}))
    registry.log_params_flat(run_id, params.model_dump() | {"tau": tau, "sigma": sigma})
    job = Job(
        stage,
        params,
        read_mix(mix),
        store.folder,
        run_id,
        registry.tracking_uri(),
        init.resolve() if init else None,
        tau,
        sigma,
    )
    launch(job)
    return conclude(job, store, name, weights, receipt)


def conclude(job: Job, store: Store, name: str, weights: Path, receipt: Path) -> dict[str, Any]:
    """Copy the best weights out of the store and write the receipt; the store is marked finished last of all."""
    state = store.load()
    if state is None:
        raise UserError(f"{store.folder}: the {job.stage} run ended without a checkpoint; run the stage again")
    best = store.folder / "best.pt"
    temporary = weights.with_name(weights.name + ".tmp")
    weights.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(best, temporary)
    os.replace(temporary, weights)
    position = state["position"]
    content = {
        "stage": job.stage,
        "fingerprint": name,
        "store": str(store.folder),
        "sha256": file_sha256(weights),
        "run_id": job.run_id,
        "steps": position["step"],
        "samples": position["step"] * job.train.batch_size,
        "best_AP": position["best_ap"],
        "best_epoch": position["best_epoch"],
        "tau": job.tau,
        "sigma": job.sigma,
    }
    if isinstance(job.train, FinetuneParams):
        content["sigma"] = list(SimCC(job.params.input_size, sigma=job.sigma).sigma)
    write_atomic(receipt, json.dumps(content, indent=1) + "\n")
    registry.end_run(job.run_id)
    store.finish(content)
    return content


def untrained(params: Params, init: Path | None, weights: Path, receipt: Path) -> dict[str, Any]:
    """What `pretrain.enabled: false` hands on: a network with `init`'s backbone, or as initialised."""
    torch.manual_seed(params.seed)
    points = load_skeleton(params.pretrain.skeleton).num_keypoints
    net = build_pose_net(params.model.size, "heatmap", points, params.input_size, hidden=params.pretrain.hidden)
    if init is not None:
        load_weights(net, init, prefix="backbone.")
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    write_atomic(weights, buffer.getvalue())
    content = {"stage": "pretrain", "store": None, "sha256": file_sha256(weights), "init": str(init) if init else None}
    write_atomic(receipt, json.dumps(content, indent=1) + "\n")
    return content
