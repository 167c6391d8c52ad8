"""The thin glue between a stage and the loop: a Ray Train run with one worker group, followed from the
driver.

The loop's own store is the only truth; Ray gets the position after each epoch and restarts a worker group
that died, which then resumes from the store. Progress goes through the store's `train.log`, so following a
run is the same on one machine and on a cluster.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtmpose import registry
from rtmpose.cluster.session import in_job, ray_cluster
from rtmpose.cluster.submit import adopt_checkout, forced, job_server, not_here, run_job, shared, shared_copy
from rtmpose.config import HardwareParams, Params, TrainParams, setup_environment
from rtmpose.data.shards.cache import ShardCache
from rtmpose.data.stream.stream import TrainStream
from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.evaluator import Evaluator, Mix, Results, read_mix
from rtmpose.files import UserError, home, write_atomic
from rtmpose.fingerprint import code_version, fingerprint
from rtmpose.models import Mismatch, PoseNet, build_model, load_weights, save_tensors
from rtmpose.targets import SimCC, UDPHeatmap
from rtmpose.training.checkpoint import BEST, Store
from rtmpose.training.loop import Run
from rtmpose.training.progress import following
from rtmpose.training.reporter import Reporter, open_run
from rtmpose.training.update import Task, heatmap_task, simcc_task
from rtmpose.training.watch import Pictures, system_metrics

TRAINING_CODE = (
    *(
        f"training/{name}.py"
        for name in ("loop", "update", "optim", "guard", "sync_bn", "checkpoint", "launch")
    ),
    *(f"data/shards/{name}.py" for name in ("index", "manifest", "crops")),
    *(f"data/stream/{name}.py" for name in ("stream", "augment")),
    *("models", "targets", "losses.py", "oks.py", "geometry.py", "skeleton.py"),
    *(f"evaluation/{name}.py" for name in ("coco", "error", "predict", "evaluator")),
)
WITHOUT_EFFECT = (
    "log_steps",
    "checkpoint_steps",
    "picture_every",
    "max_bad_updates",
)  # of TrainParams, on a result
TUNING_FIGURES = ("AP", "AP50", "AP75", "AR", "error", "mean_pose_error")
MISTAKE = "mistake.txt"  # a UserError of a worker, on its way to the driver


@dataclass(frozen=True)
class Job:
    """Everything a worker needs, in plain picklable values; paths are absolute."""

    stage: str  # "pretrain" or "finetune"
    params: Params
    mix: Mix
    store: Path
    token: str
    run_id: str
    tracking_uri: str
    init: Path | None
    tau: float
    sigma: tuple[float, float] | None

    @property
    def train(self) -> TrainParams:
        return self.params.pretrain if self.stage == "pretrain" else self.params.finetune


def build_task(job: Job) -> Task:
    """The network, codec and loss of a job."""
    net, _ = network(job.stage, job.params, job.init)
    codec = codec_of(job.stage, job.params, job.sigma)
    return heatmap_task(net, codec) if isinstance(codec, UDPHeatmap) else simcc_task(net, codec, job.tau)


def network(stage: str, params: Params, init: Path | None) -> tuple[PoseNet, Mismatch | None]:
    """A stage's network, and what of the weights it starts from did not fit; seeded, so that every rank
    builds the same.

    `init` gives the backbone, or with `finetune.init` every layer that fits.
    """
    torch.manual_seed(params.seed)
    train, hidden = (
        (params.pretrain, params.pretrain.hidden) if stage == "pretrain" else (params.finetune, None)
    )
    points = load_skeleton(train.skeleton).num_keypoints
    net = build_model(params.model, points, params.input_size, pretrain_hidden=hidden)
    whole = stage == "finetune" and params.finetune.init is not None
    return net, load_weights(net, init, prefix=None if whole else "backbone.") if init is not None else None


def codec_of(stage: str, params: Params, sigma: tuple[float, float] | None) -> SimCC | UDPHeatmap:
    """How keypoints become a stage's targets, and the network's output keypoints."""
    if stage == "pretrain":
        return UDPHeatmap(params.input_size, sigma=params.pretrain.sigma)
    if params.model.head == "heatmap":
        return UDPHeatmap(params.input_size, sigma=sigma[0] if sigma else 2.0)
    return SimCC(params.input_size, sigma=sigma)


def finetune_init(params: Params, pretrained: Path) -> Path:
    """The weights that finetuning and its search start from."""
    return shared(params.finetune.init) if params.finetune.init is not None else pretrained


def open_stream(
    params: Params, train: TrainParams, mix: Mix, *, udp: bool, rank: int = 0, world: int = 1
) -> TrainStream:
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
        window=params.stream.window,
        cache=ShardCache(home(params.hardware.cache), int(params.hardware.cache_gb * 1e9)),
        on_corrupt=params.stream.on_corrupt,
    )


def tuning_ap(
    job: Job, task: Task, device: torch.device, seen: Callable[[Results], None] | None = None
) -> Callable[[nn.Module], dict[str, float]]:
    """AP on the tuning split with ground-truth boxes and no flip: what chooses checkpoints and τ, σ; and the
    mean keypoint error beside that of the mean pose. `seen` is called with the predictions.
    """

    params, skeleton = job.params, load_skeleton(job.params.skeleton)

    def evaluate(model: nn.Module) -> dict[str, float]:
        judge = Evaluator(
            model, task.codec, skeleton, params.evaluate, params.hardware.precision, device
        ).without_flip()
        figures, results, _ = judge.shards(job.mix.tune)
        if seen is not None:
            seen(results)
        return {key: figures[key] for key in TUNING_FIGURES if key in figures}

    return evaluate


def run_workers(
    work: Callable[[], None],
    hardware: HardwareParams,
    *,
    workers: int,
    folder: Path,
    callbacks: Sequence[Any] = (),
) -> None:
    """Have so many workers of Ray Train do `work`, in one process group, from its start again when one of
    them dies.

    `folder`, which all machines see, takes Ray's own notes. A UserError of `work` is raised here as it is.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchConfig, TorchTrainer

    resources: dict[str, float] = {"CPU": hardware.cpus_per_worker}
    if hardware.gpus_per_worker:
        resources["GPU"] = hardware.gpus_per_worker
    mistake = folder / MISTAKE
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"work": work, "mistake": mistake},
        torch_config=TorchConfig(backend="nccl" if hardware.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=hardware.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=hardware.max_failures),
            callbacks=list(callbacks),
        ),
    )
    mistake.unlink(missing_ok=True)
    try:
        trainer.fit()
    except WorkerGroupError:
        if not mistake.exists():
            raise
    if mistake.exists():
        raise UserError(mistake.read_text())


