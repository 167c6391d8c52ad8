"""How crops must be stored: the warp from the stored crop against the warp from the whole photograph, and
what it costs.

    python benchmarks/crop_quality.py [--quick] [--data FOLDER] [--dataset coco17] [--split val] [--images N]

Each person is shown under the strongest augmentation (scale 1 ± 0.4, rotation ± 80°, shift 0.16, all always
on), in full and as a half body where enough points are labelled. The same view is warped from the photograph
and from the stored crop; PSNR is over the view's pixels that lie inside the photograph. It must be at least
34 dB at the 10th percentile over persons and draws, for every input size that shards are cut for.

`now` is what the shards hold today. In the other rows `x1` keeps one crop px per input px where the full box
is shown smallest (scale 0.6), `x1.5` half as many again, `none` reduces nothing; area and cubic are the
resampling; q and 444, 422, 420 are the JPEG's quality and chroma sampling, and a row without them keeps the
pixels: what the reduction alone costs. kB are the JPEG's own. There is no peer, since MMPose stores no crops.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.config import AugmentConfig, setup_environment
from rtmpose.data.raw.annotations import Person, read_images
from rtmpose.data.raw.photograph import decode, read_photograph
from rtmpose.data.shards.crops import FINER, QUALITY, Crop, CutFor, crop_region, cut_crop
from rtmpose.data.shards.sample import encode_jpeg
from rtmpose.data.stream.augment import MIRROR, Augmenter, choose_half, draw
from rtmpose.deploy.machine import machine
from rtmpose.descriptors import load_dataset
from rtmpose.geometry import Floats, clip_box, compose, crop_to_photograph, fix_aspect, pad_box, warp
from rtmpose.machine import cpu_line
from rtmpose.skeleton import Skeleton

ROOT = Path(__file__).resolve().parent.parent
SIZES = ((192, 256), (288, 384))
LIMIT_DB = 34.0

STRONGEST = AugmentConfig(flip=0.5, half_body=0.0, shift_prob=1.0, rotate_prob=1.0)
SAMPLING = {
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}
RESAMPLING = {"area": cv2.INTER_AREA, "cubic": cv2.INTER_CUBIC, "now": -1}
EXTRA = {
    "": (),
    "optimised": (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
}


class Setting(NamedTuple):
    """One way to store crops. `factor` 0 reduces nothing, `quality` 0 keeps the pixels, resampling "now" is
    ours.
    """

    factor: float
    resampling: str
    quality: int = 0
    chroma: str = "444"
    extra: str = ""

    def __str__(self) -> str:
        if self.resampling == "now":
            return f"now (q{self.quality})"
        reduced = f"x{self.factor:g} {self.resampling}" if self.factor else "none"
        return f"{reduced}, q{self.quality} {self.chroma} {self.extra}".strip() if self.quality else reduced


@dataclass(eq=False)
class View:
    """One augmented view of a person: the matrix from the photograph's px to the input's, what it shows,
    where (0 or 255).
    """

    matrix: Floats
    half: bool
    truth: NDArray[np.uint8]
    inside: NDArray[np.uint8]


@dataclass(eq=False)
class Measured:
    """Of one setting: PSNR by (half body, of a crop that `x1` reduces), and the costs of each crop."""

    psnr: dict[tuple[bool, bool], list[float]] = field(default_factory=dict)
    bytes: list[int] = field(default_factory=list)
    pixels: list[int] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)
    warp_ms: list[float] = field(default_factory=list)

    def views(
        self, half: Sequence[bool] = (False, True), large: Sequence[bool] = (False, True)
    ) -> list[float]:
        return [value for h in half for r in large for value in self.psnr.get((h, r), [])]


@dataclass(frozen=True, eq=False)
class Subject:
    """One person in the photograph, with the views to compare."""

    person: Person
    photograph: NDArray[np.uint8]
    skeleton: Skeleton
    size: tuple[int, int]
    views: Sequence[View]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--with-peer", action="store_true", help="accepted like everywhere; there is no peer")
    parser.add_argument(
        "--quick", action="store_true", help="12 photographs, one draw, few settings, one size"
    )
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "realdata" / "coco", help="a raw folder"
    )
    parser.add_argument("--dataset", default="coco17", help="its descriptor")
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, help="only the first N photographs with persons")
    options = parser.parse_args()
    setup_environment()
    print(f"machine: {cpu_line()}", flush=True)
    cv2.setNumThreads(0)
    lowest: dict[str, float] = {}
    settings, images = plan(options.quick), 12 if options.quick else options.images
    for size in SIZES[:1] if options.quick else SIZES:
        results = {setting: Measured() for setting in settings}
        for subject in subjects(
            options.dataset, options.data, options.split, size, images, 1 if options.quick else 2
        ):
            for setting, measured in results.items():
                store(setting, measured, subject)
        print(table(size, results), flush=True)
        lowest[f"{size[0]}x{size[1]}"] = round(tenth(results[settings[0]].views()), 2)
    worst = min(lowest.values())
    line = {
        "name": "crop_quality", "ours": worst, "peer": LIMIT_DB, "ratio": round(worst / LIMIT_DB, 3),
        "unit": "dB PSNR at the 10th percentile of the crops as shards hold them now; the peer is what must "
                "hold",
        "by_input_size": lowest, "machine": machine(),
    }  # fmt: skip
    print(json.dumps(line))


def plan(quick: bool) -> list[Setting]:
    """What the shards hold now, the reductions alone, JPEG at one reduction, then the candidates and encoder
    options.
    """
    now = Setting(FINER, "now", QUALITY)
    if quick:
        return [now, Setting(1.0, "area"), Setting(0.0, "area"), Setting(1.25, "cubic", 88)]
    area = [Setting(factor, "area") for factor in (0.75, 1.0, 1.25, 1.5, 0.0)]
    cubic = [Setting(factor, "cubic") for factor in (1.0, 1.25, 1.5)]
    jpeg = [Setting(1.0, "area", quality) for quality in (80, 85, 88, 90, 92, 95, 97)]
    jpeg += [Setting(1.0, "area", quality, chroma) for chroma in ("422", "420") for quality in (85, 90, 95)]
    better = [
        Setting(factor, "cubic", quality) for factor in (1.0, 1.25, 1.5) for quality in (85, 88, 90, 92)
    ]
    better += [Setting(1.25, "cubic", quality, "422") for quality in (90, 92)] + [
        Setting(1.25, "cubic", 97, "420")
    ]
    return [
        now,
        *area,
        *cubic,
        *jpeg,
        *better,
        *(Setting(1.25, "cubic", 88, extra=extra) for extra in EXTRA if extra),
    ]


def subjects(
    name: str, root: Path, split: str, size: tuple[int, int], images: int | None, draws: int
) -> Iterator[Subject]:
    """Every person of the split's first `images` photographs (None: of all) with its views."""
    dataset = load_dataset(name)
    photographs = [raw for raw in read_images(dataset, root, split) if raw.persons]
    for raw in photographs[:images]:
        _, photograph = read_photograph(raw)
        for person in raw.persons:
            views = list(views_of(person, photograph, dataset.skeleton, size, draws))
            if views:
                yield Subject(person, photograph, dataset.skeleton, size, views)


