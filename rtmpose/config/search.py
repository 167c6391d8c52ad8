"""Parameters of the hyperparameter search and of the ladder of ablations."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from rtmpose.config.base import Strict


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
        description="runs of the reference point: their range is the noise; a trial that leads runs under as "
        "many",
    )
    space: dict[str, SearchRange] = Field(..., min_length=1)
    concurrent: int = Field(2, ge=1)
    workers: int = Field(
        1, ge=1, description="of one trial: more than one share each batch, where it does not fit one GPU"
    )


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
