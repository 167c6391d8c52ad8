"""The whole of `params.yaml`, and what must fit together in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator

from rtmpose.config.base import Strict, parse
from rtmpose.config.data import DatasetParams, ShardParams, StreamParams
from rtmpose.config.hardware import BF16_LEAST_SIDE, HardwareParams
from rtmpose.config.metrics import Pooled
from rtmpose.config.promotion import PromotionParams
from rtmpose.config.search import LadderParams, SearchParams
from rtmpose.config.training import FinetuneParams, ModelParams, PretrainParams
from rtmpose.files import UserError, read_yaml

OWN_NETWORK = {"backbone": "cspnext", "head": "simcc"}  # what the stages after `evaluate` are made for


class EvaluateParams(Strict):
    """How AP is measured: flip test, rescoring and OKS NMS as the reference does.

    With `detections` every set whose raw folder has a detector file is evaluated on its boxes too. `pooled`
    is what all sets are judged by together; null: nothing.
    """

    batch_size: int = Field(64, ge=1)
    flip_test: bool = True
    boxes: list[Literal["ground_truth", "detections"]] = Field(["ground_truth"], min_length=1)
    keypoint_threshold: float = Field(0.2, ge=0)
    nms_threshold: float = Field(0.9, gt=0, le=1)
    max_unpredicted: float = Field(
        0.01, ge=0, le=1, description="share of persons for whom no pose can be predicted, for want of a box"
    )
    pooled: Pooled | None = None


class QuantizeParams(Strict):
    """How int8 files are made: crops to calibrate on and further ones to measure sensitivity on, what
    calibration takes for the range of an activation, and how long sensitivity may take.

    `finetune_epochs` of quantisation-aware finetuning follow where the gate refuses int8 without; 0: none.
    """

    crops: int = Field(128, ge=32)
    probe_crops: int = Field(64, ge=1)
    method: Literal["minmax", "percentile", "entropy"] = "minmax"
    sensitivity_seconds: float = Field(30.0, ge=0)
    finetune_epochs: int = Field(0, ge=0)


class RegisterParams(Strict):
    """The registered model's name in MLflow."""

    name: str


class Params(Strict):
    """The whole of `params.yaml`."""

    recipe: str
    seed: int = Field(21, ge=0)
    skeleton: str = "coco17"
    input_size: tuple[PositiveInt, PositiveInt]
    datasets: dict[str, DatasetParams]
    targets: list[str] = Field(min_length=1)
    shard: ShardParams
    stream: StreamParams
    model: ModelParams
    pretrain: PretrainParams
    search: SearchParams
    finetune: FinetuneParams
    evaluate: EvaluateParams
    quantize: QuantizeParams = QuantizeParams()
    register_as: RegisterParams
    promotion: PromotionParams = PromotionParams()
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
            and min(self.input_size) < BF16_LEAST_SIDE
        ):
            raise ValueError(
                f"input_size {list(self.input_size)} needs hardware.precision fp32 or auto on a CPU (bf16 "
                f"from {BF16_LEAST_SIDE} px on)"
            )
        for stage in ("pretrain", "finetune"):
            if getattr(self, stage).batch_size < self.hardware.workers:
                raise ValueError(
                    f"{stage}.batch_size is less than hardware.workers {self.hardware.workers}: it is global"
                )
        if unknown := set(self.promotion.targets or ()) - set(self.targets):
            raise ValueError(
                f"promotion.targets: {min(unknown)} is not among targets, where files are measured; add it"
            )
        if self.finetune.distill is not None and self.model.head != "simcc":
            raise ValueError(
                f"finetune.distill needs model.head simcc, whose vectors it teaches, not {self.model.head}; "
                "set it to null"
            )
        if self.finetune.skeleton != self.skeleton:
            raise ValueError(
                f"finetune.skeleton {self.finetune.skeleton} must be skeleton {self.skeleton}: it is "
                "evaluated"
            )
        return self

    def dataset(self, key: str) -> DatasetParams:
        if key not in self.datasets:
            raise UserError(f"params.yaml: datasets has no '{key}', only {', '.join(self.datasets)}")
        return self.datasets[key]


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check `params.yaml`."""
    return parse(Params, read_yaml(Path(path)), Path(path))


def with_values(params: Params, values: Mapping[str, Any]) -> Params:
    """`params` with other values at the given paths, checked as a whole; ValueError with a
    one-line reason.
    """
    content = params.model_dump()
    for path, value in values.items():
        *parents, last = path.split(".")
        group = content
        for parent in parents:
            group = group[parent] if isinstance(group.get(parent), dict) else {}
        if last not in group:
            raise ValueError(f"{path}: no such parameter")
        group[last] = value
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def refuse_baseline(params: Params) -> None:
    """UserError for a baseline's network: it is trained and evaluated, but search, export and everything
    after them are RTMPose's.
    """
    for name, ours in OWN_NETWORK.items():
        if (value := getattr(params.model, name)) != ours:
            raise UserError(
                f"params.yaml: model.{name}: {value} is a baseline, which is trained and evaluated, but "
                f"neither searched for nor exported; set {ours}, or stop at the stage evaluate"
            )


def is_baseline(params: Params) -> bool:
    """Whether `refuse_baseline` refuses the network."""
    return any(getattr(params.model, name) != ours for name, ours in OWN_NETWORK.items())
