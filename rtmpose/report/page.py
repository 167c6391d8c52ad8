"""The page itself: sections put into the template, with everything escaped that is not our own markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rtmpose.files import UserError, write_atomic
from rtmpose.report.blocks import Figure, Section
from rtmpose.report.folder import Folder
from rtmpose.report.sections.accuracy import accuracy
from rtmpose.report.sections.again import again
from rtmpose.report.sections.curves import curves
from rtmpose.report.sections.data import data, network_name
from rtmpose.report.sections.deployment import confidence, gates, latency
from rtmpose.report.sections.faults import faults

STATIC = Path(__file__).parent / "static"
SECTIONS: tuple[Callable[[Folder], Section], ...] = (
    accuracy, faults, confidence, latency, gates, data, curves, again,
)  # fmt: skip


def render(run: Folder, made: datetime | None = None) -> str:
    """The whole page of a run; what is missing of it says so in its place."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    sections = [make(run) for make in SECTIONS]
    figures: list[Figure] = [figure for section in sections for figure in section.figures]
    environment = Environment(
        loader=FileSystemLoader(STATIC), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    template = environment.get_template("page.html.j2")
    return template.render(
        title=_title(run),
        run=run,
        made=(made or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
        style=re.sub(r"\n\s*", "\n", (STATIC / "page.css").read_text()),
        sections=sections,
        figures=figures,
    )


def write(run: Folder, out: Path) -> Path:
    """Render a run's page into a file."""
    return write_atomic(out, render(run))


def _title(run: Folder) -> str:
    """What the page is called: the network and its recipe, where parameters say so."""
    try:
        params = run.params()
    except UserError:
        return "A run of RTMPose"
    width, height = params.input_size
    return f"{network_name(params.model)} {width}×{height}, recipe {params.recipe}"
