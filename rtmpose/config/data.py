"""Parameters of data: raw sets, rendering, shards, the stream, augmentation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from rtmpose.config.base import Strict


class PixelTransform(BaseModel):
    """A transform of the pixels alone, with probability `p`: the `name` of a pixel transform of the package
    Albumentations, and as further keys any of its arguments. `rtmpose.data.stream.pixels` checks them.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    p: float = Field(..., ge=0, le=1)


class AugmentConfig(Strict):
    """Augmentation of one training stage (RTMPose section 3.3; the factors are the reference implementation's
    defaults, which has two pixel transforms besides: see `conf/recipe/published.yaml`).

    `shift`, `scale`, `rotate` are the half-widths of normals truncated at one sigma: share of the padded box,
    share of 1, degrees. `hue`, `saturation`, `value` are the largest gains on OpenCV's uint8 HSV. `pixels`
    happen in their order, each by a coin of its own. `hole` is the coarse-dropout probability. A value of 0,
    or an empty list, turns that part off.
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
    pixels: tuple[PixelTransform, ...] = ()
    hole: float = Field(1.0, ge=0, le=1)


class RenderParams(Strict):
    """Mannequins, or radiographs, to render into a dataset's raw folder: number of images per split,
    difficulty (of mannequins), size (w, h) px.
    """

    level: Literal["easy", "hard"] = "easy"
    images: dict[Literal["train", "val"], NonNegativeInt]
    size: tuple[PositiveInt, PositiveInt] = (320, 240)
    seed: NonNegativeInt = 1


class DatasetParams(Strict):
    """One raw dataset of a recipe: which descriptor reads it, where it lies, how often an epoch
    repeats it.
    """

    descriptor: str
    raw: str
    repeat: int = Field(1, ge=1)
    train: bool = Field(True, description="whether training shards are cut from it")
    evaluate: bool = False
    render: RenderParams | None = None


class Reach(Strict):
    """The strongest box jitter that crops are cut for, as `AugmentConfig` counts it. A wider reach makes
    larger crops.
    """

    shift: float = Field(0.16, ge=0, le=0.5)
    scale: float = Field(0.4, ge=0, lt=1)
    rotate: float = Field(80.0, ge=0, le=180)


class ShardParams(Strict):
    """How crops are cut: for inputs up to `input_size` (w, h) px and augmentation up to `reach`; `tune_share`
    of train images is held out for choices.
    """

    input_size: tuple[PositiveInt, PositiveInt]
    tune_share: float = Field(..., gt=0, lt=0.5)
    shard_mb: float = Field(200.0, gt=0)
    quality: int = Field(88, ge=50, le=100)
    reach: Reach = Reach()
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