def views_of(
    person: Person, photograph: NDArray[np.uint8], skeleton: Skeleton, size: tuple[int, int], draws: int
) -> Iterator[View]:
    """`draws` full views of one person and as many half bodies; views that show next to nothing are
    left out.
    """
    height, width = photograph.shape[:2]
    identity = crop_to_photograph((0, 0), (1.0, 1.0))
    fields = {"box": clip_box(person.box, width, height), "origin": (0, 0), "scale": (1.0, 1.0)}
    everywhere = np.full((height, width), 255, np.uint8)
    for half in (False, True):
        augmenter = Augmenter(
            STRONGEST.model_copy(update={"half_body": float(half)}), skeleton, size, udp=False
        )
        for turn in range(draws):
            drawn = draw(augmenter.config, np.random.default_rng((person.annotation_id, turn)))
            if half and choose_half(person.visible, skeleton, drawn.prefer_upper) is None:
                continue
            points = person.keypoints.astype(np.float64)
            matrix, *_ = augmenter.place(fields, points, person.visible, identity, drawn)
            matrix = compose(matrix, MIRROR) if drawn.flip else matrix
            inside = np.where(warp(everywhere, matrix, size) == 255, 255, 0).astype(np.uint8)
            if inside.mean() > 0.05 * 255:
                yield View(matrix, half, warp(photograph, matrix, size), inside)


