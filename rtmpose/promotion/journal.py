"""Who is champion, written down so that of two promotions at once exactly one wins.

MLflow moves an alias without asking where it stood: two processes that read, check and set it both "win". So
the alias is not the record. The record is a journal, entry by entry. Entry N of a model is a registered model
without versions called `NAME.promotion.N`, and the name of a registered model is unique in every store. Who
decided on what the journal said up to N - 1 writes entry N; of two who did, the second is told that the name
is taken, and has decided on what is no longer so. An entry comes with all that it says in one transaction.

Nothing is locked, so no lock can be left behind: a writer that is paused before it writes finds its number
taken when it wakes, and one that is killed has written its entry or none. Aliases and tags follow the journal
(`rtmpose.promotion.registry`); what a killed writer left undone there, anybody finishes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from rtmpose.config import Strict
from rtmpose.files import UserError
from rtmpose.tracking.answers import no_answer, reachable
from rtmpose.tracking.runs import client, tracking_uri

MARK = ".promotion."
KIND = "rtmpose.journal"  # the tag that an entry says everything in
PAGE = 500
Action = Literal["promote", "rollback"]
LONGEST = 500  # characters of a reason: a tag holds 5,000


class Entry(Strict):
    """One decision: `version` is champion since, `before` was it until then (None: nobody). The hashes are of
    their exported files (None: not known), so that the journal knows a file whose version was deleted.
    """

    number: int = Field(ge=1)
    action: Action
    version: str
    before: str | None
    sha256: str | None = None
    before_sha256: str | None = None
    who: str
    when: AwareDatetime
    why: str = Field(max_length=LONGEST)
    evidence_sha256: str | None = None
    decision: str | None = Field(
        None, description="where the gates are told, as an artifact of the version's run"
    )
    attempt: str = Field(default_factory=lambda: uuid.uuid4().hex)


class Standing(Strict):
    """What the journal says: its last entry, the champions from the first one to today's, who was rolled back
    by which entry, and the hashes of exported files by their version's number.
    """

    last: Entry | None
    champions: tuple[str, ...]
    rolled_back: dict[str, Entry] = Field(default_factory=dict)
    sha256: dict[str, str] = Field(default_factory=dict)

    @property
    def champion(self) -> str | None:
        return self.champions[-1] if self.champions else None

    @property
    def next_number(self) -> int:
        return self.last.number + 1 if self.last else 1


def standing(entries: Iterable[Entry], adopted: str | None = None) -> Standing:
    """Replay a journal. `adopted`: the champion by its alias, who counts where there is no entry yet.

    A promotion adds a champion; a rollback goes back to an earlier one, and forgets those after it. UserError
    where an entry does not follow from those before it: some were removed.
    """
    champions: list[str] = []
    rolled_back: dict[str, Entry] = {}
    hashes: dict[str, str] = {}
    last = None
    for number, last in enumerate(sorted(entries, key=lambda entry: entry.number), start=1):
        if number == 1 and last.before is not None:
            champions.append(last.before)
        fits = last.number == number and last.before == (champions[-1] if champions else None)
        if not fits or (last.action == "rollback" and last.version not in champions[:-1]):
            raise UserError(
                f"journal of promotions: entry {last.number} does not follow from those before it; "
                f"registered models whose names end in {MARK}N must stay: restore what was deleted"
            )
        known = ((last.version, last.sha256), (last.before, last.before_sha256))
        hashes |= {version: digest for version, digest in known if version and digest}
        if last.action == "rollback":
            kept = max(place for place, one in enumerate(champions[:-1], start=1) if one == last.version)
            rolled_back |= dict.fromkeys(champions[kept:], last)
            del champions[kept:]
        else:
            champions.append(last.version)
            rolled_back.pop(last.version, None)  # somebody meant it
    if last is None and adopted is not None:
        champions.append(adopted)
    return Standing(last=last, champions=tuple(champions), rolled_back=rolled_back, sha256=hashes)


def read(name: str) -> list[Entry]:
    """The journal of a registered model, from its first entry to its last."""
    store, found, token = client(), list[Entry](), None
    prefix = name + MARK
    with reachable(tracking_uri()):
        while True:
            # `%` and `_` of a name stand for anything here: what comes back is looked at once more.
            page = store.search_registered_models(
                f"name LIKE '{_quoted(prefix)}%'", max_results=PAGE, page_token=token
            )
            found += [_entry(model) for model in page if model.name.startswith(prefix)]
            token = page.token
            if not token:
                return sorted(found, key=lambda entry: entry.number)


def write(name: str, entry: Entry) -> bool:
    """Write an entry unless its number is taken -> whether it is ours."""
    from mlflow.exceptions import MlflowException

    store, place = client(), f"{name}{MARK}{entry.number}"
    with reachable(tracking_uri()):
        try:
            store.create_registered_model(place, tags={KIND: entry.model_dump_json()})
            return True
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # A request may have arrived although its answer was lost; it was then sent again.
        return _entry(store.get_registered_model(place)).attempt == entry.attempt


def has(name: str, number: int) -> bool:
    """Whether a journal has an entry of that number."""
    from mlflow.exceptions import MlflowException

    try:
        client().get_registered_model(f"{name}{MARK}{number}")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise no_answer(tracking_uri(), error) from None
        return False
    return True


def is_entry(model_name: str) -> bool:
    """Whether a registered model is an entry of a journal, and no model."""
    name, mark, number = model_name.rpartition(MARK)
    return bool(name and mark) and number.isdecimal()


def _entry(model: Any) -> Entry:
    """UserError where somebody else made a registered model of that name, or changed what it says."""
    name, _, number = model.name.rpartition(MARK)
    text = model.tags.get(KIND)
    fix = f"it stands in the journal of {name}: put its tag '{KIND}' back, or rename the model"
    if text is None:
        raise UserError(f"registered model {model.name}: has no tag '{KIND}'; {fix}")
    try:
        entry = Entry.model_validate_json(text)
    except ValueError:
        raise UserError(f"registered model {model.name}: its tag '{KIND}' is no entry; {fix}") from None
    if str(entry.number) != number:
        raise UserError(f"registered model {model.name}: says that it is entry {entry.number}; {fix}")
    return entry


def _quoted(text: str) -> str:
    if "'" in text:
        raise UserError(
            f"model {text.partition(MARK)[0]!r}: a name with a quote cannot be looked up; rename it"
        )
    return text
