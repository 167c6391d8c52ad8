"""What the endpoint answers. These classes are its OpenAPI document, too."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

Point = tuple[float, float]


class Answer(BaseModel):
    """Any answer; nothing else is in it."""

    model_config = ConfigDict(extra="forbid")


class Fault(Answer):
    """Why there is no answer."""

    error: str = Field(description="One line: what is wrong, and what to do.")


class PersonAnswer(Answer):
    """One person; the lists have one entry for each of the model's points, in the order of `names`."""

    box: tuple[float, float, float, float] = Field(description="x, y, width, height in px")
    box_score: float = Field(description="The detector's score; 1 for a box that was given.")
    identity: int | None = Field(description="The same for the same person in all frames of a video.")
    keypoints: list[Point | None] = Field(
        description="x, y in px; null where the confidence is below `sure`."
    )
    scores: list[float] = Field(description="The model's raw scores.")
    confidence: list[float] = Field(description="Calibrated where the model is, see /v1/model: 0 to 1.")


class ImageTimes(Answer):
    """Where an image's time went, in ms."""

    waiting: float = Field(description="until its turn came")
    decode: float
    detection: float | None = Field(description="null where boxes were given, or without a detector")
    pose: float


class ImageAnswer(Answer):
    """The people of one picture, upright as viewers show it."""

    names: list[str] = Field(description="The names of the points.")
    size: tuple[int, int] = Field(description="The picture's width and height in px, its EXIF turn done.")
    people: list[PersonAnswer]
    ms: ImageTimes


class FrameAnswer(Answer):
    """The people of one frame."""

    index: int = Field(description="Counts all frames from 0; one that could not be decoded is missing.")
    time: float = Field(description="The frame's time stamp in s.")
    people: list[PersonAnswer]


class VideoTimes(Answer):
    """Where a video's time went, in ms. Decoding, detection and poses of different frames overlap."""

    waiting: float = Field(description="until its turn came")
    total: float
    frame: float = Field(description="`total` by the number of frames")


class VideoAnswer(Answer):
    """The people of every frame of a video, with identities."""

    names: list[str]
    size: tuple[int, int] = Field(description="A frame's width and height in px, upright.")
    frames: list[FrameAnswer]
    remark: str | None = Field(description="What was damaged, in one line; null where all is well.")
    ms: VideoTimes


class LimitsAnswer(Answer):
    """The most that a request may bring."""

    image_bytes: int
    image_pixels: int
    video_bytes: int
    video_seconds: float


class ModelAnswer(Answer):
    """The model behind the endpoint."""

    name: str
    names: list[str]
    skeleton: str = Field(description="The data set whose points it has.")
    limbs: list[tuple[int, int]] = Field(description="Pairs of positions in `names`.")
    input_size: tuple[int, int] = Field(description="Width and height of a person's crop in px.")
    architecture: str
    precision: str
    version: str = Field(description="The version of rtmpose that exported it.")
    licences: list[str] = Field(description="The licences of its training data, as its file notes them.")
    runtime: str
    detector: str | None = Field(description="null: without boxes, one person fills the picture.")
    calibrated: bool = Field(description="Whether confidence is a probability, or the raw score cut to 0..1.")
    limits: LimitsAnswer


class Health(Answer):
    """The server is up; `waiting` requests are in its line."""

    status: str
    waiting: int
