"""Which trials a search runs, and what it concludes from them.

The reference point runs first, once under each of `search.reference_seeds`. Then come the points that Optuna
suggests, all under the first seed. The best of many trials owes part of its lead to luck. So a trial that
leads runs again under the reference's other seeds, and its point is chosen only when it leads there, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rtmpose.config import Params
from rtmpose.search.choice import Choice
from rtmpose.search.ledger import UNMEASURED, Ledger, TrialRecord
from rtmpose.search.space import reference_point, suggest

Row = dict[str, Any]
# AP. A smaller lead is always noise: two or three seeds underestimate the spread of runs (it is 0 where they
# agree by chance).
NOISE_FLOOR = 0.005


def as_row(trial: TrialRecord) -> Row:
    """A trial that has ended, as it is kept and compared: its last AP counts."""
    last = trial.reports[-1]
    named = {"trial": trial.number, "kind": trial.kind, "seed": trial.seed, "status": trial.status}
    unknown = {UNMEASURED: True} if last.get(UNMEASURED) else {}
    figures = {"AP": last["AP"], "steps": last["step"], "reports": trial.reports}
    return named | {"point": trial.point} | figures | unknown


def measured(row: Row) -> bool:
    """Whether a trial's AP is a number."""
    return not row.get(UNMEASURED) and not math.isnan(row["AP"])


def trials_in_all(params: Params) -> int:
    """How many trials run in any case: the reference's and those that are searched, without repeats."""
    return params.search.reference_seeds + params.search.trials


def trials_given_out(params: Params, ledger: Ledger) -> list[TrialRecord]:
    """The trials among `trials_in_all` that were given out. The ledger may hold more, of a longer search."""
    return [trial for _, trial in sorted(ledger.trials.items()) if trial.kind != "repeat"][
        : trials_in_all(params)
    ]


def best_and_repeats(params: Params, ledger: Ledger) -> tuple[Row, list[TrialRecord]] | None:
    """The best trial, where it leads, and its repeats so far. None where no trial leads by more than the
    noise, and while some have not ended.
    """
    trials = trials_given_out(params, ledger)
    if len(trials) < trials_in_all(params) or any(trial.status == "running" for trial in trials):
        return None
    rows = [as_row(trial) for trial in trials]
    best, (top, noise) = best_of(rows), reference_ap(rows)
    if best["AP"] - top <= noise:
        return None
    return best, [
        trial for trial in ledger.trials.values() if trial.kind == "repeat" and trial.point == best["point"]
    ]


def counted_trials(params: Params, ledger: Ledger) -> list[TrialRecord]:
    """The trials that count: as many as the parameters ask for, and the best one's repeats."""
    found = best_and_repeats(params, ledger)
    return trials_given_out(params, ledger) + (found[1] if found else [])


def trials_left(params: Params, ledger: Ledger) -> int:
    """How many more trials can be given out now. The best one's repeats come when all others have ended."""
    found = best_and_repeats(params, ledger)
    if found is not None:
        return params.search.reference_seeds - 1 - len(found[1])
    return trials_in_all(params) - len(trials_given_out(params, ledger))


def is_complete(params: Params, ledger: Ledger) -> bool:
    """Whether every trial has ended and none is left to give out."""
    return not trials_left(params, ledger) and all(
        trial.status != "running" for trial in counted_trials(params, ledger)
    )


def new_trial(params: Params, ledger: Ledger) -> TrialRecord | None:
    """Give out the next trial; None when there is none at the moment.

    Searched points share the reference's first seed, so that they differ from it in their values alone.
    """
    if not trials_left(params, ledger):
        return None
    if (found := best_and_repeats(params, ledger)) is not None:
        best, repeats = found
        return ledger.start(best["point"], seed=1 + len(repeats), kind="repeat")
    trials, references = trials_given_out(params, ledger), params.search.reference_seeds
    if len(trials) < references:
        return ledger.start(reference_point(params), seed=len(trials), kind="reference")
    return ledger.start(
        suggest(params, len(trials) - references, trials[references:]), seed=0, kind="searched"
    )


def reference_ap(rows: Sequence[Row]) -> tuple[float, float]:
    """The best AP of the reference's runs, and the noise: the range of their APs, or the floor.

    Where one of these APs is not a number, nothing can lead: the noise is infinite.
    """
    references = [trial for trial in rows if trial["kind"] == "reference"]
    aps = [trial["AP"] for trial in references if measured(trial)]
    assert len(references) >= 2, "the reference point needs several seeds"
    if len(aps) < len(references):
        return max(aps, default=0.0), math.inf
    return max(aps), max(max(aps) - min(aps), NOISE_FLOOR)


def best_of(rows: Sequence[Row]) -> Row:
    """The trial with the highest AP, repeats left out; the reference where a trial is merely as good. A
    searched trial whose AP is not a number is none.
    """
    first = [trial for trial in rows if trial["kind"] != "repeat" and measured(trial)]
    first = first or [trial for trial in rows if trial["kind"] == "reference"]
    return max(first, key=lambda trial: (trial["AP"], trial["kind"] == "reference"))


def choose(rows: Sequence[Row]) -> Choice:
    """The best trial's point when it beats every run of the reference by more than the noise, and its
    repeats, on average, the reference's runs of the same seeds by as much; nothing to change else.
    """
    (top, noise), best = reference_ap(rows), best_of(rows)
    if math.isinf(noise):
        return Choice({}, "AP of the reference is not a number in some run, the recipe's values are kept")
    if best["kind"] == "reference":
        return Choice({}, f"no trial beat the reference's AP {top:.3f}, the recipe's values are kept")
    if best["AP"] - top <= noise:
        note = f"the best trial's AP {best['AP']:.3f} is within noise (±{noise:.3f})"
        note += f" of the reference's {top:.3f}"
        return Choice({}, f"{note}, the recipe's values are kept")
    reference = {trial["seed"]: trial["AP"] for trial in rows if trial["kind"] == "reference"}
    lead = fmean(trial["AP"] - reference[trial["seed"]] for trial in rows if trial["kind"] == "repeat")
    note = f"AP {best['AP']:.3f} beats the reference's {top:.3f} (noise ±{noise:.3f})"
    if not lead > noise:
        return Choice(
            {}, f"{note}, but under other seeds leads by {lead:+.3f} only, the recipe's values are kept"
        )
    return Choice(best["point"], f"{note}, under other seeds by {lead:.3f}")
