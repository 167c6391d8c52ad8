"""Versions of a registered model, and the aliases and tags by which others find the champion.

`champion` and `previous` follow the journal. `settle` may be run by anybody at any time, and twice: it sets
what is not yet as the last entry says, and looks again whether that is still the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rtmpose.files import UserError, retried
from rtmpose.promotion import journal
from rtmpose.promotion.journal import Standing
from rtmpose.tracking.answers import no_answer, reachable
from rtmpose.tracking.runs import client, is_there, refuse_absent, tracking_uri

CHAMPION, PREVIOUS = "champion", "previous"
TAG = "promotion."
PAUSE = 0.05  # seconds before a write is tried again: two who insert the same alias disturb each other
Value = TypeVar("Value")


@dataclass(frozen=True)
class Version:
    """A version of a registered model; `aliases` are those that point to it."""

    name: str
    number: str
    run_id: str
    tags: Mapping[str, str]
    created_ms: int
    aliases: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} version {self.number}"


def model_names() -> list[str]:
    """All registered models but the entries of journals; none where there is no store yet."""
    if not is_there():
        return []
    store, names, token = client(), list[str](), None
    with reachable(tracking_uri()):
        while True:
            page = store.search_registered_models(max_results=journal.PAGE, page_token=token)
            names += [model.name for model in page if not journal.is_entry(model.name)]
            token = page.token
            if not token:
                return sorted(names)


def versions(name: str) -> list[Version]:
    """All versions, the newest first; UserError where there is no such registered model."""
    aliases = _aliases(name)
    store, found, token = client(), list[Version](), None
    with reachable(tracking_uri()):
        while True:
            page = store.search_model_versions(f"name = '{name}'", max_results=journal.PAGE, page_token=token)
            found += [_version(each, aliases) for each in page]
            token = page.token
            if not token:
                return sorted(found, key=lambda version: -int(version.number))


def find(name: str, which: str) -> Version:
    """The version with a number, or that an alias such as `candidate` points to; UserError without one."""
    aliases = _aliases(name)
    number = aliases.get(which, which)
    if not number.isdecimal():
        known = ", ".join(sorted(aliases)) or "none"
        raise UserError(
            f"{name}: has no alias {which!r} (it has {known}); give a version's number or an alias"
        )
    found = _known(lambda: client().get_model_version(name, number))
    if found is None:
        raise UserError(f"{name} version {number}: no such version; `rtmpose models show {name}` lists them")
    return _version(found, aliases)


def stand(name: str) -> Standing:
    """What the journal says of a model; UserError where there is no such registered model."""
    adopted = _aliases(name).get(CHAMPION)
    return journal.standing(journal.read(name), adopted)


def present_champions(name: str, found: Standing) -> list[str]:
    """The champions whose versions exist, from the first one to today's."""
    existing = {version.number for version in versions(name)}
    return [number for number in found.champions if number in existing]


def previous(name: str, found: Standing) -> str | None:
    """What a rollback goes back to: the newest other champion whose version exists."""
    others = [number for number in present_champions(name, found) if number != found.champion]
    return next(reversed(others), None)


def unsettled(name: str) -> str | None:
    """How aliases differ from what the journal says; None where they do not. A version that was deleted has
    no alias, and needs none.
    """
    found, aliases = stand(name), _aliases(name)
    if found.last is None:
        return None
    champion = found.champion if found.champion in present_champions(name, found) else None
    pairs = ((CHAMPION, champion), (PREVIOUS, previous(name, found)))
    wrong = [
        f"alias {alias} is at {aliases.get(alias, 'nothing')}, by the journal at {wanted or 'nothing'}"
        for alias, wanted in pairs
        if aliases.get(alias) != wanted
    ]
    return "; ".join(wrong) or None


def settle(name: str) -> Standing:
    """Bring aliases and tags to where the last entry says; what the journal says in the end is returned.

    Another may write an entry, and settle it, while this one is on its way with an older one. So it looks for
    a further entry right before it moves `champion`, and once more afterwards: who writes last, has read
    the last entry. An alias stands at an older version at most between these two looks, where a process was
    paused exactly there.
    """
    found = stand(name)
    while found.last is not None:
        following = found.next_number
        _tag(name, found)
        _point(name, PREVIOUS, previous(name, found))
        if not journal.has(name, following):
            _point(name, CHAMPION, found.champion)
        if not journal.has(name, following):
            return found
        found = stand(name)
    return found


def _point(name: str, alias: str, number: str | None) -> None:
    """Move an alias, unless it is there. An alias to a version that was deleted cannot be set: it goes."""
    if _aliases(name).get(alias) == number:
        return
    gone = number is None or _known(lambda: client().get_model_version(name, number)) is None
    with reachable(tracking_uri()):
        if gone:
            _again(lambda: client().delete_registered_model_alias(name, alias))
        else:
            _again(lambda: client().set_registered_model_alias(name, alias, number))


def _tag(name: str, found: Standing) -> None:
    """Say on the versions themselves who decided what, when and why. What an earlier decision said and this
    one does not, goes: no reason stands beside a decision that it was not given for.
    """
    last = found.last
    assert last is not None
    told = {
        "rolled_back": "",
        "entry": str(last.number),
        "action": last.action,
        "by": last.who,
        "at": last.when.isoformat(),
    }
    told |= {"why": last.why, "decision": last.decision or "", "evidence_sha256": last.evidence_sha256 or ""}
    _tag_version(name, last.version, told)
    for number, entry in found.rolled_back.items():
        if entry == last:
            _tag_version(
                name, number, {"rolled_back": f"by {last.who} at {last.when.isoformat()}: {last.why}"}
            )


def _tag_version(name: str, number: str, told: Mapping[str, str]) -> None:
    """Set these tags, by their names after `TAG`; those without a value are deleted."""
    version = _known(lambda: client().get_model_version(name, number))
    if version is None:
        return
    with reachable(tracking_uri()):
        for key, value in told.items():
            if value and version.tags.get(TAG + key) != value:
                _set_tag(name, number, TAG + key, value)
            elif not value and TAG + key in version.tags:
                _delete_tag(name, number, TAG + key)


def _set_tag(name: str, number: str, key: str, value: str) -> None:
    _again(lambda: client().set_model_version_tag(name, number, key, value))


def _delete_tag(name: str, number: str, key: str) -> None:
    _again(lambda: client().delete_model_version_tag(name, number, key))


def _aliases(name: str) -> dict[str, str]:
    """Versions' numbers by alias."""
    refuse_absent(name)
    model = _known(lambda: client().get_registered_model(name))
    if model is None or journal.is_entry(name):
        raise UserError(f"{name}: no such registered model; `rtmpose models list` lists them")
    return {alias: str(number) for alias, number in model.aliases.items()}


def _version(found: Any, aliases: Mapping[str, str]) -> Version:
    mine = tuple(sorted(alias for alias, number in aliases.items() if number == str(found.version)))
    return Version(
        found.name, str(found.version), str(found.run_id), dict(found.tags), found.creation_timestamp, mine
    )


def _known(action: Callable[[], Value]) -> Value | None:
    """What a store answers, None where it has no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return action()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise no_answer(tracking_uri(), error) from None


def _again(write: Callable[[], Any]) -> None:
    """A write that may be done twice, tried again where two processes disturbed each other. What was deleted
    meanwhile needs it no more.
    """
    from mlflow.exceptions import MlflowException

    def missing(error: Exception) -> bool:
        return isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST"

    try:
        retried(write, PAUSE, is_final=missing)
    except MlflowException as error:
        if not missing(error):
            raise
