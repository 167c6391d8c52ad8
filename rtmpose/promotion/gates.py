"""Every gate between candidate and champion, as functions of what was measured: nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rtmpose.config import PromotionParams
from rtmpose.deploy.report import NOISE
from rtmpose.promotion.evidence import NOTHING_THERE, Accuracy, Cost, Evidence, SetFigures
from rtmpose.promotion.gate import Gate, at_least, at_most, not_asked, said
from rtmpose.promotion.journal import Entry, Standing

DAY = 86400.0
FIRST = "no champion yet"
UNKNOWN = ("", "none", "unknown")


@dataclass(frozen=True)
class Case:
    """What is decided on: a version's number, tags and evidence, whether its files are whole (`damage` says
    why not), the champion of this moment, and what is asked. `rolled_back` is who went back from this file,
    under this number or another; `champions_left` are champions whose versions exist.
    """

    number: str
    tags: Mapping[str, str]
    hashes: Mapping[str, str]
    run_found: bool
    damage: str | None
    evidence: Evidence
    standing: Standing
    champion_sha256: str | None
    params: PromotionParams
    targets: Sequence[str]
    new_skeleton: bool
    now: datetime
    rolled_back: Entry | None = None
    again: bool = False
    no_champion: bool = False
    champions_left: Sequence[str] = ()

    @property
    def first(self) -> bool:
        """Whether there is nobody to be better than: no champion ever, or none left, and that is said to be
        meant. A champion whose version was deleted lifts nothing by that.
        """
        return self.standing.champion is None or (self.no_champion and not self.champions_left)


def gates(case: Case) -> list[Gate]:
    """All of them, in the order in which they are told."""
    found = [*_of_the_files(case), *_of_the_lineage(case), *_of_the_champion(case)]
    if not case.targets:
        found.append(said("required targets", "none: name one in `targets`", ""))
    for target in case.targets:
        found += _of_a_target(case, target)
    return found


def _of_the_files(case: Case) -> Iterator[Gate]:
    measured = case.evidence.comparison
    yield said("files", case.damage, f"{len(case.hashes)} whole")
    yield said("evidence of these files", _other_files(case), "same hashes")
    yield _fresh(case)
    problems = "; ".join(measured.card_problems)
    yield said("card", problems or None, "says what was trained")


def _other_files(case: Case) -> str | None:
    """Which file was measured and is not the registered one."""
    parts: list[tuple[str, Mapping[str, str]]] = []
    for target in case.targets:
        accuracy, cost = case.evidence.comparison.targets.get(target), case.evidence.costs.get(target)
        parts += [(f"AP of {target}", accuracy.files)] if accuracy else []
        parts += [(f"costs of {target}", cost.files)] if cost else []
    for what, files in parts:
        for file, digest in files.items():
            if case.hashes.get(file) != digest:
                here = case.hashes.get(file, "none")[:12]
                return f"{what}: measured {file} {digest[:12]}, registered is {here}"
    return None


def _fresh(case: Case) -> Gate:
    """Nothing measured before the file was exported, in the future, or too long ago."""
    measured, name = case.evidence.comparison, "evidence is fresh"
    costs = {target: case.evidence.costs[target] for target in case.targets if target in case.evidence.costs}
    times = [("AP", measured.compared_at)]
    times += [(f"costs of {target}", cost.measured_at) for target, cost in costs.items()]
    for what, when in times:
        if when < measured.exported_at:
            early = (measured.exported_at - when).total_seconds()
            return said(name, f"{what}: measured {early:.0f} s before the file was exported", "")
    if late := [what for what, when in times if when > case.now]:
        return said(name, f"{late[0]}: measured in the future; set the clocks of both machines", "")
    oldest = max((case.now - when).total_seconds() / DAY for _, when in times)
    return at_most(name, oldest, case.params.max_evidence_days, form=_days)


def _of_the_lineage(case: Case) -> Iterator[Gate]:
    tags, measured = case.tags, case.evidence.comparison
    commit = tags.get("git_commit", "")
    problem = "unknown: train in a git checkout" if commit in UNKNOWN else None
    if commit.endswith("-dirty"):
        problem = f"{commit[:12]} with uncommitted changes: commit, run `dvc repro`"
    yield said("lineage: git commit", problem, commit[:12])
    lock = tags.get("dvc_lock_sha256", "")
    yield said("lineage: dvc.lock", "none" if lock in UNKNOWN else None, lock[:12])
    mix = tags.get("data_manifest_sha256", "")
    problem = (
        None if mix == measured.mix_sha256 else f"evaluated on {measured.mix_sha256[:12]}, not {mix[:12]}"
    )
    yield said("lineage: data", "none" if mix in UNKNOWN else problem, mix[:12])
    unnamed = [source.name for source in measured.data if not source.licence or not source.sha256]
    problem = f"{unnamed[0]}: no licence or hash" if unnamed else None
    names = ", ".join(
        source.name if source.is_known else f"{source.name} (licence not known)" for source in measured.data
    )
    yield said("lineage: data licences", problem if names else "the card names no data", names)
    run = measured.training_run
    problem = None if run and case.run_found else f"run {run or 'none'} is not in this store"
    known = tags.get("fingerprint", "")
    yield said("lineage: training run", "no fingerprint" if known in UNKNOWN else problem, (run or "")[:12])


def _of_the_champion(case: Case) -> Iterator[Gate]:
    entry, name = case.rolled_back, "never rolled back"
    why = f"rolled back by {entry.who}: {entry.why or 'no reason given'}" if entry else ""
    problem = f"{why}; --again if it is meant" if why else None
    yield not_asked(name, "--again") if case.again else said(name, problem, "never")
    beside, champion = case.evidence.comparison.champion, case.standing.champion
    versions = {target: cost.champion_version for target, cost in case.evidence.costs.items()}
    told = {"AP": beside.version if beside else None}
    told |= {f"costs of {target}": versions[target] for target in case.targets if target in versions}
    other = next((what for what, version in told.items() if version != champion), None)
    name = "measured beside the champion"
    if case.first:
        yield not_asked(name, FIRST if champion is None else f"version {champion} was deleted: --no-champion")
        yield not_asked("keypoint names", FIRST)
        return
    if case.champion_sha256 is None:
        way = "`rtmpose rollback` first" if case.champions_left else "none is left, --no-champion if meant"
        yield said(name, f"version {champion} was deleted: {way}", "")
    elif other is not None:
        theirs = f"version {told[other]}" if told[other] else "none"
        yield said(name, f"{other}: beside {theirs}, the champion is version {champion}", "")
    elif beside is not None and beside.sha256 != case.champion_sha256:
        yield said(name, f"version {champion} has another file since", "")
    elif (problem := _in_something_else(case)) is not None:
        yield said(name, problem, "")
    else:
        yield said(name, None, f"version {champion}")
    if beside is None:
        yield said("keypoint names", "the champion's were not read", "")
    elif case.new_skeleton and _new_points(case) is not None:
        yield not_asked("keypoint names", "--new-skeleton")
    else:
        yield said("keypoint names", _new_points(case), "same")


def _in_something_else(case: Case) -> str | None:
    """The target on which costs and AP are beside the champion in different runtimes or precisions."""
    for target in case.targets:
        accuracy, cost = case.evidence.comparison.targets.get(target), case.evidence.costs.get(target)
        if accuracy is None or accuracy.picked is None or cost is None:
            continue  # that fails by itself
        if accuracy.champion_picked == cost.champion_picked:
            continue
        ap, costs = accuracy.champion_picked or "nothing", cost.champion_picked or "nothing"
        return f"{target}: costs beside its {costs}, AP beside its {ap}: measure both again"
    return None


def _new_points(case: Case) -> str | None:
    """How the candidate's points differ from the champion's."""
    measured = case.evidence.comparison
    if measured.champion is None:
        return None
    return _renamed(measured.keypoint_names, measured.champion.keypoint_names)


def _renamed(ours: Sequence[str], theirs: Sequence[str]) -> str | None:
    if tuple(ours) == tuple(theirs):
        return None
    if len(ours) != len(theirs):
        return f"{len(ours)} points, the champion has {len(theirs)}; --new-skeleton if it is meant"
    place = next(index for index in range(len(ours)) if ours[index] != theirs[index])
    return f"point {place} is {ours[place]}, the champion's {theirs[place]}; --new-skeleton if it is meant"


def _of_a_target(case: Case, target: str) -> Iterator[Gate]:
    accuracy, cost = case.evidence.comparison.targets.get(target), case.evidence.costs.get(target)
    if accuracy is None or accuracy.picked is None:
        reason = "not measured" if accuracy is None else accuracy.not_compared
        yield said("picked", reason or "nothing passed", "", target=target)
        return
    yield said("picked", None, accuracy.picked, target=target)
    if not accuracy.sets:
        yield said("AP", accuracy.not_compared or "not measured", "", target=target)
    for number, (name, figures) in enumerate(accuracy.sets.items()):
        yield from _of_a_set(case, target, name, figures, accuracy, is_first=number == 0)
    if cost is None:
        yield said("costs", "not measured", "", target=target)
    else:
        yield from _of_the_costs(case, target, cost)


def _of_a_set(
    case: Case, target: str, name: str, figures: SetFigures, accuracy: Accuracy, *, is_first: bool
) -> Iterator[Gate]:
    params = case.params
    if is_first:
        shown, lowest = f"at worst, {figures.ap.value:.1f}", figures.ap.low
        yield at_least(f"AP {name}", lowest, params.min_ap, target=target, shown=shown, form=_points)
    yield _difference(case, f"AP {name} − champion", figures, accuracy, target)
    if not is_first:
        return
    for part in params.slice_floors.keys() - figures.slices.keys():
        problem = f"no such slice; there are {', '.join(figures.slices)}"
        yield said(f"recall {part}", problem, "", target=target)
    for part, one in figures.slices.items():
        if one.recall is None or one.persons < params.least_persons:
            few = f"{one.persons} persons of {params.least_persons}"
            if part in params.slice_floors:
                yield said(f"recall {part}", f"{few}: judge on more, or remove the floor", "", target=target)
            else:
                yield not_asked(f"recall {part}", few, target)
            continue
        if part in params.slice_floors:
            interval = f"at worst, {one.recall.value:.1f}, {one.persons} persons"
            yield at_least(
                f"recall {part}", one.recall.low, params.slice_floors[part], target=target, shown=interval,
                form=_points,
            )  # fmt: skip
        if one.difference is not None:
            shown = f"at worst, {one.difference.value:+.1f}, {one.persons} persons"
            yield at_least(
                f"recall {part} − champion", one.difference.low, -params.max_slice_loss, target=target,
                shown=shown, form=_signed,
            )  # fmt: skip


def _difference(case: Case, name: str, figures: SetFigures, accuracy: Accuracy, target: str) -> Gate:
    """AP beside the champion's on the same images; the unfavourable end of the interval counts."""
    if case.first:
        return not_asked(name, FIRST, target)
    if case.new_skeleton and _new_points(case) is not None:
        return not_asked(name, "--new-skeleton", target)
    if accuracy.champion_picked is None and case.evidence.comparison.champion is not None:
        return not_asked(name, accuracy.not_compared or NOTHING_THERE, target)
    if figures.champion_sha256 is not None and figures.champion_sha256 != figures.sha256:
        ours, theirs = figures.sha256[:12], figures.champion_sha256[:12]
        return said(
            name, f"images {ours}, the champion's {theirs}: another evaluation set", "", target=target
        )
    if figures.difference is None:
        return said(name, accuracy.not_compared or "not measured", "", target=target)
    lost = figures.difference
    shown = f"at worst, {lost.value:+.2f}, {figures.images} images"
    return at_least(name, lost.low, -case.params.max_ap_loss, target=target, shown=shown, form=_signed)


