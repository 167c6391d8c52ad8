"""What is shown: the table of gates, models and versions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rtmpose.promotion.decide import Judgement
from rtmpose.promotion.gate import Gate
from rtmpose.promotion.journal import Entry
from rtmpose.promotion.registry import Version

HEAD = ("gate", "target", "found", "allowed", "margin", "")
LICENCE = "licence."  # how the tags begin that say the terms of a data set
UNNOTED = "not noted: it was registered before versions had licences; its evidence has them"
WIDEST = 72  # characters of what was found; the rest stands in the decision's file


def table(gates: Sequence[Gate]) -> str:
    """One line for each gate; those that fail say so at the end of the line."""
    rows = [HEAD, *(_row(gate) for gate in gates)]
    return _aligned(rows)


def _row(gate: Gate) -> tuple[str, ...]:
    found = gate.found if gate.verdict == "fails" else gate.found[:WIDEST]
    margin = "" if gate.margin is None else f"{gate.margin:+.2f}"
    return (
        gate.name,
        gate.target or "-",
        found,
        gate.allowed,
        margin,
        gate.verdict.upper() if (gate.verdict == "fails") else gate.verdict,
    )


def verdict(judgement: Judgement) -> str:
    """The whole in one line."""
    asked = [gate for gate in judgement.gates if gate.verdict != "not asked"]
    rest = len(judgement.gates) - len(asked)
    failed = judgement.failed
    champion = judgement.standing.champion
    against = f"the champion, version {champion}" if champion else "no champion"
    line = f"{judgement.version}: {len(asked) - len(failed)} of {len(asked)} gates hold against {against}"
    return line + (f"; {rest} not asked" if rest else "")


def advice(judgement: Judgement) -> str:
    """What comes next, in one line: the command that promotes, or what is in its way."""
    version, failed = judgement.version, judgement.failed
    command = f"rtmpose promote {version.name} {version.number}"
    if judgement.is_champion:
        return f"{version} is the champion"
    if failed:
        names = ", ".join(dict.fromkeys(gate.name for gate in failed))
        return f"{verdict(judgement)}; refused by {names} (look: {command} --dry-run)"
    return f"{verdict(judgement)}; do it: {command}"


def listing(models: Sequence[tuple[str, Sequence[Version]]]) -> str:
    """Registered models, with their versions' count and aliases."""
    rows: list[tuple[str, ...]] = [("model", "versions", "champion", "previous", "candidate")]
    for name, versions in models:
        at = {alias: version.number for version in versions for alias in version.aliases}
        aliases = (at.get(alias, "-") for alias in ("champion", "previous", "candidate"))
        rows.append((name, str(len(versions)), *aliases))
    return _aligned(rows)


def shown(versions: Sequence[Version], entries: Sequence[Entry]) -> str:
    """Versions of one model, the newest first: aliases, when registered, the file, and what was decided last
    of each by the journal's entries; then the licences of the data in each.
    """
    rows = [("version", "aliases", "registered", "sha256", "decided")]
    decided = _decided(entries)
    for version in versions:
        when = datetime.fromtimestamp(version.created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        digest, aliases = version.tags.get("sha256", "-")[:12], ", ".join(version.aliases) or "-"
        rows.append((version.number, aliases, when, digest, decided.get(version.number, "-")))
    return "\n".join([_aligned(rows), *_licences(versions)])


def _licences(versions: Sequence[Version]) -> Iterator[str]:
    """A line for each data set in versions, under those that have the same ones."""
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for version in versions:
        told = sorted((key, said) for key, said in version.tags.items() if key.startswith(LICENCE))
        alike.setdefault(tuple(told), []).append(version.number)
    for noted, numbers in alike.items():
        yield f"licences of version{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}:"
        yield from (f"  {key.removeprefix(LICENCE)}: {said}" for key, said in noted)
        if not noted:
            yield f"  {UNNOTED}"


def details(version: Version) -> str:
    """Everything that a version says of itself, the licences of its data among it."""
    tags = dict(version.tags)
    if not any(tag.startswith(LICENCE) for tag in tags):
        tags["licence"] = UNNOTED
    return _aligned([("tag", "value"), *sorted(tags.items())])


def _decided(entries: Sequence[Entry]) -> dict[str, str]:
    """The last decision on each version, by its number."""
    found = {}
    for entry in entries:
        who = f"by {entry.who} at {entry.when:%Y-%m-%d %H:%M}" + (f": {entry.why}" if entry.why else "")
        if entry.action == "rollback":
            found[str(entry.before)] = f"rolled back {who}"
            found[entry.version] = f"champion again {who}"
        else:
            found[entry.version] = f"promoted {who}"
    return found


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the last one is as it is."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
