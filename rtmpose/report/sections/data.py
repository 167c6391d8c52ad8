"""What was trained, on which data, under which licences."""

from __future__ import annotations

from pathlib import Path

from rtmpose.config import ModelParams
from rtmpose.files import UserError
from rtmpose.report.blocks import Figure, Note, Part, Section, Table, section
from rtmpose.report.folder import Folder, Mix, Receipt, Source

RECEIPT, PRETRAINED, MIX = "models/receipt.json", "models/pretrain.json", "data/mix.json"
COMPARED = "metrics/compare.json"
UNKNOWN = "not known"
BASELINES = {"resnet50": "ResNet-50", "hrnet_w32": "HRNet-W32", "hrnet_w48": "HRNet-W48"}


def data(run: Folder) -> Section:
    return section("data", "Model and data", lambda: _model(run), lambda: _sets(run), lambda: _evaluated(run))


def _model(run: Folder) -> Part:
    params, receipt = run.params(), run.read(RECEIPT, Receipt)
    (width, height), model = params.input_size, params.model
    other = None if model.activation == "silu" else model.activation
    built = [each for each in (model.backbone, other, model.neck, model.head) if each is not None]
    rows = [
        ("recipe", params.recipe),
        ("network", f"{network_name(params.model)} ({', '.join(built)})"),
        ("input", f"{width}×{height} px"),
        ("points", params.skeleton),
        ("finetuned on", f"{receipt.samples or '?'} samples in {receipt.steps or '?'} updates"),
        ("best epoch", f"{receipt.best_epoch or '?'} of {params.finetune.epochs}"),
        *_distilled(receipt),
        ("computed in", f"{receipt.precision or '?'} on {', '.join(receipt.devices) or 'a device not told'}"),
        ("loss", f"τ {receipt.tau}, σ {_sigma(receipt.sigma)}"),
        ("weights", f"sha256 {receipt.sha256}"),
        ("training run", f"{receipt.run_id or 'not told'} (MLflow)"),
    ]
    if params.pretrain.enabled:
        before = run.read(PRETRAINED, Receipt)
        rows.insert(4, ("pretrained on", f"{before.samples or '?'} samples in {before.steps or '?'} updates"))
    return Part((Table.of("What was trained", ("", ""), rows),))


def network_name(model: ModelParams) -> str:
    """What the network is called by: RTMPose and RTMW are CSPNeXt with their own necks and heads."""
    if model.backbone != "cspnext":
        return BASELINES[model.backbone]
    if model.head != "simcc":
        return f"CSPNeXt-{model.size}"
    return f"{'RTMPose' if model.neck is None else 'RTMW'}-{model.size}"


def _distilled(receipt: Receipt) -> list[tuple[str, str]]:
    """The teacher, and the head that was trained afresh behind the first stage."""
    rows = []
    if receipt.teacher is not None:
        name, known = Path(receipt.teacher).name, receipt.teacher_sha256 or UNKNOWN
        rows.append(("guided by", f"{name}, sha256 {known}"))
    if (head := receipt.head) is not None:
        compared = f"AP {100 * head.best_AP:.1f} after {100 * head.first_AP:.1f} on the tuning split"
        cost = f"{head.samples or '?'} samples in {head.steps or '?'} updates"
        taken = "taken" if head.taken else "left aside"
        rows.append(("fresh head", f"{taken}: {compared}; {cost}, best epoch {head.best_epoch or '?'}"))
    return rows


def _sigma(sigma: list[float] | None) -> str:
    return "not told" if sigma is None else " / ".join(f"{one:.2f}" for one in sigma) + " bins"


def _sets(run: Folder) -> Part:
    """The data of the weights, with what they began from; the mix says how much of it there is."""
    sources, told = sources_of(run)
    counts = {}
    try:
        counts = {entry.manifest_sha256: entry for entry in run.read(MIX, Mix).train}
    except UserError as error:
        told = [*told, Note(f"Samples and repeats are not known: {error}.", "missing")]
    rows = []
    for source in sources:
        entry = counts.get(source.sha256)
        samples = f"{entry.samples:,}" if entry else "–"
        repeat = f"×{entry.repeat}" if entry else "–"
        licence = source.licence or UNKNOWN
        rows.append((source.name, source.use, samples, repeat, licence, source.sha256[:16]))
    unknown = [source.name for source in sources if UNKNOWN in (source.licence or UNKNOWN)]
    if unknown:
        told = [*told, Note(f"The licence is not known: {', '.join(unknown)}.", "warning")]
    head = ("set", "used for", "persons", "an epoch", "licence", "sha256 of its manifest")
    figures = (Figure("data sets", str(len(sources)), "with their licences below"),) if sources else ()
    return Part((Table.of("Data in the weights", head, rows), *told), figures)


def sources_of(run: Folder) -> tuple[list[Source], list[Note]]:
    """The sources by the receipt; by what was compared, where the run is older than receipts that say so."""
    receipt = run.read(RECEIPT, Receipt)
    if receipt.data is not None:
        return receipt.data, []
    content = run.object(COMPARED).get("data")
    found = [Source.model_validate(one) for one in content] if isinstance(content, list) else []
    note = "The training receipt names no data; these are the sets of the last stage of training alone"
    return found, [Note(f"{note}, by the exported file.", "warning")]


def _evaluated(run: Folder) -> Part:
    mix = run.read(MIX, Mix)
    rows = [
        (entry.dataset, use, f"{entry.samples:,}", entry.licence or UNKNOWN, entry.manifest_sha256[:16])
        for use, entries in (("choice of the checkpoint", mix.tune), ("evaluation", mix.val))
        for entry in entries
    ]
    head = ("set", "used for", "images", "licence", "sha256 of its manifest")
    return Part((Table.of("Data that was held out", head, rows),))
