"""Stacks of images in one file: as another program writes them, as ours do, and those that are not whole."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rtmpose.data.raw.stacks.metaimage import Stack, extents_of, open_stack, read_header, write_stack
from rtmpose.files import UserError
from tests.support import ROOT

FILES = ROOT / "tests" / "golden"


def page(number: int, height: int = 10, width: int = 12) -> NDArray[np.uint8]:
    """What is in page `number` of `golden/stack_*.mha`, which SimpleITK 2.5.7 wrote from this formula."""
    y, x = np.mgrid[:height, :width]
    filled = (17 * x + 29 * y + 71 * number) % 251 + 1
    filled[8 + number :], filled[:, 10 + number :] = 0, 0
    return np.repeat(filled[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("name", ["stack_raw.mha", "stack_zlib.mha"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1, 1)])
def test_a_stack_of_another_program_is_read_page_by_page(name: str, order: tuple[int, ...]) -> None:
    stack = Stack(FILES / name)
    assert (stack.header.width, stack.header.height, stack.header.pages) == (12, 10, 3)
    for number in order:
        assert np.array_equal(stack.page(number), page(number))


@pytest.mark.parametrize("name", ["stack_raw.mha", "stack_zlib.mha"])
def test_extents_leave_the_padding_out(name: str) -> None:
    assert extents_of(FILES / name).tolist() == [[10, 8], [11, 9], [12, 10]]


@pytest.mark.parametrize("compress", [True, False])
def test_what_is_written_is_read_again_from_any_thread(tmp_path: Path, compress: bool) -> None:
    rng = np.random.default_rng(0)  # noise: a page is longer than what is read of the file at a time
    pages = [rng.integers(0, 256, (600, 700, 3), dtype=np.uint8) for _ in range(4)]
    write_stack(tmp_path / "s.mha", iter(pages), 4, compress=compress)
    stack = open_stack(tmp_path / "s.mha")
    assert open_stack(tmp_path / "s.mha") is stack and stack.header.compressed is compress
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(stack.page, [3, 1, 2, 0, 3]))
    assert all(np.array_equal(a, pages[n]) for a, n in zip(found, (3, 1, 2, 0, 3), strict=True))


def test_a_file_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    for value, size in ((7, 4), (9, 5)):
        write_stack(tmp_path / "s.mha", [np.full((size, size, 3), value, np.uint8)], 1)
        assert open_stack(tmp_path / "s.mha").page(0).max() == value


def test_nothing_is_left_of_a_stack_that_was_not_written_to_its_end(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 pages, 2 were announced"):
        write_stack(tmp_path / "s.mha", [page(0)], 2)
    with pytest.raises(ValueError, match="pages of"):
        write_stack(tmp_path / "s.mha", [page(0), page(0, 5)], 2)
    assert list(tmp_path.iterdir()) == []


def header_with(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old, new, 1)


BAD_HEADERS = {
    "two dimensions": (header_with(b"NDims = 3", b"NDims = 2"), "NDims 2, .* not a stack of images"),
    "no size": (header_with(b"DimSize = 12 10 3", b"DimSize = 12 10"), "DimSize '12 10': not a stack"),
    "negative": (header_with(b"DimSize = 12", b"DimSize = -12"), "not three whole numbers"),
    "16 bits": (header_with(b"MET_UCHAR", b"MET_USHORT"), "ElementType MET_USHORT with 3 channels"),
    "4 channels": (header_with(b"Channels = 3", b"Channels = 4"), "MET_UCHAR with 4 channels"),
    "text for a number": (header_with(b"Channels = 3", b"Channels = x"), "'x': not a whole number"),
    "elsewhere": (header_with(b"= LOCAL", b"= /etc/passwd"), "its pixels lie in another file"),
    "as text": (header_with(b"BinaryData = True", b"BinaryData = False"), "pixels as text"),
    "huge": (header_with(b"DimSize = 12 10", b"DimSize = 99999 99999"), "more than 134 million px"),
    "another file": (lambda content: b"\x89PNG\r\n\x1a\n" + content, "no MetaImage file"),
    "no end": (lambda content: content[:100], "no MetaImage file"),
    "cut": (lambda content: content[:-300], "cut off: .* its header wants"),
}


@pytest.mark.parametrize(("change", "says"), BAD_HEADERS.values(), ids=BAD_HEADERS)
@pytest.mark.parametrize("name", ["stack_raw.mha", "stack_zlib.mha"])
def test_a_header_that_is_none_is_one_line(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes], says: str
) -> None:
    path = tmp_path / "s.mha"
    path.write_bytes(change((FILES / name).read_bytes()))
    with pytest.raises(UserError, match=says) as caught:
        read_header(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_damage_within_compressed_pixels_names_the_image(tmp_path: Path) -> None:
    content = bytearray((FILES / "stack_zlib.mha").read_bytes())
    path = tmp_path / "s.mha"
    path.write_bytes(content[:-200] + bytes(200))
    stack = Stack(path)
    assert np.array_equal(stack.page(0), page(0))  # what lies before the damage is whole
    with pytest.raises(UserError, match=r"s\.mha: (damaged|cut off) at image [23] of 3"):
        stack.page(2)
    short = content.replace(b"DimSize = 12 10 3", b"DimSize = 12 10 9", 1)
    path.write_bytes(short)  # more images than the compressed pixels hold
    with pytest.raises(UserError, match="cut off at image 4 of 9"):
        Stack(path).page(8)


def test_pages_are_counted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no image 4, only 3"):
        Stack(FILES / "stack_raw.mha").page(3)
    with pytest.raises(UserError, match=r"none\.mha: cannot be read"):
        open_stack(tmp_path / "none.mha")
