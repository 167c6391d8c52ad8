"""Typed parameters, and the few habits every process of the project shares.

`params.yaml` is read once into `Params`; an unknown key, a wrong type or an impossible value is one
`UserError` that names the file and the key. Nothing here imports torch, so that the command line stays quick.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rtmpose.files import UserError, read_yaml

Size = Literal["t", "s", "m", "l", "x"]
Precision = Literal["fp32", "bf16"]
Backbone = Literal["cspnext", "resnet50"]
Head = Literal["simcc", "simcc_plain", "simcc_deconv", "heatmap"]
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of every parameter group: unknown keys are refused, values are frozen after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AugmentConfig(Strict):
    """Augmentation of one training stage (RTMPose section 3.3; the factors are the reference implementation's
    defaults).

    `shift`, `scale`, `rotate` are the half-widths of normals truncated at one sigma: share of the padded box,
    share of 1, degrees. `hue`, `saturation`, `value` are the largest gains on OpenCV's uint8 HSV. `hole` is
    the coarse-dropout probability. A value of 0 turns that part off.
    """

    flip: float = Field(0.5, ge=0, le=1)
    half_body: float = Field(0.3, ge=0, le=1)
    shift: float = Field(0.16, ge=0, le=0.5)
    shift_prob: float = Field(0.3, ge=0, le=1)
    scale: float = Field(0.4, ge=0, lt=1)
    rotate: float = Field(80.0, ge=0, le=180)
    rotate_prob: float = Field(0.6, ge=0, le=1)
    hue: int = Field(5, ge=0, le=90)
    saturation: int = Field(30, ge=0, le=255)
    value: int = Field(30, ge=0, le=255)
    blur: float = Field(0.1, ge=0, le=1)
    median_blur: float = Field(0.1, ge=0, le=1)
    hole: float = Field(1.0, ge=0, le=1)


def setup_environment() -> None:
    """Turn off every dependency's telemetry, and let OpenMP's threads sleep when they have waited a moment;
    call before importing them.

    Threads that spin for long take the cores of other processes; threads that sleep at once make a training
    step on two cores a fifth slower.
    """
    for key, value in {
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "10000",  # some ten microseconds
    }.items():
        os.environ.setdefault(key, value)


class RenderParams(Strict):
    """Mannequins to render into a dataset's raw folder: number of images per split, difficulty, size (w, h)
    px.
    """

    level: Literal["easy", "hard"] = "easy"
    images: dict[Literal["train", "val"], int]
    size: tuple[int, int] = (320, 240)
    seed: int = 1


class DatasetParams(Strict):
    """One raw dataset of a recipe: which descriptor reads it, where it lies, how often an epoch repeats it."""

    descriptor: str
    raw: str
    repeat: int = Field(1, ge=1)
    train: bool = Field(True, description="whether training shards are cut from it")
    evaluate: bool = False
    render: RenderParams | None = None


class ShardParams(Strict):
    """How crops are cut: for inputs up to `input_size` (w, h) px; `tune_share` of train images is held out
    for choices.
    """

    input_size: tuple[int, int]
    tune_share: float = Field(..., gt=0, lt=0.5)
    shard_mb: float = Field(200.0, gt=0)
    quality: int = Field(88, ge=50, le=100)
    workers: int | None = Field(None, ge=1, description="tasks at a time; null: one per core")
    url: str | None = Field(
        None, description="where training shards go instead of the disk, such as s3://bucket/prefix"
    )
    max_skipped: float = Field(
        0.01, ge=0, lt=1, description="share of persons that damaged images and annotations may cost"
    )

    @model_validator(mode="after")
    def _url_has_no_secret(self) -> ShardParams:
        if self.url is not None and ("://" not in self.url or "@" in self.url):
            raise ValueError(
                f"url {self.url} must be like s3://bucket/prefix; credentials come from the environment"
            )
        return self


class StreamParams(Strict):
    """How shards are read in training. `window` shards of a set are shuffled together; a damaged sample ends
    the run, or is skipped and counted.
    """

    window: int = Field(32, ge=1)
    on_corrupt: Literal["error", "skip"] = "error"


class ModelParams(Strict):
    """The network: CSPNeXt size and the SimCC head's design (RTMPose Tables 2 and 5).

    ResNet-50 and the other heads are the baselines of RTMPose's Table 1, which only the ladder trains:
    heatmaps, SimCC on maps that deconvolutions (`hidden` channels) have enlarged, and SimCC on maps as the
    backbone makes them.
    """

    size: Size
    backbone: Backbone = "cspnext"
    head: Head = "simcc"
    kernel: int = Field(7, ge=1)
    hidden: int = Field(256, ge=8)
    gau: bool = True
    weight_decay: float = Field(..., ge=0)
    ema_momentum: float = Field(..., ge=0, lt=1, description="0 turns EMA off")


class OptimParams(Strict):
    """AdamW with linear warm-up, a flat half and a cosine tail (RTMPose section 3.3).

    `clip_grad` is the largest norm of the gradient of the loss per sample. The reference's values hold for a
    sum over the 256 samples of a device: its 35 is 35 / 256 = 0.137 here (see `rtmpose.training.optim`).
    `schedule: step` is what heatmap and SimCC baselines were published with: a tenth of the rate after 170 /
    210 of the run, a hundredth after 200 / 210.
    """

    lr: float = Field(4e-3, gt=0)
    warmup_steps: int = Field(1000, ge=0)
    warmup_start: float = Field(1e-5, gt=0, le=1)
    final_lr: float = Field(0.05, ge=0, le=1)
    clip_grad: float | None = Field(None, gt=0)
    ema_gamma: float = Field(2000.0, gt=0)
    schedule: Literal["flat_cosine", "step"] = "flat_cosine"
    decay_norms: bool = Field(False, description="whether weight decay holds for norms and biases, too")


class TrainParams(Strict):
    """One training run. `batch_size` is global; the last `weak_epochs` use the weak augmentation.

    `accumulate` splits each worker's part of a batch into that many forward and backward passes with one
    update: less memory, and the same update but for batch norm, whose statistics are then those of each pass.
    `freeze` holds beginnings of state-dict keys (`backbone.stem`): such weights are not trained, and frozen
    batch norm keeps its statistics.
    """

    epochs: int = Field(..., ge=1)
    weak_epochs: int = Field(0, ge=0)
    batch_size: int = Field(..., ge=1)
    evaluate_every: int = Field(10, ge=1, description="epochs")
    checkpoint_steps: int | None = Field(None, ge=1, description="null: at the end of each epoch only")
    log_steps: int = Field(20, ge=1)
    picture_every: int | None = Field(
        None, ge=1, description="epochs between pictures of predictions in MLflow; null: none"
    )
    optim: OptimParams
    strong: AugmentConfig
    weak: AugmentConfig
    skeleton: str = Field(
        "coco17", description="the points the head predicts; evaluation uses the first of params.skeleton"
    )
    accumulate: int = Field(1, ge=1, description="forward and backward passes an update, on each worker")
    freeze: list[str] = Field(
        [], description="beginnings of the state-dict keys of weights that are not trained"
    )
    patience: int | None = Field(
        None, ge=1, description="epochs without better AP on the tuning split that end it"
    )
    max_bad_updates: int = Field(
        20, ge=1, description="skipped updates in a row (loss or gradient not finite) that end the run"
    )
    compile: bool = Field(
        False, description="compile the network (torch.compile): minutes at the start, faster on GPUs"
    )

    @model_validator(mode="after")
    def _stages_fit(self) -> TrainParams:
        if self.weak_epochs > self.epochs:
            raise ValueError(f"weak_epochs {self.weak_epochs} is more than epochs {self.epochs}")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate {self.accumulate} is more than batch_size {self.batch_size}")
        return self


class PretrainParams(TrainParams):
    """UDP heatmap pretraining of the backbone; `enabled: false` starts finetuning from `init` or from
    scratch.
    """

    enabled: bool = True
    sigma: float = Field(2.0, gt=0)
    hidden: int = Field(256, ge=8, description="channels of the heatmap head's deconvolutions")
    init: str | None = Field(None, description="weights whose backbone to start from, such as ImageNet's")


class FinetuneParams(TrainParams):
    """SimCC finetuning. τ and σ come from the search; these are what `search.enabled: false` hands on."""

    init: str | None = Field(
        None,
        description="weights of a whole network to start from, head included where it fits; null: the pretrained backbone",
    )
    tau: float = Field(0.1, gt=0)
    sigma: tuple[float, float] | None = Field(
        None,
        description="null: √(bins / 16) per axis, RTMPose section 3.3.1; with model.head heatmap: its first value, in cells",
    )

    @model_validator(mode="after")
    def _sigma_positive(self) -> FinetuneParams:
        if self.sigma is not None and min(self.sigma) <= 0:
            raise ValueError(f"sigma must be > 0 on both axes, not {list(self.sigma)}")
        return self


class SearchRange(Strict):
    """What one parameter may take: a number from `low` to `high` (`log`: uniform in its logarithm), or one of
    `choices`.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: list[Any] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_kind(self) -> SearchRange:
        if (self.low is None) != (self.high is None) or (self.low is None) == (self.choices is None):
            raise ValueError("write {low, high} or {low, high, log: true} or {choices: [...]}")
        if self.choices is not None and self.log:
            raise ValueError("log is for a range from low to high; remove it beside choices")
        if self.low is not None and self.high is not None:
            if not self.low < self.high:
                raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
            if self.log and self.low <= 0:
                raise ValueError(f"log needs low above 0, not {self.low:g}")
        return self


