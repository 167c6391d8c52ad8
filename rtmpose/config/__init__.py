"""Typed parameters, and the few habits every process of the project shares.

`params.yaml` is read once into `Params`; an unknown key, a wrong type or an impossible value is one
`UserError` that names the file and the key. Nothing here imports torch, so that the command line stays quick.
"""

from __future__ import annotations

from rtmpose.config.base import Record, Strict, parse, read_record
from rtmpose.config.data import (
    AugmentConfig,
    DatasetParams,
    PixelTransform,
    Reach,
    RenderParams,
    ShardParams,
    StreamParams,
)
from rtmpose.config.environment import MOST_PIXELS, setup_environment
from rtmpose.config.hardware import HardwareParams, Precision, PrecisionChoice
from rtmpose.config.metrics import Metric, MetricOptions, Pooled, check_metrics
from rtmpose.config.params import (
    EvaluateParams,
    Params,
    QuantizeParams,
    RegisterParams,
    is_baseline,
    load_params,
    refuse_baseline,
    with_values,
)
from rtmpose.config.promotion import PromotionParams
from rtmpose.config.search import LadderParams, SearchParams, SearchRange
from rtmpose.config.training import (
    Activation,
    Architecture,
    Backbone,
    DistillParams,
    FinetuneParams,
    Head,
    ModelParams,
    Neck,
    OptimParams,
    PretrainParams,
    Size,
    TrainParams,
)

__all__ = [
    "MOST_PIXELS",
    "Activation",
    "Architecture",
    "AugmentConfig",
    "Backbone",
    "DatasetParams",
    "DistillParams",
    "EvaluateParams",
    "FinetuneParams",
    "HardwareParams",
    "Head",
    "LadderParams",
    "Metric",
    "MetricOptions",
    "ModelParams",
    "Neck",
    "OptimParams",
    "Params",
    "PixelTransform",
    "Pooled",
    "Precision",
    "PrecisionChoice",
    "PretrainParams",
    "PromotionParams",
    "QuantizeParams",
    "Reach",
    "Record",
    "RegisterParams",
    "RenderParams",
    "SearchParams",
    "SearchRange",
    "ShardParams",
    "Size",
    "StreamParams",
    "Strict",
    "TrainParams",
    "check_metrics",
    "is_baseline",
    "load_params",
    "parse",
    "read_record",
    "refuse_baseline",
    "setup_environment",
    "with_values",
]
