"""Parameters of the network and of one training run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rtmpose.config.base import Strict
from rtmpose.config.data import AugmentConfig

Size = Literal["t", "s", "m", "l", "x"]
Backbone = Literal["cspnext", "resnet50", "hrnet_w32", "hrnet_w48"]
Head = Literal["simcc", "simcc_plain", "simcc_deconv", "heatmap"]
Neck = Literal["rtmw"]
Activation = Literal["silu", "hardswish"]


class Architecture(Strict):
    """The network: CSPNeXt size and the SimCC head's design (RTMPose Tables 2 and 5).

    ResNet-50 and the other heads are the baselines of RTMPose's Table 1: heatmaps, SimCC on maps that
    deconvolutions (`hidden` channels) have enlarged, and SimCC on maps as the backbone makes them. HRNet with
    heatmaps is the baseline for large images. They have no `size`. `neck: rtmw` is RTMW's pyramid and
    two-level head, for whole bodies (arXiv 2407.08634). `activation` is what follows the convolutions of
    CSPNeXt and its neck: SiLU as published, or hard-swish (arXiv 1905.02244, section 5.2), which CPUs compute
    faster.
    """

    size: Size
    backbone: Backbone = "cspnext"
    head: Head = "simcc"
    kernel: int = Field(7, ge=1)
    hidden: int = Field(256, ge=8)
    gau: bool = True
    neck: Neck | None = None
    activation: Activation = "silu"


class ModelParams(Architecture):
    """The network, and how its training holds its weights back: by decay, and by an average (EMA)."""

    weight_decay: float = Field(..., ge=0)
    ema_momentum: float = Field(..., ge=0, lt=1, description="0 turns EMA off")


class OptimParams(Strict):
    """AdamW with linear warm-up, a flat part (`flat`, a share of the epochs) and a cosine tail (RTMPose
    section 3.3).

    `clip_grad` is the largest norm of the gradient of the loss per sample. The reference's values hold for a
    sum over the 256 samples of a device: its 35 is 35 / 256 = 0.137 here (see `rtmpose.training.optim`).
    `schedule: step` is what heatmap and SimCC baselines were published with: a tenth of the rate after 170 /
    210 of the run, a hundredth after 200 / 210.
    """

    lr: float = Field(4e-3, gt=0)
    warmup_steps: int = Field(1000, ge=0)
    warmup_start: float = Field(1e-5, gt=0, le=1)
    final_lr: float = Field(0.05, ge=0, le=1)
    flat: float = Field(0.5, ge=0, lt=1, description="share of the epochs before the cosine begins")
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


class DistillParams(Strict):
    """Distillation in the two stages of DWPose (arXiv 2307.15880, section 3).

    In the first, a trained `teacher` guides finetuning: the student's last map is drawn to the teacher's, and
    its SimCC vectors to the teacher's, with weights that fall linearly over the epochs. In the second, a
    fresh head on the trained and frozen backbone learns from the trained network itself. The weights are
    those of the paper, whose configurations train with 64 rows on each device.
    """

    teacher: str | None = Field(
        None,
        description="weights of a trained SimCC network with the same points and input_size; null: labels "
        "alone, and the second stage",
    )
    feature: float = Field(5e-5, ge=0, description="α, the weight of the feature loss")
    logit: float = Field(0.1, ge=0, description="β, the weight of the loss of the SimCC vectors")
    head_share: float = Field(
        0.2, ge=0, le=1, description="epochs of the second stage, as a share of `epochs`; 0: no second stage"
    )

    @model_validator(mode="after")
    def _does_something(self) -> DistillParams:
        if self.teacher is None and not self.head_share:
            raise ValueError("distill has no teacher and no head_share: set one of them, or distill to null")
        if self.teacher is not None and not (self.feature or self.logit):
            raise ValueError("distill.feature and distill.logit are 0: the teacher would have no say")
        return self


class FinetuneParams(TrainParams):
    """SimCC finetuning. τ and σ come from the search; these are what `search.enabled: false` hands on."""

    init: str | None = Field(
        None,
        description="weights of a whole network to start from, head included where it fits; null: the "
        "pretrained backbone",
    )
    tau: float = Field(0.1, gt=0)
    sigma: tuple[float, float] | None = Field(
        None,
        description="null: √(bins / 16) per axis, RTMPose section 3.3.1; with model.head heatmap: its first "
        "value, in cells",
    )
    distill: DistillParams | None = Field(None, description="what guides it besides the labels")

    @model_validator(mode="after")
    def _sigma_positive(self) -> FinetuneParams:
        if self.sigma is not None and min(self.sigma) <= 0:
            raise ValueError(f"sigma must be > 0 on both axes, not {list(self.sigma)}")
        return self