class SearchParams(Strict):
    """Ray Tune over `space`, by AP on the tuning split: paths into `params.yaml`, such as `finetune.tau`, and
    what each may take. Every parameter that a trial depends on can be searched; `sigma_factor` stands for the
    recipe's σ on both axes times a factor (1: √(bins / 16) where `finetune.sigma` is null).
    """

    enabled: bool = True
    warmup_steps: int = Field(
        100, ge=0, description="updates before the point where all trials of one network start"
    )
    trial_steps: int = Field(
        100, ge=1, description="updates of the recipe's batch size; another one sees as many samples"
    )
    reports: int = Field(2, ge=1, description="evaluations a trial, at which the scheduler may stop it")
    trials: int = Field(4, ge=0, description="besides the reference point")
    reference_seeds: int = Field(
        3,
        ge=2,
        description="runs of the reference point: their range is the noise; a trial that leads runs under as many",
    )
    space: dict[str, SearchRange] = Field(..., min_length=1)
    concurrent: int = Field(2, ge=1)
    workers: int = Field(
        1, ge=1, description="of one trial: more than one share each batch, where it does not fit one GPU"
    )


class HardwareParams(Strict):
    """Where training runs. Worker counts do not change a result; `precision` does."""

    workers: int = Field(1, ge=1)
    cpus_per_worker: float = Field(2, gt=0)
    gpus_per_worker: float = Field(0, ge=0)
    loader_workers: int = Field(1, ge=0)
    precision: Precision = "bf16"
    storage: str = Field("runs", description="where checkpoints go: a folder that every worker sees")
    max_failures: int = Field(2, ge=0)
    cache: str = Field("data/cache", description="where each machine keeps copies of remote shards")
    cache_gb: float = Field(50.0, gt=0)
    jobs: str | None = Field(
        None, description="the Ray job server that training is submitted to; null: RAY_ADDRESS, else here"
    )

    @model_validator(mode="after")
    def _jobs_is_a_url(self) -> HardwareParams:
        if self.jobs is not None and not self.jobs.startswith(("http://", "https://")):
            raise ValueError(f"jobs {self.jobs} must be a job server's URL, such as http://127.0.0.1:8265")
        return self


