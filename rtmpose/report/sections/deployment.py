"""What the deployed model costs, whether its confidence is true, and which gates it passes."""

from __future__ import annotations

from rtmpose.deploy.quantize.attempt import Attempt
from rtmpose.files import UserError
from rtmpose.report import charts
from rtmpose.report.blocks import Block, Chart, Figure, Note, Part, Section, Table, section
from rtmpose.report.folder import Export, Folder, Registered
from rtmpose.report.sections.accuracy import attempts_of

EXPORTED, RELIABILITY, PICKED = "metrics/export.json", "metrics/confidence.csv", "metrics/pick.json"
REGISTERED = "metrics/register.json"


def confidence(run: Folder) -> Section:
    return section("confidence", "Confidence", lambda: _calibration(run))


def latency(run: Folder) -> Section:
    return section("latency", "Latency and AP", lambda: _targets(run))


def gates(run: Folder) -> Section:
    return section("gates", "Gates", lambda: _gates(run))


def _calibration(run: Folder) -> Part:
    figures = run.read(EXPORTED, Export).confidence
    if figures is None:
        raise UserError("confidence is not calibrated: there were too few labelled points to fit it to")
    rows = run.columns(RELIABILITY, "low", "high", "count", "probability", "right")
    if not rows:
        raise UserError(f"{RELIABILITY}: holds no rows; {run.fix(RELIABILITY)}")
    svg = charts.reliability("chart-reliability", [(row[3], row[4], row[2]) for row in rows])
    error, before = figures.calibration_error, figures.calibration_error_before
    alt = (
        f"Claimed probability beside the share that came true, in {len(rows)} bins; the expected calibration "
        f"error is {error:.3f}."
    )
    table = Table.of(
        "Claimed and come true", ("from", "to", "points", "claimed", "right"),
        [(f"{low:.2f}", f"{high:.2f}", f"{count:.0f}", f"{claimed:.3f}", f"{right:.3f}")
         for low, high, count, claimed, right in rows],
    )  # fmt: skip
    text = (
        f"Expected calibration error {error:.3f} on {figures.tested_on:.0f} points that the curve was not "
        f"fitted to; {before:.3f} for raw scores (arXiv 1706.04599, equation 3). A point is right within "
        "half a standard deviation of OKS's Gaussian."
    )
    return Part(
        (Chart("Reliability of confidence", svg, alt, table), Note(text)),
        (Figure("calibration error", f"{error:.3f}", "expected; 0 is best"),),
    )


def _targets(run: Folder) -> Part:
    content = run.object(PICKED)
    if not content:
        raise UserError(f"{PICKED}: names no target; {run.fix(PICKED)}")
    blocks: list[Block] = []
    figures: list[Figure] = []
    for number, (target, one) in enumerate(content.items()):
        attempts = attempts_of(one, target)
        picked = one.get("picked")
        blocks += _target(number, target, attempts, picked)
        chosen = next((attempt for attempt in attempts if attempt.name == picked), None)
        if chosen is not None and chosen.latency is not None:
            note = f"{target}: {chosen.runtime} {chosen.precision}"
            figures.append(Figure("median latency", f"{chosen.latency.p50_ms:.2f} ms", note))
    return Part(tuple(blocks), tuple(figures[:1]))


def _target(number: int, target: str, attempts: list[Attempt], picked: str | None) -> list[Block]:
    """The chart of a target: what has both a latency and an AP; the table has all that was tried."""
    rows, groups = [], dict[str, list[tuple[str, float, float]]]()
    for one in attempts:
        first = next(iter(one.sets.values()), None)
        verdict = "picked" if one.name == picked else "; ".join(one.refused) or "passes"
        ms = one.latency
        rows.append((
            f"{one.runtime} {one.precision}", f"{first.ap.value:.1f}" if first else "–",
            f"{ms.p50_ms:.2f}" if ms else "–", f"{ms.p95_ms:.2f}" if ms else "–",
            f"{one.megabytes:.1f}" if one.megabytes else "–", verdict,
        ))  # fmt: skip
        if first is not None and ms is not None and ms.p50_ms > 0:
            groups.setdefault(one.runtime, []).append((one.precision, ms.p50_ms, first.ap.value))
    head = ("runtime", "AP", "p50 ms", "p95 ms", "MB", "verdict")
    table = Table.of(f"{target}: everything that was tried", head, rows)
    if not groups:
        return [Note(f"{target}: nothing has both an AP and a latency.", "missing"), table]
    ringed = next((f"{one.runtime} {one.precision}" for one in attempts if one.name == picked), None)
    svg = charts.costs(f"chart-costs-{number}", groups, ringed)
    quickest = min((ms, f"{runtime} {precision}") for runtime, tried in groups.items()
                   for precision, ms, _ in tried)  # fmt: skip
    alt = (
        f"AP over median latency on {target}: the quickest is {quickest[1]} with {quickest[0]:.2f} ms; "
        f"picked is {ringed or 'nothing'}."
    )
    return [Chart(f"AP over latency on {target}", svg, alt, table)]


def _gates(run: Folder) -> Part:
    """What `rtmpose promote` would say of the registered version now."""
    from rtmpose.promotion.decide import Asked, judge
    from rtmpose.promotion.report import verdict
    from rtmpose.tracking.answers import without_password
    from rtmpose.tracking.models import still_registered
    from rtmpose.tracking.runs import is_there, tracking_uri

    receipt, params = run.read(REGISTERED, Registered), run.params()
    if not is_there() or not still_registered(receipt.model_dump()):
        place = without_password(tracking_uri())
        raise UserError(
            f"{receipt.name} version {receipt.version} is not in {place}; set MLFLOW_TRACKING_URI"
        )
    judgement = judge(receipt.name, str(receipt.version), Asked.of(params))
    rows = [
        (gate.name, gate.target or "–", gate.found, gate.allowed or "–",
         "–" if gate.margin is None else f"{gate.margin:+.2f}",
         "FAILS" if gate.verdict == "fails" else gate.verdict)
        for gate in judgement.gates
    ]  # fmt: skip
    asked = [gate for gate in judgement.gates if gate.verdict != "not asked"]
    held = len(asked) - len(judgement.failed)
    champion = " It is the champion." if judgement.is_champion else ""
    return Part(
        (
            Note(f"{verdict(judgement)}.{champion}", "warning" if judgement.failed else "plain"),
            Table.of("Every gate", ("gate", "target", "found", "allowed", "margin", "verdict"), rows),
        ),
        (Figure("gates", f"{held} of {len(asked)}", "hold"),),
    )
