"""The life of a run: opened or found again, trained by a worker group of Ray Train, followed from the driver,
and its result handed to the stage.

The loop's own store is the only truth; Ray gets the position after each epoch and restarts a worker group
that died, which then resumes from the store. Progress goes through the store's `train.log`, so following a
run is the same on one machine and on a cluster.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rtmpose.checkout import home, shared
from rtmpose.cluster.devices import agreed_precision
from rtmpose.cluster.session import ray_cluster
from rtmpose.cluster.submit import forced, job_server, not_here, point_to, run_job, run_of
from rtmpose.cluster.workers import run_workers
from rtmpose.config import Params
from rtmpose.data.stream.pixels import check_pixels
from rtmpose.descriptors import load_skeleton
from rtmpose.files import UserError, sha256_of, write_atomic
from rtmpose.fingerprint import lineage_tags
from rtmpose.models import read_weights, save_tensors
from rtmpose.models.archive import read_checkpoint
from rtmpose.precision import Chosen, refuse_emulation
from rtmpose.provenance.sources import DataSource, from_note, note
from rtmpose.targets import SimCC
from rtmpose.tracking import runs
from rtmpose.training.checkpoint import BEST, Store
from rtmpose.training.following import following
from rtmpose.training.job import (
    Job,
    build_task,
    codec_of,
    job_fingerprint,
    network,
    open_stream,
    shared_file,
    shared_mix,
    teacher_of,
    tuning_ap,
)
from rtmpose.training.loop import Run
from rtmpose.training.pictures import Pictures
from rtmpose.training.reporter import Reporter, open_run
from rtmpose.training.system_metrics import system_metrics


def run_rank(job: Job) -> None:
    """One rank's part of the run, resumed from the store."""
    import ray.train.torch

    os.environ["MLFLOW_TRACKING_URI"] = job.tracking_uri
    context = ray.train.get_context()
    hardware = job.params.hardware
    device = ray.train.torch.get_device()
    torch.set_num_threads(max(int(hardware.cpus_per_worker), 1))
    refuse_emulation(job.precision, hardware.precision, device.type == "cuda")
    meta = None if job.data is None else note(job.data)
    store, task = Store(job.store, job.token, {"run_id": job.run_id}, meta), build_task(job)
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
        precision=job.precision,
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
    chosen: Chosen | None = None,
    teacher: Path | None = None,
    fresh: bool | None = None,
    data: Sequence[DataSource] | None = None,
) -> dict[str, Any]:
    """Train `stage` ("pretrain", "finetune" or "head") and write its `weights` (EMA, best AP) and `receipt`,
    both with the `data` that will be in the weights, if it is given; `tags` go to MLflow, too. `chosen` is
    what to compute in, None: what `params.hardware.precision` means on the machines that train. `teacher`:
    weights of a network that guides it. `fresh`: whether to start anew, None: as DVC or whoever submitted the
    job says.

    A run that was killed goes on from its last checkpoint. A finished run is handed over again, where DVC has
    lost its outputs. Other parameters, other data, other code or `dvc repro -f` start a new run.
    """
    check_pixels(params)
    if (note := unmirrored(stage, params)) is not None:
        print(note, flush=True)
    if teacher is not None:
        teacher_of(params, teacher)  # a wrong one is refused before anything starts
    root, fresh = shared(params.hardware.storage), forced() if fresh is None else fresh
    task = root / f"{stage}-{job_fingerprint(stage, params, mix, init, tau, sigma, teacher=teacher)}"
    server = job_server(params.hardware)
    if server is not None:
        return run_elsewhere(stage, server, task, fresh, weights, receipt, data)
    chosen = chosen or agreed_precision(stage, params)
    name = job_fingerprint(stage, params, mix, init, tau, sigma, chosen.precision, teacher)
    store = Store.open(root, f"{stage}-{name}", fresh=fresh)
    point_to(task, store.folder)
    done = store.finished()
    if done is not None:
        print(f"{stage}: run {name} is finished already; its weights are handed over again", flush=True)
        return hand_over(store, done, weights, receipt, data)
    state = store.load() or {}
    print_start(stage, params, name, state, init)
    lineage = lineage_tags(Path("dvc.lock"), mix, name)
    lineage |= {"stage": stage, "precision": chosen.precision}
    run_id = open_run(store.folder, stage, lineage | dict(tags or {}), state.get("run_id"))
    facts = {"tau": tau, "sigma": sigma} | chosen.facts()
    runs.log_params_flat(run_id, params.model_dump(mode="json") | facts)
    start = init and shared_file(init, store.folder)
    uri = runs.tracking_uri()
    job = Job(
        stage, with_own_cache(params), chosen.precision, shared_mix(mix), store.folder, store.token, run_id,
        uri, start, tau, sigma, teacher and shared_file(teacher, store.folder, "teacher.pt"),
        None if data is None else tuple(data),
    )  # fmt: skip
    with runs.finished(run_id):
        launch(job)
    return hand_over(store, conclusion(job, store, name) | chosen.facts(), weights, receipt, data)


