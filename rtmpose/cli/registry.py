"""Registered models: which there are, which is champion, and how a candidate becomes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer()
models = typer.Typer(no_args_is_help=True, help="Registered models and their versions.")
commands.add_typer(models, name="models")

NameArgument = Annotated[str, typer.Argument(help="A registered model; `rtmpose models list` lists them.")]
WhyOption = Annotated[str, typer.Option(help="The reason, kept with the decision.")]
WhoOption = Annotated[str, typer.Option(help="Who decides (default: this user on this machine).")]


@commands.command()
def promote(
    name: NameArgument,
    version: Annotated[str, typer.Argument(help="A version's number, or an alias such as candidate.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at every gate, change nothing.")] = False,
    new_skeleton: Annotated[
        bool, typer.Option("--new-skeleton", help="The points may differ from the champion's.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Although somebody went back from this very file.")
    ] = False,
    no_champion: Annotated[
        bool, typer.Option("--no-champion", help="Although all versions that were champion are deleted.")
    ] = False,
    target: Annotated[
        list[str] | None, typer.Option(help="A required target (default: promotion.targets, else targets).")
    ] = None,
    why: WhyOption = "",
    who: WhoOption = "",
    params: Annotated[Path, typer.Option(help="Where the thresholds stand.")] = Path("params.yaml"),
) -> None:
    """Make a version the champion if every gate holds; without one, say what failed and by how much.

    Gates are the thresholds in `promotion:` of params.yaml, for what was measured of the registered files.
    """
    from rtmpose.config import load_params
    from rtmpose.files import UserError
    from rtmpose.promotion import decide, registry, report

    wanted = {"new_skeleton": new_skeleton, "again": again, "who": who, "why": why}
    wanted |= {"no_champion": no_champion}
    asked = decide.Asked.of(load_params(params), target or (), **wanted)
    judgement = decide.judge(name, version, asked)
    if judgement.is_champion:
        typer.echo(f"{judgement.version} is the champion already")
    else:
        typer.echo(report.table(judgement.gates))
        typer.echo(report.verdict(judgement))
    if dry_run:
        if judgement.failed and not judgement.is_champion:
            raise UserError(f"{judgement.version} would not be promoted; nothing was changed")
        return
    standing = decide.promote(judgement, asked)
    typer.echo(f"champion of {name}: version {standing.champion}")
    if (previous := registry.previous(name, standing)) is not None:
        typer.echo(f"`rtmpose rollback {name}` goes back to version {previous}")


@commands.command()
def report(
    run: Annotated[
        str, typer.Argument(help="A folder with a run, the id of an MLflow run, or models:/NAME@ALIAS.")
    ] = ".",
    out: Annotated[Path, typer.Option("-o", "--out", help="The page to write.")] = Path("report.html"),
) -> None:
    """A run on one page: one HTML file that fetches nothing. What the run lacks says so in its place."""
    from rtmpose.report.page import write
    from rtmpose.report.source import found

    with found(run) as folder:
        typer.echo(write(folder, out))


@commands.command()
def rollback(name: NameArgument, why: WhyOption = "", who: WhoOption = "") -> None:
    """Make the champion before the present one champion again."""
    from rtmpose.config import PromotionParams
    from rtmpose.promotion import decide

    standing = decide.rollback(name, decide.Asked(PromotionParams(), (), who=who, why=why))
    assert standing.last is not None
    typer.echo(
        f"champion of {name}: version {standing.champion} again; version {standing.last.before} was rolled "
        "back"
    )


@models.command("list")
def list_models() -> None:
    """Registered models, their champions and candidates."""
    from rtmpose.promotion import registry, report

    names = registry.model_names()
    typer.echo(report.listing([(name, registry.versions(name)) for name in names]))


@models.command()
def show(
    name: NameArgument,
    version: Annotated[
        str | None, typer.Argument(help="A version's number or an alias: all its tags.")
    ] = None,
) -> None:
    """The versions of a model, or all that one of them says of itself."""
    from rtmpose.promotion import decide, journal, registry, report

    if version is not None:
        typer.echo(report.details(registry.find(name, version)))
        return
    typer.echo(report.shown(registry.versions(name), journal.read(name)))
    standing = registry.stand(name)
    if standing.champion and standing.champion not in registry.present_champions(name, standing):
        typer.echo(
            f"version {standing.champion}, the champion, was deleted: {decide.way_out(name, standing)}"
        )
    elif (wrong := registry.unsettled(name)) is not None:
        typer.echo(f"{wrong}; `rtmpose promote {name} {standing.champion}` sets it right")
