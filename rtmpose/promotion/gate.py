"""One gate: what was asked, what was found, and by how much it held or failed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from rtmpose.config import Strict

Verdict = Literal["holds", "fails", "not asked"]


class Gate(Strict):
    """A row of the table. `margin` is how far the found figure lies on the good side of the allowed one, in
    the gate's own unit; below 0 it fails. Gates without a figure have none.
    """

    name: str
    target: str = ""
    verdict: Verdict
    found: str
    allowed: str = ""
    margin: float | None = None


def said(name: str, problem: str | None, found: str, *, target: str = "", allowed: str = "") -> Gate:
    """A gate without a figure: it fails where there is a problem, which is told instead of what was found."""
    if problem is not None:
        return Gate(name=name, target=target, verdict="fails", found=problem, allowed=allowed)
    return Gate(name=name, target=target, verdict="holds", found=found, allowed=allowed)


def not_asked(name: str, reason: str, target: str = "") -> Gate:
    """A gate that does not concern this promotion, and why."""
    return Gate(name=name, target=target, verdict="not asked", found=reason)


def at_least(
    name: str, value: float, floor: float, *, target: str = "", shown: str = "", form: Callable[[float], str]
) -> Gate:
    """Fails below the floor. `shown` is told beside the figure that counts, such as its interval."""
    return _measured(name, value, floor, value - floor, target, shown, form, "≥ ")


def at_most(
    name: str, value: float, limit: float, *, target: str = "", shown: str = "", form: Callable[[float], str]
) -> Gate:
    """Fails above the limit."""
    return _measured(name, value, limit, limit - value, target, shown, form, "≤ ")


def _measured(
    name: str,
    value: float,
    bound: float,
    margin: float,
    target: str,
    shown: str,
    form: Callable[[float], str],
    sign: str,
) -> Gate:
    found = f"{form(value)} {shown}".strip()
    # NaN is on no good side: `not margin >= 0` fails it.
    verdict: Verdict = "holds" if margin >= 0 else "fails"
    return Gate(
        name=name,
        target=target,
        verdict=verdict,
        found=found,
        allowed=sign + form(bound),
        margin=margin if math.isfinite(margin) else None,
    )