def _worker(config: dict[str, Any]) -> None:
    """What runs in each worker; a user's mistake is left for the driver to say, and ends the run at once.

    Ray Train would start failed workers again and again. One worker alone just returns; several must fail,
    since the others may be waiting for this one, and return when they are started again.
    """
    import ray.train

    setup_environment()
    mistake: Path = config["mistake"]
    if mistake.exists():
        return
    try:
        config["work"]()
    except UserError as error:
        write_atomic(mistake, str(error))
        if ray.train.get_context().get_world_size() > 1:
            raise


def run_rank(job: Job) -> None:
    """One rank's part of the run, resumed from the store."""
    import ray.train.torch

    os.environ["MLFLOW_TRACKING_URI"] = job.tracking_uri
    context = ray.train.get_context()
    hardware = job.params.hardware
    device = ray.train.torch.get_device()
    torch.set_num_threads(max(int(hardware.cpus_per_worker), 1))
    store, task = Store(job.store, job.token, {"run_id": job.run_id}), build_task(job)
    stream = open_stream(
        job.params,
        job.train,
        job.mix,
        udp=task.codec.udp,
        rank=context.get_world_rank(),
        world=context.get_world_size(),
    )
    skeleton = load_skeleton(job.params.skeleton)
    pictures = Pictures(
        job.stage, job.run_id, store, job.train, job.mix.tune, skeleton, stream.steps_per_epoch
    )
    reporter = Reporter(job.stage, job.run_id, store)

    def report(line: dict[str, Any]) -> None:
        reporter(line)
        if "AP" in line:
            pictures(line["step"])

    run = Run(
        task,
        stream,
        store,
        params=job.train,
        model_params=job.params.model,
        evaluate=tuning_ap(job, task, device, pictures.remember),
        report=report,
        epoch_done=ray.train.report,
        device=device,
        precision=hardware.precision,
        rank=context.get_world_rank(),
        world=context.get_world_size(),
    )
    with system_metrics(job.run_id) if run.rank == 0 else nullcontext():
        run.train()


def launch(job: Job) -> None:
    """Run a job under Ray Train to its end, printing its progress; a worker's failure ends in its own
    traceback.
    """
    hardware = job.params.hardware
    with ray_cluster(hardware.workers * hardware.cpus_per_worker + 1), following(job.store, job.stage):
        from ray.exceptions import RayError

        try:
            run_workers(partial(run_rank, job), hardware, workers=hardware.workers, folder=job.store)
        except RayError as error:  # of the driver's own calls: the controller was killed, or all of Ray
            lost = f"{job.stage}: Ray ended under the run ({type(error).__name__})"
            raise UserError(f"{lost}; run the stage again to resume it") from None


