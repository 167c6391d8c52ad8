"""What sets parameters on the command line: Hydra's choices and overrides, of which `conf/` is composed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtmpose.config import Params
from rtmpose.files import UserError, one_line

ABSENT = object()  # in the place of a value: there is no such key
PLAIN_KEY = re.compile(r"[A-Za-z_][\w-]*")  # what a path of an override may be made of
PLAIN_TEXT = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z_][\w./-]*", re.IGNORECASE)


@dataclass(frozen=True)
class Difference:
    """A parameter, or a group of them, that is another one in the run; either value may be ABSENT."""

    key: str
    recipe: Any
    run: Any


@dataclass(frozen=True)
class Composed:
    """How parameters come from `conf/`: the choices that come closest, what differs from these, and the
    overrides that then make them; None where no overrides do.
    """

    choices: tuple[str, ...]
    differences: tuple[Difference, ...]
    overrides: tuple[str, ...] | None


def composed(params: Params, conf: Path) -> Composed:
    """How to compose parameters again. UserError where `conf` has no such recipe, or an older one that does
    not fit.
    """
    ours = params.model_dump(mode="json")
    choices: tuple[str, ...] = (f"recipe={params.recipe}",)
    written, whole = _compose(conf, choices)
    found = tuple(differing(whole, ours))
    if whole["model"]["size"] != params.model.size:
        sized = (*choices, f"model={params.model.size}")
        written_so, whole_so = _compose(conf, sized)
        found_so = tuple(differing(whole_so, ours))
        if len(found_so) < len(found):
            choices, written, found = sized, written_so, found_so
    overrides = tuple(line for one in found for line in _overrides(one, written))
    if not overrides or _gives(conf, (*choices, *overrides), ours):
        return Composed(choices, found, overrides)
    return Composed(choices, found, None)


def differing(recipe: Mapping[str, Any], run: Mapping[str, Any], prefix: str = "") -> Iterator[Difference]:
    """Where two nests of parameters differ, in the run's order. A list is a value, and so is a map that no
    path leads into.
    """
    for key in (*run, *(key for key in recipe if key not in run)):
        theirs, ours, name = recipe.get(key, ABSENT), run.get(key, ABSENT), f"{prefix}{key}"
        if theirs == ours:
            continue
        if _is_group(theirs) and _is_group(ours):
            yield from differing(theirs, ours, f"{name}.")
        else:
            yield Difference(name, theirs, ours)


def _is_group(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(PLAIN_KEY.fullmatch(key) for key in value)


def _overrides(one: Difference, written: Mapping[str, Any]) -> list[str]:
    """What makes the recipe's value the run's. `written` is what the recipe says itself: what it leaves to
    defaults must be added.
    """
    place: Any = written
    for part in one.key.split("."):
        place = place.get(part, ABSENT) if isinstance(place, Mapping) else ABSENT
    if one.run is ABSENT:
        return [f"~{one.key}"]
    value = f"{one.key}={hydra_form(one.run)}"
    if place is ABSENT:
        return [f"+{value}"]
    if isinstance(place, Mapping) and isinstance(one.run, Mapping):  # they would be merged
        return [f"~{one.key}", f"+{value}"]
    return [value]


def hydra_form(value: Any, inner: bool = False) -> str:
    """A value as Hydra's grammar of overrides has it: text in quotes where it needs them, keys without.

    Text that ends in a backslash, or has one before a quote, has no such form here.
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {hydra_form(one, True)}" for key, one in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(hydra_form(one, True) for one in value)}]"
    if isinstance(value, str):
        plain = PLAIN_TEXT.fullmatch(value) and not inner
        return value if plain else '"' + value.replace('"', '\\"') + '"'
    return json.dumps(value)


def _gives(conf: Path, given: Sequence[str], ours: Mapping[str, Any]) -> bool:
    """Whether `conf` composes to the run's parameters, their order included: the first set is the one that
    is reported.
    """
    try:
        return json.dumps(_compose(conf, given)[1]) == json.dumps(ours)
    except UserError:
        return False


def _compose(conf: Path, given: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters as they are written, and with every default filled in, as the run's are."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf.resolve()), version_base=None):
            found: Any = OmegaConf.to_container(compose("config", list(given)), resolve=True)
        return found, Params.model_validate(found).model_dump(mode="json")
    except Exception as error:  # Hydra has many classes, and parameters of another version do not fit
        asked = " ".join(given)
        raise UserError(f"{conf}: {asked!r} cannot be composed ({one_line(error)[:200]})") from None