class EvaluateParams(Strict):
    """How AP is measured: flip test, rescoring and OKS NMS as the reference does.

    With `detections` every set whose raw folder has a detector file is evaluated on its boxes too.
    """

    batch_size: int = Field(64, ge=1)
    flip_test: bool = True
    boxes: list[Literal["ground_truth", "detections"]] = Field(["ground_truth"], min_length=1)
    keypoint_threshold: float = Field(0.2, ge=0)
    nms_threshold: float = Field(0.9, gt=0, le=1)


class LadderParams(Strict):
    """The rungs of RTMPose's Table 1 trained one after another on the recipe's data (`pipelines.ladder`).

    `samples` is the finetuning budget that stands for the paper's 210 epochs, `pretrain_samples` that of each
    pretraining; both are met to the nearest epoch, and the table says what was trained. `base` names the data
    sets of all rungs but the last.
    """

    samples: int = Field(..., ge=1)
    pretrain_samples: int = Field(..., ge=1)
    seeds: list[int] = Field(..., description="at least three, for confidence intervals")
    base: list[str] = Field(..., min_length=1)
    rungs: list[str] | None = Field(None, min_length=1, description="names of the rungs to train; null: all")
    resnet_init: str | None = Field(
        None, description="weights that ResNet-50 starts from, such as ImageNet's; null: random"
    )

    @model_validator(mode="after")
    def _seeds_differ(self) -> LadderParams:
        if len(self.seeds) < 3 or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds {self.seeds} must be at least three different numbers from 0 on")
        return self


