"""What the documentation's site needs besides `docs/`: files of the checkout that its pages link to.

MkDocs calls the functions by their names. A link to `../README.md`, which is right where the repository is
read, leads to a copy below `repository/` in the site; so do links of copied pages to each other.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PLACE = "repository"  # where files from outside docs/ are in the site
#: Of the checkout, what a page may link to.
CARRIED = (
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/*.md",
    "benchmarks/*.json",
    "datasets/*.yaml",
    "conf/**/*.yaml",
    "deploy_targets/*.yaml",
    "rtmpose/config/*.py",
)
LINK = re.compile(r"(\]\()([^)#\s]+)([^)]*\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside docs/."""
    from mkdocs.structure.files import File

    for pattern in CARRIED:
        for path in sorted(ROOT.glob(pattern)):
            place = f"{PLACE}/{path.relative_to(ROOT).as_posix()}"
            files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page to where their targets are in the site."""
    return LINK.sub(lambda found: found[1] + moved(found[2], page.file.src_uri) + found[3], markdown)


def moved(link: str, page: str) -> str:
    """A relative link of a page at `page` in the site, as it is in the site; addresses stay as they are.

    >>> moved("../README.md", "own_data.md"), moved("docs/own_data.md", "repository/README.md")
    ('repository/README.md', '../own_data.md')
    """
    if "://" in link or link.startswith(("/", "mailto:")):
        return link
    inside = page.removeprefix(f"{PLACE}/")
    source = inside if inside != page else f"docs/{page}"
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    target = target.removeprefix("docs/") if target.startswith("docs/") else f"{PLACE}/{target}"
    return posixpath.relpath(target, posixpath.dirname(page) or ".")
