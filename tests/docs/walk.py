"""Runs commands one after another in one process, so that PyTorch is imported once.

`python -m tests.docs.walk FILE`, where FILE holds a JSON list of lists of words.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path


def run(words: list[str]) -> None:
    """One command: `rtmpose …` by its command line, `python -m MODULE …` by the module's main."""
    print("$", *words, flush=True)
    if words[0] == "rtmpose":
        import typer.main

        from rtmpose.cli.app import app

        typer.main.get_command(app).main(words[1:], standalone_mode=False)
    else:
        import_module(words[2]).main(words[3:])


if __name__ == "__main__":
    for command in json.loads(Path(sys.argv[1]).read_text()):
        run(command)
