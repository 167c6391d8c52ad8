"""Options that several commands have, and how their text becomes values."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from rtmpose.files import UserError

InputOption = Annotated[str, typer.Option("--input", help="Input width x height in pixels.")]


def input_pair(text: str) -> tuple[int, int]:
    """`192x256` → (192, 256)."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and part.isascii() and int(part) > 0 for part in parts):
        raise UserError(f"--input: {text!r} is not WIDTHxHEIGHT, such as 192x256")
    return int(parts[0]), int(parts[1])


def box_numbers(text: str) -> tuple[float, float, float, float]:
    """`x,y,w,h` → finite numbers with a positive size."""
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--box: {text!r} is not x,y,w,h in pixels, such as 120,40,200,380") from None
    if not all(map(math.isfinite, (x, y, w, h))):
        raise UserError(f"--box: {text!r} holds a number that is not finite; give x,y,w,h in pixels")
    if w <= 0 or h <= 0:
        raise UserError(f"--box: {text!r} has no size; give x,y,w,h with w and h above 0")
    return x, y, w, h
