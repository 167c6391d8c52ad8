"""What the One-Euro filter costs and gives: trembling, lag, error and OKS of people whose truth is known.

    python benchmarks/smoothing.py [--seconds 6] [--people 24] [--noise 0.2] [--grid]

A third of the simulated people stand, a third walk and a third run, near and far (150 to 500 px), in all
views. Each point is seen with normal noise of `--noise` times OKS's own spread (2 sigma x size); half of the
variance is new on each frame and half lasts for 0.15 s, as a network's does, on one grid of times for all
frame rates. Columns, each a mean over people:

- jitter: acceleration of the difference to the truth, in sizes of the person per s²; of the people who stand
  and of those who move
- lag: frames by which the points of those who move come late
- error: mean distance to the truth, in hundredths of a size
- AP: share of frames whose OKS is above 0.50, 0.55 … 0.95, the mean over the ten

`--grid` tries other settings of the filter, too. The defaults of TrackOptions are the line that `choice`
names: of the settings whose AP is nowhere below the one without the filter, and whose error over all frame
rates is within 1 % of the least, the one with the least jitter of those who stand. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtmpose.machine import cpu_line
from rtmpose.motion import measures
from rtmpose.motion.tracker import PoseTracker, TrackOptions
from tests.motion.walkers import COCO17, Walker, box_around, person, truth

Floats = NDArray[np.float64]
Rates = dict[int, dict[str, float]]  # by frame rate, the columns of the table
GRID = 60  # frames/s of the noise
RATES = (15, 30, 60)
LASTING = 0.15  # s
SLACK = 1.01  # of the least error
ONLY_SMOOTH = TrackOptions(every=1, sides=False)
KINDS = ("stand", "walk", "run")
THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True)
class Setting:
    cutoff: float
    beta: float
    speed_cutoff: float


@dataclass(frozen=True, eq=False)
class Film:
    """N people over T frames of `GRID` frames/s."""

    truth: Floats  # (T, N, K, 2) px
    seen: Floats  # (T, N, K, 2) px, with noise
    size: Floats  # (N,) px
    moves: NDArray[np.bool_]  # (N,)

    def at(self, rate: int) -> tuple[Floats, Floats, Floats]:
        """Truth and seen points at a lower frame rate, and the time stamps."""
        step = GRID // rate
        return self.truth[::step], self.seen[::step], np.arange(len(self.truth))[::step] / GRID


def film(people: int, seconds: float, noise: float, seed: int = 0) -> Film:
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * GRID)) / GRID
    walkers = [_walker(rng, KINDS[index % 3]) for index in range(people)]
    true = np.stack([truth(walker, times) for walker in walkers], 1)
    size = np.array([np.sqrt(np.prod(np.diff(box_around(each).reshape(2, 2), axis=0))) for each in true[0]])
    spread = noise * 2 * np.asarray(COCO17.sigmas) * size[:, None]
    shape = true.shape
    shaken = np.sqrt(0.5) * (rng.standard_normal(shape) + _lasting(rng, shape))
    moves = np.array([index % 3 > 0 for index in range(people)])
    return Film(true, true + spread[..., None] * shaken, size, moves)


def _walker(rng: np.random.Generator, kind: str) -> Walker:
    height = float(rng.uniform(150, 500))
    speed, steps = {"stand": (0.0, 0.0), "walk": (0.8, 0.9), "run": (2.2, 1.4)}[kind]
    yaw = float(rng.uniform(-180, 180))
    pace = speed * height * np.sin(np.radians(yaw))
    return Walker((640, 600), float(pace), height, yaw, steps, float(rng.uniform(0, 6)))


def _lasting(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Normal noise along the first axis that forgets itself over `LASTING` seconds."""
    keep = np.exp(-1 / (LASTING * GRID))
    noise = rng.standard_normal(shape)
    for index in range(1, shape[0]):
        noise[index] = keep * noise[index - 1] + np.sqrt(1 - keep**2) * noise[index]
    return noise