def _of_the_costs(case: Case, target: str, cost: Cost) -> Iterator[Gate]:
    params = case.params
    if cost.images in (None, NOISE):
        seen = "noise" if cost.images else "nobody knows what"
        told = f"measured on {seen}: bring the evaluation shards there and run the benchmark again"
        yield said("parity with PyTorch", told, "", target=target)
    elif cost.parity_px is None:
        yield said("parity with PyTorch", "not measured: the weights were not there", "", target=target)
    else:
        yield at_most(
            "parity with PyTorch", cost.parity_px, params.max_parity_px, target=target, form=_pixels
        )
    for budget in cost.budgets:
        need = (
            f"{budget.budget}: {budget.key} {'not measured' if budget.measured is None else budget.measured}"
        )
        problem = None if budget.kept else f"{need} of {budget.limit:g}"
        yield said("budget", problem, f"{need} of {budget.limit:g}", target=target)
    yield from _beside_the_champion(case, target, cost)


def _beside_the_champion(case: Case, target: str, cost: Cost) -> Iterator[Gate]:
    """Costs in times of the champion's, measured in the same run; of latency the unfavourable end counts."""
    params, name = case.params, "costs / champion"
    if case.first:
        yield not_asked(name, FIRST, target)
        return
    if cost.champion_version is not None and cost.champion_picked is None:
        yield not_asked(name, cost.not_compared or NOTHING_THERE, target)
        return
    if not {"latency", "memory", "size"} <= cost.beside.keys():
        yield said(name, cost.not_compared or "not measured", "", target=target)
        return
    latency = cost.beside["latency"]
    if latency.high is None:
        told = f"{_times(latency.ratio)} with too few rounds to be sure; raise `rounds`"
        yield said("latency / champion", told, "", target=target)
        rows = []
    else:
        shown = f"at worst, {latency.ratio:.2f} ×, {cost.p50_ms:.2f} ms"
        rows = [("latency", latency.high, params.max_latency_ratio, shown)]
    memory, size = cost.beside["memory"].ratio, cost.beside["size"].ratio
    rows += [("memory", memory, params.max_memory_ratio, f"{cost.memory_mb:.0f} MB")]
    rows += [("size", size, params.max_size_ratio, f"{cost.file_mb:.1f} MB")]
    if (held := cost.beside.get("gpu_memory")) is not None:
        shown = f"{cost.gpu_memory_mb or 0:.0f} MB"
        rows += [("GPU memory", held.ratio, params.max_memory_ratio, shown)]
    elif cost.device == "gpu":
        told = "NVML did not tell it of both models on this machine"
        yield not_asked("GPU memory / champion", told, target)
    for what, ratio, limit, shown in rows:
        yield at_most(f"{what} / champion", ratio, limit, target=target, shown=shown, form=_times)


def _points(value: float) -> str:
    return f"{value:.1f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def _pixels(value: float) -> str:
    return f"{value:.3f} px"


def _times(value: float) -> str:
    return f"{value:.2f} ×"


def _days(value: float) -> str:
    return f"{value:.1f} days"
