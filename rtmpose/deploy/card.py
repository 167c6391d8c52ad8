"""What an exported file says about itself: everything needed to prepare its input, read its output and
rebuild its network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveInt, field_validator, model_validator

from rtmpose.config import Architecture, Strict, parse
from rtmpose.files import UserError
from rtmpose.fingerprint import git_commit
from rtmpose.provenance.sources import DataSource

if TYPE_CHECKING:
    from rtmpose.models import PoseNet
    from rtmpose.targets import Codec

PREFIX = "rtmpose."
SIMCC_OUTPUTS, HEATMAP_OUTPUTS = ("simcc_x", "simcc_y"), ("heatmaps",)


GREY = 1e6  # far beyond any grey level


def own_version() -> str:
    """Of this package; `0+unknown` for a checkout that is not installed."""
    try:
        return version("rtmpose")
    except PackageNotFoundError:
        return "0+unknown"


class Confidence(Strict):
    """How a raw score becomes a probability: 1 / (1 + exp(-(slope · score + intercept))).

    It is the probability that a point lies within half an OKS standard deviation of where a person would have
    marked it (`rtmpose.evaluation.confidence`), for scores without flip test.
    """

    slope: float = Field(ge=0)
    intercept: float


class ModelCard(Architecture):
    """Metadata of an exported model, stored as JSON strings under `rtmpose.<field>` in the ONNX file.

    The architecture, input_size (w, h) px, the skeleton and the names of its points, mean and std of RGB in
    0..255, SimCC's bins per pixel (None: the outputs are heatmaps), the precision it was trained in (None:
    not said), and what exported it. Then: SimCC's σ in bins, the MLflow run that trained it, the data, the
    precision of this file, how it was quantised and to how many bits of the weights (for ONNX Runtime; else
    not said), what was measured of it (parity with PyTorch, AP, by name),
    and how its scores become probabilities. Files from before a field with a default was introduced have that
    default.
    """

    input_size: tuple[PositiveInt, PositiveInt]
    skeleton: str
    keypoint_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    split_ratio: float | None
    git_commit: str
    version: str
    training_precision: str | None = None
    sigma: tuple[float, float] | None = None
    training_run: str | None = None
    data: tuple[DataSource, ...] = ()
    precision: str = "fp32"
    quantization: str | None = None
    weight_bits: PositiveInt | None = None
    measured: dict[str, dict[str, float]] = Field(default_factory=dict)
    confidence: Confidence | None = None

    @field_validator("mean", "std")
    @classmethod
    def _finite(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(math.isfinite(number) and abs(number) < GREY for number in value):
            raise ValueError(f"{list(value)} must be finite grey levels")
        return value

    @model_validator(mode="after")
    def _fits_itself(self) -> ModelCard:
        if min(self.std) <= 0:
            raise ValueError(f"std {list(self.std)} must be above 0")
        if not self.keypoint_names or len(set(self.keypoint_names)) < len(self.keypoint_names):
            raise ValueError(f"keypoint_names {list(self.keypoint_names)} must be different names")
        if (self.split_ratio is None) != (self.head == "heatmap"):
            raise ValueError(f"split_ratio {self.split_ratio} does not fit head {self.head}")
        if self.split_ratio is not None and not 0 < self.split_ratio < math.inf:
            raise ValueError(f"split_ratio {self.split_ratio} must be above 0")
        return self

    @classmethod
    def of(
        cls,
        model: Architecture,
        input_size: tuple[int, int],
        skeleton: str,
        *,
        training_precision: str | None = None,
    ) -> ModelCard:
        """The card of a network of this code: of its architecture, its input (w, h) px, and the data set in
        datasets/ (or the descriptor file) whose points it has.
        """
        from rtmpose.descriptors import load_skeleton
        from rtmpose.models import MEAN, STD
        from rtmpose.targets import SimCC

        return cls(
            **model.model_dump(include=set(Architecture.model_fields)),
            input_size=input_size,
            skeleton=skeleton,
            keypoint_names=load_skeleton(skeleton).names,
            mean=MEAN,
            std=STD,
            split_ratio=None if model.head == "heatmap" else SimCC(input_size).split_ratio,
            git_commit=git_commit(),
            version=own_version(),
            training_precision=training_precision,
        )

    def with_more(self, **fields: Any) -> ModelCard:
        """The same card with these fields, checked like any others."""
        return type(self).model_validate(self.model_dump() | fields)

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], path: Path) -> ModelCard:
        """Read the card back from the metadata of the file `path`; UserError when it is not one of ours, or
        holds what no card says.
        """
        values: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            if (text := properties.get(PREFIX + name)) is not None:
                try:
                    values[name] = json.loads(text)
                except (ValueError, RecursionError):
                    raise UserError(
                        f"{path}: metadata '{PREFIX}{name}' is not JSON; export the model again"
                    ) from None
            elif field.is_required():
                raise UserError(
                    f"{path}: metadata has no '{PREFIX}{name}'; export the model again with this product"
                )
        return parse(cls, values, Path(f"{path}: metadata"))

    def properties(self) -> dict[str, str]:
        """The card as ONNX metadata properties."""
        return {PREFIX + key: json.dumps(value) for key, value in self.model_dump(mode="json").items()}

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the file's outputs, in their order."""
        return HEATMAP_OUTPUTS if self.split_ratio is None else SIMCC_OUTPUTS

    def shapes(self, batch: int) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
        """The shapes of the network's input (N, 3, H, W) and of its outputs in their order."""
        (width, height), points = self.input_size, len(self.keypoint_names)
        image = (batch, 3, height, width)
        if self.split_ratio is None:
            return image, ((batch, points, height // 4, width // 4),)
        sides = (round(width * self.split_ratio), round(height * self.split_ratio))
        return image, tuple((batch, points, side) for side in sides)

    def refuse_unlike(self, shapes: Mapping[str, Sequence[Any]], path: Path) -> None:
        """UserError where the file's inputs and outputs (shapes by name) are not those that this card
        describes: it is the card of another model.
        """
        image, outputs = self.shapes(batch=1)
        expected = {"input": list(image[1:])}
        expected |= {name: list(shape[1:]) for name, shape in zip(self.outputs, outputs, strict=True)}
        for name, shape in expected.items():
            found = list(shapes.get(name, ()))[1:]  # without the batch
            if found != shape:
                raise UserError(
                    f"{path}: '{name}' is {_times(found)}, by its metadata {_times(shape)}: it is the "
                    "metadata of another model; export the model again"
                )

    def codec(self) -> Codec:
        """How the outputs become points."""
        from rtmpose.targets import SimCC, UDPHeatmap

        if self.split_ratio is None:
            return UDPHeatmap(self.input_size)
        return SimCC(self.input_size, split_ratio=self.split_ratio)

    def network(self) -> PoseNet:
        """The network, with fresh weights, in evaluation mode."""
        from rtmpose.models import build_model

        return build_model(self, len(self.keypoint_names), self.input_size).eval()


def _times(sides: Sequence[Any]) -> str:
    return "x".join(map(str, sides)) if sides else "not there"
