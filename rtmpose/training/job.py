"""What is trained: the network, codec, loss and data of a job, how it is judged, and what its result
depends on.

Nothing here starts anything. `launch.py` runs a job under Ray Train, `search/` and `ladder/` run many.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from rtmpose.checkout import home, in_job, shared
from rtmpose.config import Params, Precision, TrainParams
from rtmpose.data.shards.cache import ShardCache
from rtmpose.data.stream.mix import Mix, mix_digest, read_mix
from rtmpose.data.stream.stream import TrainStream
from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.evaluator import Evaluator, Results
from rtmpose.files import UserError, sha256_of, write_atomic
from rtmpose.fingerprint import code_version, fingerprint
from rtmpose.models import Mismatch, PoseNet, build_model, load_exactly, load_weights, read_weights
from rtmpose.provenance.sources import NOTE, DataSource
from rtmpose.targets import SimCC, UDPHeatmap
from rtmpose.training.distill.task import distilled_task, head_task
from rtmpose.training.distill.teacher import Teacher, load_teacher
from rtmpose.training.update import Task, heatmap_task, simcc_task

# The code that a trained network depends on, below the package. The stages of dvc.yaml name the same folders
# and files. Of data/shards and data/raw only what reads: an edit of what writes shards trains nothing anew.
TRAINING_CODE = (
    "training",
    "models",
    "targets",
    "losses.py",
    "oks.py",
    "geometry.py",
    "skeleton.py",
    "topdown.py",
    "data/stream",
    "data/shards/sample.py",
    "data/shards/manifest.py",
    "data/shards/crops.py",
    "data/raw/categories.py",
    "data/raw/coco_form.py",
    "data/raw/exif.py",
    "data/raw/fields.py",
    "data/raw/photograph.py",
    "data/raw/stacks/metaimage.py",
    "evaluation",
)
# Of TrainParams: they change nothing of a result.
FIELDS_WITHOUT_EFFECT = ("log_steps", "checkpoint_steps", "picture_every", "max_bad_updates")
TUNING_FIGURES = ("AP", "AP50", "AP75", "AR", "error", "mean_pose_error")


@dataclass(frozen=True)
class Job:
    """Everything a worker needs, in plain picklable values; paths are absolute.

    `teacher` guides finetuning, or the fresh head that then learns (stage "head") from the trained network.
    """

    stage: str  # "pretrain", "finetune" or "head"
    params: Params
    precision: Precision  # what `params.hardware.precision` was found to mean, for all workers
    mix: Mix
    store: Path
    token: str
    run_id: str
    tracking_uri: str
    init: Path | None
    tau: float
    sigma: tuple[float, float] | None
    teacher: Path | None = None
    data: tuple[DataSource, ...] | None = None  # what the weights will hold; None: they say nothing of it

    @property
    def train(self) -> TrainParams:
        return self.params.pretrain if self.stage == "pretrain" else self.params.finetune


def build_task(job: Job) -> Task:
    """The network, codec and loss of a job."""
    net, _ = network(job.stage, job.params, job.init)
    codec = codec_of(job.stage, job.params, job.sigma)
    if isinstance(codec, UDPHeatmap):
        return heatmap_task(net, codec)
    if job.teacher is None:
        return simcc_task(net, codec, job.tau)
    teacher, distill = teacher_of(job.params, job.teacher), job.params.finetune.distill
    if job.stage == "head":
        return head_task(net, codec, job.tau, teacher)
    assert distill is not None, "who names a teacher says what it teaches"
    return distilled_task(net, codec, job.tau, teacher, distill)


def teacher_of(params: Params, path: Path) -> Teacher:
    """The teacher at `path`; UserError where it is none for these parameters' student."""
    return load_teacher(path, load_skeleton(params.finetune.skeleton), params.input_size)


def network(stage: str, params: Params, init: Path | None) -> tuple[PoseNet, Mismatch | None]:
    """A stage's network, and which of the weights that it starts from did not fit.

    Every rank builds the same one from the seed. `init` gives the backbone, or with `finetune.init` every
    layer that fits; in the stage "head" all but the head, and then all must fit.
    """
    torch.manual_seed(params.seed)
    train, hidden = (
        (params.pretrain, params.pretrain.hidden) if stage == "pretrain" else (params.finetune, None)
    )
    points = load_skeleton(train.skeleton).num_keypoints
    net = build_model(params.model, points, params.input_size, pretrain_hidden=hidden)
    if stage == "head" and init is not None:
        fresh = copy.deepcopy(net.head.state_dict())
        load_exactly(net, init)
        net.head.load_state_dict(fresh)
        return net, None
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
    return named_weights("finetune.init", params.finetune.init) or pretrained