def smoothed(seen: Floats, times: Floats, setting: Setting) -> Floats:
    """Points (T, N, K, 2) through the tracker, people side by side so far apart that nobody meets."""
    tracker = PoseTracker(COCO17, replace(ONLY_SMOOTH, **asdict(setting)))
    apart = np.array([[4000.0 * n, 0.0] for n in range(seen.shape[1])])
    size, out = (4000 * seen.shape[1], 720), []
    for time, people in zip(times.tolist(), seen, strict=True):
        found = tracker.update(
            [person(each + by) for each, by in zip(people, apart, strict=True)], time, size, True
        )
        out.append(np.stack([each.keypoints for each in found]) - apart[:, None])
    return np.stack(out)


def measured(points: Floats, true: Floats, times: Floats, of: Film) -> dict[str, float]:
    """The columns of the table."""
    people = range(len(of.size))
    jitter = [measures.jitter(points[:, n], times, of.size[n], true[:, n]) for n in people]
    lag = [measures.lag(points[:, n], true[:, n]) for n in people if of.moves[n]]
    error = [measures.error(points[:, n], true[:, n], of.size[n]) for n in people]
    variance = (2 * np.asarray(COCO17.sigmas) * of.size[:, None]) ** 2
    oks = np.exp(-((points - true) ** 2).sum(-1) / (2 * variance)).mean(-1)
    return {
        "jitter_still": float(np.mean(np.array(jitter)[~of.moves])),
        "jitter_moving": float(np.mean(np.array(jitter)[of.moves])),
        "lag": float(np.mean(lag)),
        "error": 100 * float(np.mean(error)),
        "AP": float(np.mean([(oks > threshold).mean() for threshold in THRESHOLDS])),
    }


def all_rates(of: Film, setting: Setting | None) -> Rates:
    """What `setting` gives at each frame rate; None is without the filter."""
    found = {}
    for rate in RATES:
        true, seen, times = of.at(rate)
        points = seen if setting is None else smoothed(seen, times, setting)
        found[rate] = measured(points, true, times, of)
    return found


def choice(found: dict[Setting, Rates], raw: Rates) -> Setting | None:
    """The setting that the module's docstring describes; None where there is none."""
    sound = [
        each for each, rates in found.items() if all(rates[rate]["AP"] >= raw[rate]["AP"] for rate in RATES)
    ]
    errors = {each: sum(found[each][rate]["error"] for rate in RATES) for each in sound}
    near = [each for each in sound if errors[each] <= SLACK * min(errors.values())]
    return min(near, key=lambda each: sum(found[each][rate]["jitter_still"] for rate in RATES), default=None)


def lines(name: str, rates: Rates) -> Iterable[str]:
    for rate, row in rates.items():
        yield (
            f"| {name} | {rate} | {row['jitter_still']:.2f} | {row['jitter_moving']:.2f} | {row['lag']:.2f} "
            f"| {row['error']:.2f} | {row['AP']:.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="of the film")
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--noise", type=float, default=0.2, help="of a point, in OKS's own spread")
    parser.add_argument("--grid", action="store_true", help="try other settings, too")
    asked = parser.parse_args()
    options = TrackOptions()
    default = Setting(options.cutoff, options.beta, options.speed_cutoff)
    grid = itertools.product((0.5, 1.0, 2.0), (1.0, 2.0, 5.0, 10.0), (1.0, 2.0))
    settings = dict.fromkeys([default, *(Setting(*each) for each in grid if asked.grid)])
    of = film(asked.people, asked.seconds, asked.noise)
    print(f"machine: {cpu_line()}; {asked.people} people, {asked.seconds:g} s, noise {asked.noise:g}\n")
    print("| cutoff, beta, speed's cutoff | frames/s | jitter, still | jitter, moving | lag | error | AP |")
    print("|---|---|---|---|---|---|---|")
    raw = all_rates(of, None)
    print(*lines("no filter", raw), sep="\n", flush=True)
    found = {}
    for setting in settings:
        found[setting] = all_rates(of, setting)
        name = f"{setting.cutoff:g}, {setting.beta:g}, {setting.speed_cutoff:g}"
        print(
            *lines(name + (" (default)" if setting == default else ""), found[setting]), sep="\n", flush=True
        )
    best = choice(found, raw)
    print(f"\nchoice: {best}")
    ratio = found[default][30]["jitter_still"] / raw[30]["jitter_still"]
    print(json.dumps({"name": "smoothing", "ours": found[default], "peer": raw, "ratio": ratio,
                      "unit": "sizes/s² of jitter at 30 frames/s", "machine": cpu_line()}))  # fmt: skip


if __name__ == "__main__":
    main()