class RegisterParams(Strict):
    """The registered model's name in MLflow."""

    name: str


class Params(Strict):
    """The whole of `params.yaml`."""

    recipe: str
    seed: int = Field(21, ge=0)
    skeleton: str = "coco17"
    input_size: tuple[int, int]
    datasets: dict[str, DatasetParams]
    targets: list[str]
    shard: ShardParams
    stream: StreamParams
    model: ModelParams
    pretrain: PretrainParams
    search: SearchParams
    finetune: FinetuneParams
    evaluate: EvaluateParams
    register_as: RegisterParams
    hardware: HardwareParams
    ladder: LadderParams | None = None

    @model_validator(mode="after")
    def _sizes_fit(self) -> Params:
        if any(side % 32 for side in self.input_size):
            raise ValueError(
                f"input_size {list(self.input_size)} must be multiples of 32 (the backbone's stride)"
            )
        if (
            self.hardware.precision == "bf16"
            and not self.hardware.gpus_per_worker
            and min(self.input_size) < 96
        ):
            # oneDNN's bf16 gradient of the head's 7x7 convolution on a map of 2 columns or rows is not
            # initialised.
            raise ValueError(
                f"input_size {list(self.input_size)} needs hardware.precision fp32 on a CPU (bf16 from 96 px on)"
            )
        for stage in ("pretrain", "finetune"):
            if getattr(self, stage).batch_size < self.hardware.workers:
                raise ValueError(
                    f"{stage}.batch_size is less than hardware.workers {self.hardware.workers}: it is global"
                )
        if self.finetune.skeleton != self.skeleton:
            raise ValueError(
                f"finetune.skeleton {self.finetune.skeleton} must be skeleton {self.skeleton}: it is evaluated"
            )
        return self

    def dataset(self, key: str) -> DatasetParams:
        if key not in self.datasets:
            raise UserError(f"params.yaml: datasets has no '{key}', only {', '.join(self.datasets)}")
        return self.datasets[key]


def parse(model: type[Model], content: Any, path: Path) -> Model:
    """Validate `content` read from `path`; the first problem becomes one line naming file, key and reason."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top)"
        reason = (
            "unknown key; remove it or correct its spelling"
            if first["type"] == "extra_forbidden"
            else first["msg"]
        )
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UserError(f"{path}: {key}: {reason}{more}") from None


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check `params.yaml`."""
    return parse(Params, read_yaml(Path(path)), Path(path))
