"""One field of a raw annotation file, read: numbers, flags, ids, boxes, points, sizes, as people's tools
write them.

There are three answers. A value: numbers may come as text (`"40"`), flags as 0 or 1, true or false, or either
as text. Unknown: the field is absent, null, empty text or not a number (NaN); sizes and areas of 0 and below
are unknown too, since none is. Or a UserError, one line with the file, the id, the field and what stands
there: a value that means nothing (`"abc"`, a list, true for a number) is never guessed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.files import UserError

Points = NDArray[
    np.float64
]  # (K, 3): x, y in px of the image, v 0 not labelled, 1 labelled but hidden, 2 seen

FLAGS = {"0": False, "1": True, "false": False, "true": True, "0.0": False, "1.0": True}
SHOWN = 60  # characters of a wrong value that a message shows


def number(value: Any, where: str) -> float | None:
    """A finite number; None where it is unknown. `where` names file, id and field in the UserError."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    found = _float(value)
    if found is None:
        raise UserError(f"{where}: {shown(value)} is not a number; correct it, or leave the field out")
    return found if math.isfinite(found) else None


def positive(value: Any, where: str) -> float | None:
    """A number above 0; None where it is unknown, 0 or negative."""
    found = number(value, where)
    return found if found is not None and found > 0 else None


def flag(value: Any, where: str) -> bool:
    """True or false; unknown is false."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in FLAGS:
        return FLAGS[text]
    if value is None or text in ("", "nan"):
        return False
    raise UserError(f"{where}: {shown(value)} is neither 0 nor 1; correct it, or leave the field out")


def whole(value: Any, where: str) -> int:
    """A whole number, such as an annotation's id."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _float(value)
    if found is None or not found.is_integer():
        raise UserError(f"{where} {shown(value)} is not a whole number; number the annotations")
    return int(value) if isinstance(value, str) and is_digits(value) else int(found)


def identity(value: Any) -> int | str | None:
    """What an id is compared by: whole numbers and their text are the same id ("7", 7.0 and 7); None for
    null.

    Text with leading zeros stays text: it is a name.
    """
    if isinstance(value, str):
        return int(value) if is_digits(value) and (value == "0" or not value.startswith("0")) else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


Four = tuple[float, float, float, float]


def four(value: Any) -> Four | None:
    """Four finite numbers; None for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 4:
        return None
    a, b, c, d = (_float(part) for part in value)
    if a is None or b is None or c is None or d is None:
        return None
    return (a, b, c, d) if all(map(math.isfinite, (a, b, c, d))) else None


def box(value: Any) -> Four | None:
    """A box (x, y, w, h) px with a size; None where there is none: null, not four numbers, no width or
    height, or an area beyond all numbers.
    """
    found = four(value)
    return found if found is not None and min(found[2:]) > 0 and found[2] * found[3] < math.inf else None


def is_box_or_unknown(value: Any) -> bool:
    """Whether a box is not there, or four numbers, however large: anything else is its writer's mistake."""
    if value is None or value in ("", []):
        return True
    known = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 4
    return known and all(part is None or _float(part) is not None for part in value)


def points(value: Any, count: int, where: str) -> Points:
    """A flat list of x, y, v -> (K, 3); null becomes NaN, which `labelled_points` judges.

    UserError when it is not `count` points long, or holds something else than numbers.
    """
    return rows(value, count, 3, where)


def rows(value: Any, count: int, width: int, where: str) -> Points:
    """A list of numbers, flat or nested -> (count, width); null becomes NaN. UserError as of `points`."""
    try:
        numbers = np.asarray(value, np.float64).ravel()
    except OverflowError:
        raise UserError(f"{where}: a number in it is too large; correct it") from None
    except (TypeError, ValueError):
        raise UserError(f"{where}: something in it is not a number; correct it") from None
    if len(numbers) != width * count:
        raise UserError(f"{where}: has {len(numbers)} numbers, expected {width * count} ({count} points)")
    return numbers.reshape(-1, width)


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, and not too long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _float(value: Any) -> float | None:
    """A number, NaN and infinity among them; None where it is no number. True is none: it is a flag."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:
        return math.inf


def is_digits(text: str) -> bool:
    """Whether a text is a whole number of at most 18 digits: ASCII's alone, "²" is a digit to Python too."""
    return text.isascii() and text.isdigit() and len(text) < 19


class ImageIds:
    """The ids of the images that a file lists, found again from what annotations and detections write for
    them.

    The same id counts first. Where there is none, text and number of the same value are one id, as long as
    the images have no two such.
    """

    def __init__(self, listed: Iterable[Any]) -> None:
        self.listed = {value for value in listed if isinstance(value, Hashable)}
        same = Counter(identity(value) for value in self.listed)
        self.alike = {identity(value): value for value in self.listed if same[identity(value)] == 1}

    def find(self, value: Any) -> Any:
        """The listed id that `value` stands for; None where no image has it."""
        if isinstance(value, Hashable) and value in self.listed:
            return value
        known = identity(value)
        return None if known is None else self.alike.get(known)
