"""What the stages left in a folder, read as untrusted: a part that is missing, cut off or of another shape is
a UserError that says which stage writes it.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, Field

from rtmpose.config import Params, Record, Strict, is_baseline, load_params, parse
from rtmpose.files import UserError, read_bytes, read_json

UNKNOWN = "unknown"  # of a commit
Model = TypeVar("Model", bound=Record | Strict)

#: Everything that the page is made from, relative to the folder of a run; a star stands for the targets.
SOURCES = (
    "params.yaml", "data/mix.json", "models/pretrain.json", "models/receipt.json", "models/search.json",
    "metrics/pretrain.csv", "metrics/finetune.csv", "metrics/finetune_ap.csv", "metrics/evaluate.json",
    "metrics/per_keypoint.csv", "metrics/export.json", "metrics/confidence.csv", "metrics/pick.json",
    "metrics/compare.json", "metrics/register.json", "metrics/benchmark/*.json", "reports/mistakes.json",
)  # fmt: skip
# The stages that write them, where their name is not the file's.
WRITERS = {
    "params.yaml": "", "data/mix.json": "mix", "models/receipt.json": "finetune",
    "metrics/finetune_ap.csv": "finetune", "metrics/per_keypoint.csv": "evaluate",
    "metrics/confidence.csv": "export", "reports/mistakes.json": "evaluate",
}  # fmt: skip
# What the stages after `evaluate` write, which refuse the baselines.
AFTER_EVALUATION = (
    "metrics/export.json", "metrics/confidence.csv", "metrics/pick.json", "metrics/compare.json",
    "metrics/register.json",
)  # fmt: skip


class Told(Record):
    """A record whose numbers are finite."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Source(Told):
    """A data set that a receipt or the evidence names."""

    name: str
    sha256: str
    licence: str
    use: str = "training"


class Shown(Told):
    dataset: str
    samples: int
    manifest_sha256: str
    skeleton: str = ""
    repeat: int = 1
    licence: str | None = None


class Mix(Told):
    train: list[Shown]
    tune: list[Shown]
    val: list[Shown]


class FreshHead(Told):
    """The second stage of distillation, beside the first one's AP; fractions of 1."""

    taken: bool
    best_AP: float
    first_AP: float
    steps: int | None = None
    samples: int | None = None
    best_epoch: int | None = None


class Receipt(Told):
    """Of a training stage; `data` is None where it was trained before receipts said so."""

    sha256: str
    run_id: str | None = None
    steps: int | None = None
    samples: int | None = None
    best_AP: float | None = None
    best_epoch: int | None = None
    tau: float | None = None
    sigma: list[float] | None = None
    precision: str | None = None
    devices: list[str] = Field(default_factory=list)
    data: list[Source] | None = None
    init: str | None = None
    teacher: str | None = None
    teacher_sha256: str | None = None
    head: FreshHead | None = None


class Choice(Told):
    chosen: dict[str, Any]
    note: str | None = None


class Confidence(Told):
    tested_on: float
    calibration_error_before: float
    calibration_error: float


class Export(Told):
    exported_at: str
    megabytes: float
    confidence: Confidence | None = None


class Registered(Told):
    name: str
    version: int
    run_id: str
    tracking_uri: str
    sha256: str


class Interval(Told):
    value: float
    low: float
    high: float


class SetMistakes(Told):
    """What `rtmpose.evaluation.mistakes` found on one set; fractions of 1."""

    AP: Interval
    persons: int
    without_prediction: int
    points: dict[str, int]
    keypoints: dict[str, dict[str, int]]
    mended: dict[str, float]


class WorstPose(Told):
    dataset: str
    image: str
    person: str
    oks: float
    kinds: dict[str, int]
    jpeg: str = Field(pattern=r"^[A-Za-z0-9+/]+=*$")


class Mistakes(Told):
    sets: dict[str, SetMistakes]
    worst: list[WorstPose]


@dataclass(frozen=True)
class Folder:
    """A folder with a run's files, and what to say of it: its name, and what stands where."""

    path: Path
    name: str
    commit: str  # of the code that made it, or UNKNOWN
    conf: Path | None = None  # what `params.yaml` was composed from

    @property
    def shown_commit(self) -> str:
        return "not known" if self.commit == UNKNOWN else self.commit

    @property
    def of_a_baseline(self) -> bool:
        """Whether the run's network is one that is neither exported nor registered; false where its
        parameters cannot be read.
        """
        try:
            return is_baseline(self.params())
        except UserError:
            return False

    def params(self) -> Params:
        return load_params(self.path / "params.yaml")

    def read(self, name: str, model: type[Model]) -> Model:
        """A JSON file of `SOURCES`."""
        return parse(model, read_json(self.path / name, self.fix(name)), Path(name))

    def object(self, name: str) -> dict[str, Any]:
        """A JSON file that holds an object."""
        content = read_json(self.path / name, self.fix(name))
        if not isinstance(content, dict):
            raise UserError(f"{name}: holds a {type(content).__name__}, not an object; {self.fix(name)}")
        return content

    def rows(self, name: str) -> list[dict[str, str]]:
        """A CSV file; UserError where it has no rows."""
        try:
            text = read_bytes(self.path / name, self.fix(name)).decode()
            found = list(csv.DictReader(io.StringIO(text)))
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{name}: not a table ({error}); {self.fix(name)}") from None
        if not found:
            raise UserError(f"{name}: holds no rows; {self.fix(name)}")
        return found

    def columns(self, name: str, *wanted: str) -> list[tuple[float, ...]]:
        """Columns of numbers of a CSV file, row by row; rows where one is empty are left out."""
        found = []
        for row in self.rows(name):
            cells = [row.get(column) for column in wanted]
            if None in cells:
                missing = wanted[cells.index(None)]
                raise UserError(f"{name}: has no column {missing!r}; {self.fix(name)}")
            try:
                numbers = tuple(float(cell or "nan") for cell in cells)
            except ValueError as error:
                raise UserError(f"{name}: {error}; {self.fix(name)}") from None
            if all(abs(number) < float("inf") for number in numbers):
                found.append(numbers)
        return found

    def fix(self, name: str) -> str:
        """The command that writes a file, or that it is not made for this run's network."""
        if name in AFTER_EVALUATION and self.of_a_baseline:
            return "it is not made for a baseline, which is trained and evaluated alone"
        stage = WRITERS.get(name, Path(name).stem)
        return f"`dvc repro {stage}` writes it" if stage else "take it from the run's commit"