def named_weights(key: str, path: str | None) -> Path | None:
    """The file of weights that the parameter `key` names, absolute; UserError where it is not there."""
    found = shared(path) if path is not None else None
    if found is not None and not found.is_file():
        raise UserError(
            f"params.yaml: {key}: {found} is missing; put weights there (docs/recipes.md says which a recipe "
            "starts from), or name others, such as the file that `rtmpose weights pull "
            "rtmpose-m-body17-coco.pth` prints; null starts without"
        )
    return found


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
    """What chooses checkpoints and τ, σ: AP on the tuning split with ground-truth boxes and no flip, and the
    mean keypoint error beside that of the mean pose. `seen` is called with the predictions.
    """

    params, skeleton = job.params, load_skeleton(job.params.skeleton)

    def evaluate(model: nn.Module) -> dict[str, float]:
        judge = Evaluator(model, task.codec, skeleton, params.evaluate, job.precision, device).without_flip()
        figures, results, _ = judge.shards(job.mix.tune)
        if seen is not None:
            seen(results)
        return {key: figures[key] for key in TUNING_FIGURES if key in figures}

    return evaluate


def job_fingerprint(
    stage: str,
    params: Params,
    mix: Path,
    init: Path | None,
    tau: float,
    sigma: object,
    precision: Precision | None = None,
    teacher: Path | None = None,
) -> str:
    """Names a run by everything that its result depends on. Worker counts, places and what is shown of a run
    are not part of it.

    `precision` is what the run computes in. None stands for what `params.hardware.precision` says, where the
    machines that train are not known yet: that names the task, under which a submitter looks for its run.
    """
    train = params.pretrain if stage == "pretrain" else params.finetune
    return fingerprint(
        stage=stage,
        train=train.model_dump(exclude={*FIELDS_WITHOUT_EFFECT, "distill"}),
        distill=_distillation(params, teacher) if teacher else None,
        model=params.model.model_dump(),
        seed=params.seed,
        input_size=params.input_size,
        stream=params.stream.model_dump(),
        # Sigmas count only where AP chooses the weights, in the skeleton that is evaluated.
        skeletons=[load_skeleton(train.skeleton).layout(), load_skeleton(params.skeleton).to_dict()],
        precision=precision or params.hardware.precision,
        thresholds=(params.evaluate.keypoint_threshold, params.evaluate.nms_threshold),
        mix=mix_digest(mix),
        init=weights_digest(init) if init else None,
        tau=tau,
        sigma=sigma,
        code=code_version(TRAINING_CODE),
    )


def _distillation(params: Params, teacher: Path) -> tuple[float | str, ...]:
    """What a teacher does to a run, and which it is."""
    distill = params.finetune.distill
    weights = () if distill is None else (distill.feature, distill.logit)
    return *weights, weights_digest(teacher)


def weights_digest(path: Path) -> str:
    """Hex SHA-256 of a file of weights; of one that notes its data, of the weights alone: other words for the
    terms of the same data train nothing anew.
    """
    if NOTE.encode() not in path.read_bytes():
        return sha256_of(path)
    digest = hashlib.sha256()
    for name, value in sorted(read_weights(path).items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def shared_mix(path: Path) -> Mix:
    """The mix, its folders as every worker sees them."""
    mix = read_mix(path)
    train = tuple(replace(entry, dir=_seen_by_all(entry.dir)) for entry in mix.train)
    return Mix(
        train, _seen_by_all(mix.tune), {name: _seen_by_all(folder) for name, folder in mix.val.items()}
    )


def _seen_by_all(path: Path) -> Path:
    """A folder below the current one; inside a job where all machines see it, unless the job carries it."""
    here = Path.cwd()
    if not in_job() or path.exists() or not path.is_relative_to(here):
        return path
    return shared(path.relative_to(here))


def shared_file(path: Path, folder: Path, name: str = "init.pt") -> Path:
    """A file, absolute; inside a job a copy of it, `name`, in the store's folder, since a job's own files may
    lie elsewhere on each machine.
    """
    return write_atomic(folder / name, path.read_bytes()) if in_job() else path.resolve()
