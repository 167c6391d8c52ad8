"""The page of a run: whole, with nothing fetched and everything escaped; what is missing says so."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rtmpose.files import UserError
from rtmpose.report import charts
from rtmpose.report.blocks import Chart, Section, Table
from rtmpose.report.folder import SOURCES, Folder
from rtmpose.report.page import SECTIONS, render
from rtmpose.report.sections.accuracy import accuracy
from rtmpose.report.sections.faults import faults
from rtmpose.report.source import found, present
from tests.report.conftest import HOSTILE, JPEG

VOID = {"meta", "link", "img", "br"}


class Elements(HTMLParser):
    """Every element with its attributes; elements that are not closed in their order are a fault."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def page(run: Folder) -> str:
    return render(run)


def test_a_page_is_whole_and_fetches_nothing(page: str) -> None:
    elements = Elements(page)
    assert elements.open == [] and page.startswith("<!DOCTYPE html>")
    assert {tag for tag, _ in elements.found}.isdisjoint({"script", "iframe", "object", "base", "form"})
    for _, attributes in elements.found:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes
        assert not any(name.startswith("on") for name in attributes), attributes
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids)), "an id is there twice"
    linked = {str(one["href"])[1:] for one in elements.all("a")}
    assert linked == {make(Folder(Path("none"), "", "")).id for make in SECTIONS} <= set(ids)


def test_names_are_text(page: str) -> None:
    assert HOSTILE not in page and "onerror=alert" in page and "&lt;img src=x" in page
    assert {str(one["src"])[:23] for one in Elements(page).all("img")} == {"data:image/jpeg;base64,"}
    assert page.count(JPEG) == 3


def test_charts_have_words_and_numbers(run: Folder, page: str) -> None:
    sections: list[Section] = [make(run) for make in SECTIONS]
    drawn = [block for section in sections for block in section.blocks if isinstance(block, Chart)]
    assert len(drawn) == 8
    for chart in drawn:
        assert chart.alt.endswith(".") and chart.table.rows and "<svg" in chart.svg
        # Every colour follows the page's: nothing of Matplotlib's own is left.
        assert not re.search(r"(fill|stroke): #", chart.svg), chart.title
        assert "DejaVu" not in chart.svg and "mathdefault" not in chart.svg
    images = Elements(page).all("img")
    assert images and all(one.get("alt") for one in images)
    named = [one for one in Elements(page).all("div") if one.get("role") == "img"]
    assert len(named) == len(drawn) and all(one.get("aria-label") for one in named)


def text_of(section: Section) -> str:
    """Everything that a section says, without its charts."""
    return json.dumps([repr(block) for block in section.blocks if not isinstance(block, Chart)])


@pytest.mark.parametrize("name", [name for name in SOURCES if "*" not in name and "register" not in name])
def test_what_is_missing_or_damaged_says_so_in_its_place(
    run: Folder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for draw in ("lines", "whiskers", "shares", "bars", "reliability", "costs"):
        monkeypatch.setattr(charts, draw, lambda *given, **more: "<svg></svg>")  # the time is theirs
    if name == "metrics/compare.json":
        (run.path / name).write_text("{}")  # it was not there
    whole = render(run)
    (run.path / name).write_text('{"cut off')
    damaged = render(run)
    (run.path / name).unlink()
    missing = render(run)
    for page in (damaged, missing):
        assert Elements(page).open == [] and page != whole
        assert name in page
    others = [line for line in whole.splitlines() if line.startswith("<h2")]
    assert [line for line in missing.splitlines() if line.startswith("<h2")] == others


def test_a_folder_without_anything_is_refused_and_its_page_would_be_whole(tmp_path: Path) -> None:
    assert Elements(render(Folder(tmp_path, "nothing", "unknown"))).open == []
    for given in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=r"folder|holds nothing"), found(str(given)):
            pass


def test_a_folder_is_found_with_the_files_that_it_has(folder: Path) -> None:
    with found(str(folder)) as run:
        assert (run.path, run.name, run.commit, run.conf) == (folder, "run", "unknown", None)
    assert Path("reports/mistakes.json") in present(folder)
    assert Path("metrics/compare.json") not in present(folder)


def test_figures_are_those_of_the_files(run: Folder) -> None:
    table, chart = (block for block in accuracy(run).blocks[:2])
    assert isinstance(table, Table) and isinstance(chart, Chart)
    cells = dict(zip(table.head, table.rows[0], strict=True))
    assert (cells["AP"], cells["95 % interval"]) == ("63.8", "61.5 to 65.8")
    assert (cells["AP on detector boxes"], cells["mean pose"]) == ("55.0", "–")
    (kinds,) = (
        block for block in faults(run).blocks if isinstance(block, Chart) and "mending" in block.title
    )
    gained = {row[1]: row[4] for row in kinds.table.rows}
    assert gained == {"jitter": "+6.2", "inversion": "+2.2", "swap": "+0.2", "miss": "+16.2", "all": "+35.2"}


def test_an_unknown_licence_is_told(page: str) -> None:
    assert "The licence is not known: old.pt." in page
    assert "rendered here" in page
