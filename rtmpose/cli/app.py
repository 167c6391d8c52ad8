"""The command `rtmpose`: its groups of commands, and how it ends when a user made a mistake.

Everything slow is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import typer

from rtmpose.cli import data, deploy, detector, judge, models, people, registry, released, serve
from rtmpose.doctor import command as doctor
from rtmpose.ending import run_command

app = typer.Typer(
    name="rtmpose",
    help="RTMPose: find people's keypoints in images, and move weights from training to deployment. "
    "Training itself is the workflow `make repro` (DVC stages in dvc.yaml).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(models.commands)
app.add_typer(people.commands)
app.add_typer(deploy.commands)
app.add_typer(registry.commands)
app.add_typer(released.commands)
app.add_typer(released.weights, name="weights")
app.add_typer(judge.commands)
app.add_typer(doctor.commands)
app.add_typer(serve.commands)
app.add_typer(data.commands, name="dataset")
app.add_typer(detector.commands, name="detector")


def main() -> None:
    """Entry point; what goes wrong ends as `run_command` says."""
    run_command(app)


if __name__ == "__main__":
    main()