def store(setting: Setting, measured: Measured, subject: Subject) -> None:
    """One person's crop stored in one way, and all its views of it."""
    crop = cut(setting, subject)
    pixels = crop.pixels
    if setting.quality:
        content = encode(setting, pixels)
        decoded = decode(content)
        assert decoded is not None
        pixels = decoded
        measured.bytes.append(len(content))
        measured.decode_ms.append(fastest(lambda: decode(content)))
    measured.pixels.append(pixels.shape[0] * pixels.shape[1])
    to_image = crop_to_photograph(crop.origin, crop.scale)
    large = reduction(subject, 1.0) < 1
    for view in subject.views:
        shown = warp(pixels, compose(view.matrix, to_image), subject.size)
        measured.psnr.setdefault((view.half, large), []).append(psnr(shown, view))
    matrix = compose(subject.views[0].matrix, to_image)
    measured.warp_ms.append(fastest(lambda: warp(pixels, matrix, subject.size)))


def cut(setting: Setting, subject: Subject) -> Crop:
    """The product's own crop, or one that is reduced otherwise."""
    height, width = subject.photograph.shape[:2]
    region, reduced = crop_region(subject.person, subject.skeleton, CutFor(subject.size), width, height)
    if setting.resampling == "now":
        return cut_crop(subject.photograph, region, reduced)
    wanted = reduction(subject, setting.factor) if setting.factor else 1.0
    crop, whole = (cut_crop(subject.photograph, region, factor) for factor in (wanted, 1.0))
    if wanted == 1:
        return whole
    target = (crop.pixels.shape[1], crop.pixels.shape[0])
    pixels = cv2.resize(whole.pixels, target, interpolation=RESAMPLING[setting.resampling])
    return Crop(pixels.astype(np.uint8, copy=False), crop.origin, crop.scale)


def reduction(subject: Subject, factor: float) -> float:
    """`factor` crop px per input px where the full box is shown smallest; never more than the
    photograph has.
    """
    height, width = subject.photograph.shape[:2]
    cut_for = CutFor(subject.size)
    _, scale = pad_box(clip_box(subject.person.box, width, height), cut_for.padding)
    smallest = fix_aspect(scale, subject.size[0] / subject.size[1])[0] * (1 - cut_for.scale)
    return float(min(1.0, factor * subject.size[0] / smallest))


def encode(setting: Setting, pixels: NDArray[np.uint8]) -> bytes:
    if setting.resampling == "now":
        return encode_jpeg(pixels, setting.quality)
    sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLING[setting.chroma])
    parameters = [cv2.IMWRITE_JPEG_QUALITY, setting.quality, *sampling, *EXTRA[setting.extra]]
    done, content = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), parameters)
    assert done
    return bytes(content)


def fastest(call: Callable[[], object]) -> float:
    """ms of the faster of two calls: the slower one was interrupted, or met a cold cache."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times) * 1000


def psnr(shown: NDArray[np.uint8], view: View) -> float:
    error = cv2.norm(shown, view.truth, cv2.NORM_L2SQR, view.inside) / (3 * cv2.countNonZero(view.inside))
    return 10 * float(np.log10(255**2 / error)) if error else np.inf


def tenth(values: Sequence[float]) -> float:
    return float(np.percentile(values, 10, method="lower")) if values else np.nan


def table(size: tuple[int, int], results: dict[Setting, Measured]) -> str:
    """Markdown; PSNR in dB, `large` are persons whose crop `x1` reduces."""
    first = next(iter(results.values()))
    halves = len(first.views(half=(True,)))
    counts = f"{len(first.bytes)} persons, {len(first.views())} views, {halves} of half bodies, "
    counts += f"{len(first.views(large=(True,)))} of large persons"
    heads = ["stored crop", "p10", "p50", "< 40 dB", "full p10", "half p10", "large p10", "others p10"]
    heads += ["kpx", "kB", "decode ms", "warp ms"]
    lines = [
        f"\n### Input {size[0]}x{size[1]}: {counts}\n",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    for setting, found in results.items():
        everything = found.views()
        parts = (
            found.views(half=(False,)),
            found.views(half=(True,)),
            found.views(large=(True,)),
            found.views(large=(False,)),
        )
        cells = [str(setting), f"{tenth(everything):.2f}", f"{np.median(everything):.2f}"]
        cells += [
            f"{100 * np.mean(np.asarray(everything) < 40):.0f} %",
            *(f"{tenth(part):.2f}" for part in parts),
        ]
        stored = (
            [f"{np.mean(found.bytes) / 1000:.1f}", f"{np.mean(found.decode_ms):.3f}"]
            if found.bytes
            else ["", ""]
        )
        cells += [f"{np.mean(found.pixels) / 1000:.0f}", *stored, f"{np.mean(found.warp_ms):.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