def job_fingerprint(
    stage: str, params: Params, mix: Path, init: Path | None, tau: float, sigma: object
) -> str:
    """Names a run by everything its result depends on; worker counts, places and what is shown of it are not
    among them.
    """
    train = params.pretrain if stage == "pretrain" else params.finetune
    return fingerprint(
        stage=stage,
        train=train.model_dump(exclude=set(WITHOUT_EFFECT)),
        model=params.model.model_dump(),
        seed=params.seed,
        input_size=params.input_size,
        stream=params.stream.model_dump(),
        skeletons=[load_skeleton(name).to_dict() for name in (train.skeleton, params.skeleton)],
        precision=params.hardware.precision,
        thresholds=(params.evaluate.keypoint_threshold, params.evaluate.nms_threshold),
        mix=registry.sha256_of(mix),
        init=registry.sha256_of(init) if init else None,
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
    tags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Train `stage` ("pretrain" or "finetune") and write its `weights` (EMA, best AP) and `receipt`; `tags`
    go to MLflow, too.

    A run that was killed goes on from its last checkpoint, and a finished one that DVC does not know of is
    handed over again; other parameters, other data, other code or `dvc … -f` start anew.
    """
    name = job_fingerprint(stage, params, mix, init, tau, sigma)
    root, run, fresh = shared(params.hardware.storage), f"{stage}-{name}", forced()
    server = job_server(params.hardware)
    if server is not None:
        return run_elsewhere(stage, server, root / run, fresh, weights, receipt)
    adopt_checkout()
    store = Store.open(root, run, fresh=fresh)
    done = store.finished()
    if done is not None:
        print(f"{stage}: run {name} is finished already; its weights are handed over again", flush=True)
        return hand_over(store, done, weights, receipt)
    state = store.load() or {}
    if state:
        print(f"{stage}: resuming run {name} from step {state['step']}", flush=True)
    elif init is not None:
        print(f"{stage}: starting from {init}. {network(stage, params, init)[1]}", flush=True)
    lineage = registry.lineage_tags(Path("dvc.lock"), mix, name)
    run_id = open_run(store.folder, stage, lineage | {"stage": stage} | dict(tags or {}), state.get("run_id"))
    registry.log_params_flat(run_id, params.model_dump(mode="json") | {"tau": tau, "sigma": sigma})
    start = init and shared_file(init, store)
    uri = registry.tracking_uri()
    # Ray Train's workers have a current folder of their own.
    hardware = params.hardware.model_copy(update={"cache": str(home(params.hardware.cache))})
    params = params.model_copy(update={"hardware": hardware})
    job = Job(stage, params, shared_mix(mix), store.folder, store.token, run_id, uri, start, tau, sigma)
    with registry.finished(run_id):
        launch(job)
    return hand_over(store, conclusion(job, store, name), weights, receipt)


def shared_mix(path: Path) -> Mix:
    """The mix, its folders as every worker sees them."""
    mix = read_mix(path)
    train = tuple(replace(entry, dir=shared_copy(entry.dir)) for entry in mix.train)
    return Mix(train, shared_copy(mix.tune), {name: shared_copy(folder) for name, folder in mix.val.items()})


def shared_file(path: Path, store: Store) -> Path:
    """A file, absolute; inside a job a copy of it in the store, since a job's own files may lie elsewhere on
    each machine.
    """
    return write_atomic(store.folder / "init.pt", path.read_bytes()) if in_job() else path.resolve()


def run_elsewhere(
    stage: str, server: str, folder: Path, fresh: bool, weights: Path, receipt: Path
) -> dict[str, Any]:
    """Have the stage run as a job of a cluster, which writes the store in `folder`, and hand its result over
    here.
    """
    store = Store(folder, token="")  # the job's: read, never taken over
    if fresh or store.finished() is None:
        run_job(stage, server, folder.name, fresh=fresh)
    done = store.finished()
    if done is None:
        raise not_here(folder, "run")
    return hand_over(store, done, weights, receipt)


def conclusion(job: Job, store: Store, name: str) -> dict[str, Any]:
    """The receipt of a run that came to its end: where its store is, what it cost, what came out."""
    state = store.load()
    assert state is not None, "a run that ended has a checkpoint"
    position = state["position"]
    if not store.best_is(position["best_sha256"]):
        raise UserError(f"{store.folder}: the best weights are damaged; delete the folder to start anew")
    codec = codec_of(job.stage, job.params, job.sigma)
    return {
        "stage": job.stage,
        "fingerprint": name,
        "store": str(store.folder),
        "sha256": position["best_sha256"],
        "run_id": job.run_id,
        "steps": position["step"],
        "samples": position["step"] * job.train.batch_size,
        "best_AP": position["best_ap"],
        "best_epoch": position["best_epoch"],
        "stopped_early": position["stopped"],
        "tau": job.tau,
        "sigma": list(codec.sigma) if isinstance(codec, SimCC) else None,
    }


def hand_over(store: Store, content: dict[str, Any], weights: Path, receipt: Path) -> dict[str, Any]:
    """Copy the best weights out of the store, write the receipt, and mark the store as finished last
    of all.
    """
    write_atomic(weights, (store.folder / BEST).read_bytes())
    write_atomic(receipt, json.dumps(content, indent=1) + "\n")
    store.finish(content)
    return content


def untrained(params: Params, init: Path | None, weights: Path, receipt: Path) -> dict[str, Any]:
    """What `pretrain.enabled: false` hands on: a network with `init`'s backbone, or as initialised."""
    net, mismatch = network("pretrain", params, init)
    if mismatch is not None:
        print(f"pretrain: the backbone starts from {init}. {mismatch}", flush=True)
    sha256 = save_tensors(weights, net.state_dict())
    content = {"stage": "pretrain", "store": None, "sha256": sha256, "init": str(init) if init else None}
    write_atomic(receipt, json.dumps(content, indent=1) + "\n")
    return content
