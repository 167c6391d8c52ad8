"""`rtmpose weights` and `rtmpose convert`: weights that others have released, and how they become ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtmpose.cli.models import (
    FileArgument,
    HeadOption,
    InputOption,
    ParamsOption,
    SizeOption,
    SkeletonOption,
    asked,
)
from rtmpose.cli.options import input_pair
from rtmpose.files import UserError

if TYPE_CHECKING:
    from rtmpose.released.transfer import Tell

commands = typer.Typer()
weights = typer.Typer(help="Weights that others have released: what there is, and fetching them.")

MISFIT = "give --size, --head, --input and --skeleton as it was trained, or none of them"


@weights.command("list")
def list_weights(
    name: Annotated[
        str | None, typer.Argument(help="Show all that is known of these weights; without it, a table.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only pose, detector or backbone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the released weights that are known, or show one of them with its address and terms."""
    from rtmpose.released.catalogue import as_row, catalogue

    if name is not None:
        typer.echo(json.dumps(_details(name), indent=2))
        return
    kinds = {each.kind for each in catalogue().weights.values()}
    if kind not in (None, *kinds):
        raise UserError(f"--kind: {kind!r} is none of {', '.join(sorted(kinds))}")
    rows = [as_row(each, entry) for each, entry in catalogue().weights.items() if kind in (None, entry.kind)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo(_table([list(rows[0]), *([*row.values()] for row in rows)]))
    typer.echo(f"licence: {catalogue().licence}, {catalogue().licence_note}")


@weights.command()
def pull(
    names: Annotated[
        list[str], typer.Argument(help="Names of the list, with their form: rtmpose-m-body17.onnx")
    ],
    cache: Annotated[
        Path | None, typer.Option(help="The folder of caches (default: RTMPOSE_CACHE, or ~/.cache/rtmpose).")
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="The SHA-256 of the published file; counts more than the catalogue's.")
    ] = None,
) -> None:
    """Fetch released weights, unless they are there; prints where they lie.

    A download that broke off is continued. RTMPOSE_MIRRORS names mirrors, addresses or folders, that are
    asked before the publisher.
    """
    from rtmpose.released.download import UNPROVEN, receipt_of
    from rtmpose.released.download import pull as fetched

    sha256 = sha256 and sha256.lower()
    if sha256 is not None and (len(names) > 1 or not _is_sha256(sha256)):
        raise UserError(f"--sha256: {sha256[:80]!r} must be 64 hexadecimal digits, for one name")
    for name in names:
        with _progress(name) as tell:
            path = fetched(name, cache, sha256=sha256, tell=tell)
        known = receipt_of(path)
        if known is not None:
            typer.echo(f"{'note: ' if known.proof == UNPROVEN else ''}{name}: {known.line}", err=True)
            if known.proof == UNPROVEN:
                typer.echo(f"note: {name}: its SHA-256 is {known.fetched_sha256}", err=True)
        typer.echo(path)


@weights.command()
def check(
    file: Annotated[
        Path, typer.Argument(help="A checkpoint, or an ONNX or OpenVINO file; a detector's, too.")
    ],
    size: SizeOption = None,
    input_size: InputOption = None,
    skeleton: SkeletonOption = None,
    head: HeadOption = None,
    params: ParamsOption = None,
) -> None:
    """Load weights safely; say what they are, what does not match the model, and whose data is in them.

    Also for an ONNX or OpenVINO file and for a detector, which say themselves what they are.
    """
    from rtmpose.models import load_weights
    from rtmpose.provenance.sources import lines
    from rtmpose.released.checkpoint import sources_in

    found = _without_options(file)
    given = (size, input_size, skeleton, head, params)
    if found is None:
        model = asked(file, size, head, input_size, skeleton, params).network()
        found = load_weights(model, file)
    elif any(option is not None for option in given):
        raise UserError(f"{file}: {found}: leave --size, --input, --skeleton, --head and --params away")
    typer.echo(f"{file}: {found}")
    for line in lines(sources_in(file)):
        typer.echo(line)


def _without_options(file: Path) -> object:
    """What a file is that says so by itself: one with a network within, or a detector; None for any other."""
    from rtmpose.detection.network import is_rtmdet, load_rtmdet
    from rtmpose.models import read_weights
    from rtmpose.released.graphs import card_in, described, is_graph

    if is_graph(file):
        return described(card_in(file))
    if not is_rtmdet(read_weights(file)):
        return None
    network = load_rtmdet(file)
    return f"RTMDet-{network.size}, {network.classes} class(es)"


@weights.command()
def prune(
    file: FileArgument,
    out: Annotated[Path, typer.Argument(help="The checkpoint (.pt) to write.")],
    to: Annotated[str, typer.Option("--to", help="The smaller size: t, s, m or l.")],
    shards: Annotated[
        Path | None,
        typer.Option(help="Training shards: channels are ranked by the loss on them, not by norms alone."),
    ] = None,
    input_size: InputOption = None,
    skeleton: SkeletonOption = None,
    params: ParamsOption = None,
) -> None:
    """Cut trained weights down to a smaller size: the channels and blocks that matter most stay.

    What is written is an ordinary network of that size. Its accuracy comes back by training: give the file to
    `finetune.init`. Prints the card.
    """
    _refuse_same(file, out)
    from rtmpose.deploy.card import ModelCard
    from rtmpose.descriptors import load_skeleton
    from rtmpose.models import check_names, load_exactly
    from rtmpose.pruning.run import pruned, scores_of
    from rtmpose.released.checkpoint import save_checkpoint, sources_or_itself

    check_names(to, "simcc")
    chosen = asked(file, None, None, input_size, skeleton, params)
    network = chosen.network()
    load_exactly(network, file, MISFIT)
    scores = scores_of(network, load_skeleton(chosen.skeleton), shards)
    smaller = pruned(network, chosen.architecture, to, scores)
    architecture = chosen.architecture.model_copy(update={"size": to})
    card = ModelCard.of(architecture, chosen.input_size, chosen.skeleton)
    card = card.with_more(data=[source.model_dump() for source in sources_or_itself(file)])
    save_checkpoint(out, smaller.state_dict(), card)
    typer.echo(json.dumps({"file": str(out)} | card.model_dump(mode="json")))


