"""`rtmpose doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from rtmpose.files import UserError

commands = typer.Typer()


@commands.command()
def doctor(
    recipe: Annotated[
        str | None, typer.Option(help="A recipe of conf/recipe/ (default: what params.yaml says now).")
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("-S", "--set", help="A parameter, as `dvc exp run -S` takes it; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what this machine can do, what the recipe lacks here, and the command that mends it.

    Exit code 0 where the recipe can run, 2 where something is missing. Nothing is written, and nobody is
    asked but the addresses that you have set.
    """
    from rtmpose.doctor.run import examine

    report = examine([*([f"recipe={recipe}"] if recipe else []), *(override or [])])
    if as_json:
        typer.echo(report.to_json())
    else:
        for line in report.lines():
            typer.echo(line)
    if report.lacks:
        raise UserError(
            f"{report.recipe or 'a recipe'} cannot run here: "
            f"{', '.join(dict.fromkeys(each.what for each in report.lacks))} (marked above)"
        )