def print_start(stage: str, params: Params, name: str, state: Mapping[str, Any], init: Path | None) -> None:
    """Say from where a run goes on, or which weights it starts from; of one from nothing, nothing."""
    if state:
        print(f"{stage}: resuming run {name} from step {state['step']}", flush=True)
    elif init is not None:
        fits = network(stage, params, init)[1]
        print(f"{stage}: starting from {init}. {fits or 'Its head is new.'}", flush=True)


def unmirrored(stage: str, params: Params) -> str | None:
    """The line that says, where a recipe mirrors images whose points know no left and right, that none is."""
    train = params.pretrain if stage == "pretrain" else params.finetune
    skeleton = load_skeleton(train.skeleton)
    if max(train.strong.flip, train.weak.flip) == 0 or skeleton.mirrors:
        return None
    why = f"{skeleton.name} has no flip_pairs, and no `mirror: true`"
    return f"{stage}: nothing is mirrored, although flip is above 0: {why}"


def with_own_cache(params: Params) -> Params:
    """The same with the whole path of the cache: Ray Train's workers have a current folder of their own."""
    hardware = params.hardware.model_copy(update={"cache": str(home(params.hardware.cache))})
    return params.model_copy(update={"hardware": hardware})


def run_elsewhere(
    stage: str,
    server: str,
    task: Path,
    fresh: bool,
    weights: Path,
    receipt: Path,
    data: Sequence[DataSource] | None = None,
) -> dict[str, Any]:
    """Have the stage run as a job of a cluster, which writes the store of the run of `task`, and hand its
    result over here.
    """
    store = Store(run_of(task), token="")  # the job's: read, never taken over
    if fresh or store.finished() is None:
        run_job("finetune" if stage == "head" else stage, server, task.name, fresh=fresh)
        store = Store(run_of(task), token="")
    done = store.finished()
    if done is None:
        raise not_here(store.folder, "run")
    return hand_over(store, done, weights, receipt, data)


def conclusion(job: Job, store: Store, name: str) -> dict[str, Any]:
    """The receipt of a run that came to its end: where its store is, what it cost, what came out."""
    state = store.load()
    assert state is not None, "a run that ended has a checkpoint"
    position = state["position"]
    if not position["best_sha256"]:
        raise UserError(
            f"{store.folder}: AP on the tuning split was never a number, so that no weights can be chosen; "
            f"lower {job.stage}.optim.lr, or see what `rtmpose dataset check` says of the data"
        )
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
        "teacher": str(job.teacher) if job.teacher else None,
        "teacher_sha256": sha256_of(job.teacher) if job.teacher else None,
    }


def hand_over(
    store: Store,
    content: dict[str, Any],
    weights: Path,
    receipt: Path,
    data: Sequence[DataSource] | None = None,
) -> dict[str, Any]:
    """Copy the best weights out of the store, write the receipt, and mark the store as finished last of
    all. Both name the `data` as it is called now, whatever a finished run was told.
    """
    best = store.folder / BEST
    if data is not None:
        content = content | {"data": [source.model_dump() for source in data]}
    if data is None or from_note(read_checkpoint(best), best) == tuple(data):
        write_atomic(weights, best.read_bytes())
    else:
        save_tensors(weights, {"meta": note(data), "state_dict": read_weights(best)})
    write_atomic(receipt, json.dumps(content, indent=1) + "\n")
    store.finish(content)
    return content


def untrained(
    params: Params, init: Path | None, weights: Path, receipt: Path, data: Sequence[DataSource] = ()
) -> dict[str, Any]:
    """What `pretrain.enabled: false` hands on: a network with `init`'s backbone, or as initialised; `data` is
    what is in `init`.
    """
    net, mismatch = network("pretrain", params, init)
    if mismatch is not None:
        print(f"pretrain: the backbone starts from {init}. {mismatch}", flush=True)
    sha256 = save_tensors(weights, {"meta": note(data), "state_dict": net.state_dict()})
    content: dict[str, Any] = {"stage": "pretrain", "store": None, "sha256": sha256}
    content |= {"init": str(init) if init else None, "data": [source.model_dump() for source in data]}
    write_atomic(receipt, json.dumps(content, indent=1) + "\n")
    return content