@commands.command()
def convert(
    file: Annotated[
        Path, typer.Argument(help="A checkpoint (.pth, .pt), or a SimCC network that others wrote as ONNX.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The file to write (default: NAME.pt, NAME.card.onnx).")
    ] = None,
    size: SizeOption = None,
    input_size: InputOption = None,
    skeleton: SkeletonOption = None,
    head: HeadOption = None,
    params: ParamsOption = None,
) -> None:
    """Make others' weights ours: plain tensors, or the same ONNX file, with a card that says what they are.

    A .pt file goes into `rtmpose export`, `finetune.init` and evaluation; an ONNX file with a card into
    `rtmpose predict`. Prints the card.
    """
    if file.suffix.lower() == ".onnx":
        if head is not None or params is not None:
            raise UserError("--head, --params: an ONNX file has its network within; leave them away")
        card = _converted_graph(file, out or file.with_suffix(".card.onnx"), size, input_size, skeleton)
    else:
        card = _converted_checkpoint(
            file, out or file.with_suffix(".pt"), size, input_size, skeleton, head, params
        )
    typer.echo(json.dumps(card))


def _converted_checkpoint(
    file: Path,
    out: Path,
    size: str | None,
    input_size: str | None,
    skeleton: str | None,
    head: str | None,
    params: Path | None,
) -> dict[str, object]:
    _refuse_same(file, out)
    from rtmpose.deploy.card import ModelCard
    from rtmpose.models import load_exactly
    from rtmpose.released.catalogue import published_at
    from rtmpose.released.checkpoint import save_checkpoint, sources_or_itself

    known = published_at(file)
    if known is not None and known.weights.network not in ("rtmpose", "rtmw", "cspnext"):
        other = f"; its ONNX file runs: {known.weights_name}.onnx" if known.weights.onnx else ""
        raise UserError(f"{file}: a network of {known.weights.network}, which is none of ours{other}")
    chosen = asked(file, size, head, input_size, skeleton, params)
    card = ModelCard.of(chosen.architecture, chosen.input_size, chosen.skeleton)
    card = card.with_more(data=[source.model_dump() for source in sources_or_itself(file)])
    model = card.network()
    load_exactly(model, file, MISFIT)
    save_checkpoint(out, model.state_dict(), card)
    return {"file": str(out)} | card.model_dump(mode="json")


def _converted_graph(
    file: Path, out: Path, size: str | None, input_size: str | None, skeleton: str | None
) -> dict[str, object]:
    _refuse_same(file, out)
    from rtmpose.models import check_names
    from rtmpose.released.adopt import adopt
    from rtmpose.released.catalogue import published_at
    from rtmpose.released.checkpoint import sources_or_itself

    check_names(size or "t", "simcc")
    given = input_pair(input_size) if input_size is not None else None
    known = published_at(file)
    chosen = skeleton or (known.weights.skeleton if known is not None else None)
    if chosen is None:
        raise UserError(f"{file}: give --skeleton: the data set whose points it has, such as coco17")
    card = adopt(file, out, chosen, size=size, input_size=given, data=sources_or_itself(file))
    return {"file": str(out)} | card.model_dump(mode="json")


def _refuse_same(file: Path, out: Path) -> None:
    if out.resolve() == file.resolve():
        raise UserError(f"{file}: would be overwritten; name another file with -o")


def _details(name: str) -> dict[str, object]:
    """All that the catalogue has of weights, by their name or that of one of their files."""
    from rtmpose.released.catalogue import FORMS, catalogue, find, terms
    from rtmpose.released.mirrors import publisher

    entry = catalogue().weights.get(name) or find(name).weights
    said = entry.model_dump(mode="json", exclude_none=True)
    for form in FORMS:
        if form in said:
            said[form]["source"] = catalogue().sources[said[form]["source"]]
            said[form]["address"] = publisher(said[form].pop("path"))
    licence = f"{catalogue().licence}, {catalogue().licence_note}"
    return {"name": name} | said | {"data": terms(entry), "licence": licence}


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(digit in "0123456789abcdef" for digit in text)


def _table(rows: Sequence[Sequence[object]]) -> str:
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


@contextmanager
def _progress(name: str) -> Iterator[Tell]:
    """A bar on a terminal, which grows with the bytes that come; nothing elsewhere."""
    from rtmpose.released.transfer import silent

    if not sys.stderr.isatty():
        yield silent
        return
    with typer.progressbar(length=1, label=name, file=sys.stderr, width=0) as bar:

        def tell(done: int, total: int | None) -> None:
            bar.length = total or max(done, 1)
            bar.update(done - bar.pos)

        yield tell
