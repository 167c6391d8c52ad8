"""What the page is made of. Everything is text, but for a chart's SVG: the template escapes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from rtmpose.files import UserError, unbroken


@dataclass(frozen=True)
class Table:
    """Rows of text; columns whose cells are all numbers stand to the right."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    kind: Literal["table"] = "table"

    @classmethod
    def of(cls, caption: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
        return cls(caption, tuple(head), tuple(tuple(row) for row in rows))

    @property
    def right(self) -> tuple[bool, ...]:
        """Which columns hold numbers."""
        return tuple(
            any(row[place] for row in self.rows) and all(_is_number(row[place]) for row in self.rows)
            for place in range(len(self.head))
        )


@dataclass(frozen=True)
class Chart:
    """A picture of numbers, in words too (`alt`), with the numbers under it."""

    title: str
    svg: str  # markup of ours: numbers and escaped names
    alt: str
    table: Table
    kind: Literal["chart"] = "chart"


@dataclass(frozen=True)
class Picture:
    """A photograph with what is drawn on it: a JPEG as base64."""

    jpeg: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    caption: str
    pictures: tuple[Picture, ...]
    kind: Literal["gallery"] = "gallery"


@dataclass(frozen=True)
class Note:
    """A sentence; a `warning` is one that nobody should read over."""

    text: str
    level: Literal["plain", "warning", "missing"] = "plain"
    kind: Literal["note"] = "note"


@dataclass(frozen=True)
class Code:
    """Commands to copy."""

    text: str
    kind: Literal["code"] = "code"


Block = Table | Chart | Gallery | Note | Code


@dataclass(frozen=True)
class Figure:
    """A number that the page begins with."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    blocks: tuple[Block, ...]
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Part:
    """Blocks of a section, and figures for the top of the page."""

    blocks: tuple[Block, ...]
    figures: tuple[Figure, ...] = ()


def section(id: str, title: str, *parts: Callable[[], Part]) -> Section:
    """A section of parts that are each there, or say in their place why they are not."""
    blocks: list[Block] = []
    figures: list[Figure] = []
    for part in parts:
        try:
            found = part()
        except UserError as error:
            note = Note(f"Not there: {unbroken(str(error))}.", "missing")
            blocks += [note] if note not in blocks else []  # parts may lack the same file
            continue
        blocks += found.blocks
        figures += found.figures
    return Section(id, title, tuple(blocks), tuple(figures))


def _is_number(text: str) -> bool:
    """Whether a cell is a number, perhaps with a unit or an interval, or empty."""
    return not text or text.lstrip("+−-≤≥ ")[:1].isdigit() or text == "–"
