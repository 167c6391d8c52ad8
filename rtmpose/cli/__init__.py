"""The command `rtmpose`: one module for each group of commands."""

from __future__ import annotations


def main() -> None:
    """Run the command line as it was called; see `rtmpose.cli.app.main`."""
    from rtmpose.cli import app

    app.main()
