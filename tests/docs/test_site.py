"""The site: links from pages to the checkout lead into it, and nothing of it asks the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ci.site import moved
from tests.support import ROOT


@pytest.mark.parametrize(
    ("link", "page", "wanted"),
    [
        ("../README.md", "own_data.md", "repository/README.md"),
        ("training.md", "own_data.md", "training.md"),
        ("../video.md", "reference/python.md", "../video.md"),
        ("docs/own_data.md", "repository/README.md", "../own_data.md"),
        ("CONTRIBUTING.md", "repository/README.md", "CONTRIBUTING.md"),
        ("benchmarks/RESULTS.md", "repository/README.md", "benchmarks/RESULTS.md"),
        ("../docs/quantize.png", "repository/benchmarks/RESULTS.md", "../../quantize.png"),
        ("https://example.org/a", "own_data.md", "https://example.org/a"),
    ],
)
def test_where_a_link_leads_in_the_site(link: str, page: str, wanted: str) -> None:
    assert moved(link, page) == wanted


def test_every_page_is_in_the_navigation_and_fonts_are_our_own() -> None:
    content = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = {page for section in content["nav"] for pages in section.values() for page in pages}
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert written <= listed
    assert all((ROOT / page.removeprefix("repository/")).exists() for page in listed if "repository/" in page)
    assert content["theme"]["font"] is False and "offline" in content["plugins"]


def test_the_picture_has_a_dark_form_and_no_address_but_its_own_names() -> None:
    text = Path(ROOT / "docs/architecture.svg").read_text()
    assert "prefers-color-scheme: dark" in text and text.count("http") == 1  # the name space
