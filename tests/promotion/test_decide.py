"""Promote, refuse, go back: on a store, by what the store says afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rtmpose.files import UserError
from rtmpose.promotion import decide, evidence, journal, registry
from rtmpose.promotion.decide import judge, promote, rollback
from rtmpose.tracking import runs
from tests.promotion.versions import ASKED, NAME, TARGET, aliases, hashes, register, training_run

pytestmark = pytest.mark.usefixtures("store")


def promoted(which: str, name: str = NAME) -> str | None:
    return promote(judge(name, which, ASKED), ASKED).champion


@pytest.fixture
def run_id() -> str:
    return training_run()


def test_the_first_champion_needs_no_champion(run_id: str) -> None:
    register(run_id)
    judgement = judge(NAME, "candidate", ASKED)
    assert not judgement.failed and not aliases().get("champion"), judgement.gates
    not_asked = {gate.name for gate in judgement.gates if gate.found == "no champion yet"}
    assert {"costs / champion", "AP easy − champion", "keypoint names"} <= not_asked
    assert promote(judgement, ASKED).champion == "1"
    assert aliases() == {"candidate": "1", "champion": "1"}


def test_absolute_floors_hold_for_the_first_one_too(run_id: str) -> None:
    register(run_id)
    high = replace(ASKED, params=ASKED.params.model_copy(update={"min_ap": 90.0}))
    judgement = judge(NAME, "1", high)
    assert [gate.name for gate in judgement.failed] == ["AP easy"] and judgement.failed[0].margin == -31
    with pytest.raises(UserError, match=r"pose version 1 is not promoted: 1 of \d+ gates fail \(AP easy\)"):
        promote(judgement, high)
    assert aliases() == {"candidate": "1"} and journal.read(NAME) == []


def test_a_drill_forward_and_back(run_id: str) -> None:
    """Three champions, back twice, no further; who was rolled back stays so."""
    register(run_id)
    assert promoted("1") == "1"
    for number in ("2", "3"):
        register(run_id, str(int(number) - 1))
        assert promoted(number) == number
    assert aliases() == {"candidate": "3", "champion": "3", "previous": "2"}
    back = rollback(NAME, replace(ASKED, who="bob", why="left and right are swapped"))
    assert (back.champion, registry.previous(NAME, back)) == ("2", "1")
    assert aliases() == {"candidate": "3", "champion": "2", "previous": "1"}
    again = judge(NAME, "3", ASKED)
    told = {gate.name: gate.found for gate in again.failed}
    assert (
        told["never rolled back"] == "rolled back by bob: left and right are swapped; --again if it is meant"
    )
    assert not judge(NAME, "3", replace(ASKED, again=True)).failed
    digest = registry.find(NAME, "3").tags["sha256"]  # the same file under another number
    register(run_id, "2", tags={"sha256": digest})
    assert "never rolled back" in [gate.name for gate in judge(NAME, "4", ASKED).failed]
    assert rollback(NAME, ASKED).champion == "1"
    assert aliases() == {"candidate": "4", "champion": "1"}
    with pytest.raises(UserError, match="no champion before 1 to go back to"):
        rollback(NAME, ASKED)
    actions = [(entry.action, entry.version, entry.before) for entry in journal.read(NAME)]
    assert actions[3:] == [("rollback", "2", "3"), ("rollback", "1", "2")]


def test_who_why_and_the_evidence_stay_with_the_version(run_id: str, tmp_path: Path) -> None:
    register(run_id)
    promoted("1")
    version = registry.find(NAME, "champion")
    assert (version.tags["promotion.by"], version.tags["promotion.why"]) == ("ada", "better")
    _, digest = evidence.fetch(version)
    assert version.tags["promotion.evidence_sha256"] == digest
    place = version.tags["promotion.decision"]
    told = json.loads(Path(runs.client().download_artifacts(run_id, place, str(tmp_path))).read_text())
    assert told["thresholds"]["min_ap"] == 40 and told["entry"]["who"] == "ada"
    assert {gate["verdict"] for gate in told["gates"]} == {"holds", "not asked"}


def test_a_reason_stands_beside_its_own_decision_alone(run_id: str) -> None:
    """Ada's reason does not become bob's, and who is champion again is not marked as rolled back."""
    register(run_id)
    promoted("1")
    register(run_id, "1")
    promoted("2")
    rollback(NAME, replace(ASKED, who="bob", why=""))
    tags = registry.find(NAME, "1").tags
    assert (tags["promotion.by"], tags["promotion.action"]) == ("bob", "rollback")
    assert not {"promotion.why", "promotion.decision", "promotion.evidence_sha256"} & tags.keys()
    assert registry.find(NAME, "2").tags["promotion.rolled_back"].startswith("by bob at ")
    again = replace(ASKED, again=True)
    assert promote(judge(NAME, "2", again), again).champion == "2"
    tags = registry.find(NAME, "2").tags
    assert (tags["promotion.by"], tags["promotion.why"]) == ("ada", "better")
    assert "promotion.rolled_back" not in tags


def test_a_promotion_judged_before_another_one_loses(run_id: str) -> None:
    register(run_id)
    promoted("1")
    for _ in range(2):
        register(run_id, "1")
    early = judge(NAME, "2", ASKED)
    assert promoted("3") == "3"
    with pytest.raises(UserError, match="meanwhile ada made version 3 champion"):
        promote(early, ASKED)
    late = judge(NAME, "2", ASKED)
    assert [gate.name for gate in late.failed] == ["measured beside the champion"]
    assert aliases() == {"candidate": "3", "champion": "3", "previous": "1"}


def test_what_a_killed_promotion_left_is_finished_by_the_next(run_id: str) -> None:
    register(run_id)
    judgement = judge(NAME, "1", ASKED)
    entry = decide._entry(NAME, "promote", "1", judgement.standing, ASKED)
    assert journal.write(NAME, entry) and "champion" not in aliases()
    assert registry.unsettled(NAME) == "alias champion is at nothing, by the journal at 1"
    assert promoted("1") == "1" and aliases()["champion"] == "1"
    assert registry.unsettled(NAME) is None and len(journal.read(NAME)) == 1
    runs.client().delete_registered_model_alias(NAME, "champion")  # or somebody's hand
    assert promoted("1") == "1" and aliases()["champion"] == "1"


def test_a_writer_that_wakes_late_leaves_the_last_entry_standing(
    run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paused right before it moves the alias, while another promotes a further version."""
    register(run_id)
    promoted("1")
    register(run_id, "1")
    register(run_id, "2")
    slept: list[str] = []
    point = registry._point

    def paused(name: str, alias: str, number: str | None) -> None:
        if alias == "champion" and number == "2" and not slept:
            slept.append(number)
            assert promoted("3") == "3"
        point(name, alias, number)

    monkeypatch.setattr(registry, "_point", paused)
    assert promoted("2") == "3"  # what it says is what stands
    assert slept and aliases() == {"candidate": "3", "champion": "3", "previous": "2"}


def test_a_champion_set_by_hand_counts_until_the_first_entry(run_id: str) -> None:
    register(run_id)
    runs.client().set_registered_model_alias(NAME, "champion", "1")
    register(run_id, "1")
    assert promoted("2") == "2" and aliases()["previous"] == "1"
    assert rollback(NAME, ASKED).champion == "1"


def test_a_version_that_is_not_whole_is_neither_promoted_nor_gone_back_to(run_id: str) -> None:
    register(run_id)
    promoted("1")
    register(run_id, "1")
    promoted("2")
    folder = Path(runs.client().get_run(run_id).info.artifact_uri.removeprefix("file://"))
    (folder / "model/1/artifacts/rtmpose.int8.onnx").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"pose version 1: cannot be champion again: .*rtmpose\.int8\.onnx"):
        rollback(NAME, ASKED)
    assert aliases()["champion"] == "2"
    register(run_id, "2")
    (folder / "model/3/artifacts/rtmpose.onnx").unlink()
    assert "files" in [gate.name for gate in judge(NAME, "3", ASKED).failed]


def test_deleted_versions_are_passed_over(run_id: str) -> None:
    for champion in (None, "1", "2"):
        promoted(register(run_id, champion))
    runs.client().delete_model_version(NAME, "2")
    assert registry.unsettled(NAME) == "alias previous is at nothing, by the journal at 1"
    assert promoted("3") == "3" and aliases()["previous"] == "1" and registry.unsettled(NAME) is None
    assert rollback(NAME, ASKED).champion == "1" and "previous" not in aliases()


def test_a_champion_that_was_deleted_lifts_no_gate(run_id: str) -> None:
    """Who deletes the champion's version goes back first; where none is left, that has to be said."""
    for champion in (None, "1"):
        promoted(register(run_id, champion))
    register(run_id)  # measured when nobody was champion any more
    alone = replace(ASKED, no_champion=True)
    runs.client().delete_model_version(NAME, "2")
    for asked in (ASKED, alone):
        told = {gate.name: gate.found for gate in judge(NAME, "3", asked).failed}
        assert told["measured beside the champion"] == "version 2 was deleted: `rtmpose rollback` first"
    assert registry.unsettled(NAME) is None and "champion" not in aliases()
    assert decide.way_out(NAME, registry.stand(NAME)) == "`rtmpose rollback pose`"
    assert rollback(NAME, ASKED).champion == "1"
    runs.client().delete_model_version(NAME, "1")
    told = {gate.name: gate.found for gate in judge(NAME, "3", ASKED).failed}
    assert told["measured beside the champion"].startswith(
        "version 1 was deleted: none is left, --no-champion"
    )
    assert decide.way_out(NAME, registry.stand(NAME)).endswith("`rtmpose promote pose VERSION --no-champion`")
    with pytest.raises(UserError, match="no champion before 1 to go back to"):
        rollback(NAME, ASKED)
    assert promote(judge(NAME, "3", alone), alone).champion == "3"
    assert aliases() == {"candidate": "3", "champion": "3"} and registry.unsettled(NAME) is None


def test_a_file_stays_rolled_back_although_its_version_was_deleted(run_id: str) -> None:
    for champion in (None, "1", "2"):
        promoted(register(run_id, champion))
    copies = [register(run_id, "3", tags={"sha256": hashes(number)["rtmpose.onnx"]}) for number in ("2", "3")]
    runs.client().delete_model_version(NAME, "2")
    assert rollback(NAME, replace(ASKED, who="bob")).champion == "1"  # from 3, and past 2
    runs.client().delete_model_version(NAME, "3")
    for copy in copies:
        told = {gate.name: gate.found for gate in judge(NAME, copy, ASKED).failed}
        assert told["never rolled back"].startswith("rolled back by bob"), copy


def test_evidence_that_was_changed_does_not_count(run_id: str) -> None:
    register(run_id)
    place = f"{evidence.folder(NAME, '1')}/{evidence.NAME}"
    runs.client().log_text(run_id, "{}", place)
    (gate,) = judge(NAME, "1", ASKED).gates
    assert gate.verdict == "fails" and "is not what was attached to it" in gate.found
    runs.client().delete_model_version_tag(NAME, "1", evidence.DIGEST_TAG)
    (gate,) = judge(NAME, "1", ASKED).gates
    assert "nothing was measured of it" in gate.found


@pytest.mark.parametrize(
    ("name", "which", "reason"),
    [
        ("pose", "7", "pose version 7: no such version"),
        ("pose", "best", "has no alias 'best' (it has candidate)"),
        ("nobody", "1", "nobody: no such registered model"),
    ],
)
def test_mistakes_are_one_line(run_id: str, name: str, which: str, reason: str) -> None:
    register(run_id)
    with pytest.raises(UserError) as caught:
        judge(name, which, ASKED)
    assert reason in str(caught.value)


def test_a_target_that_nothing_was_measured_on_is_refused(run_id: str) -> None:
    register(run_id)
    judgement = judge(NAME, "1", replace(ASKED, targets=(TARGET, "rpi5")))
    assert [(gate.target, gate.found) for gate in judgement.failed] == [("rpi5", "not measured")]


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({}, "has no tag 'rtmpose.journal'"),
        ({journal.KIND: "{}"}, "its tag 'rtmpose.journal' is no entry"),
    ],
)
def test_a_journal_that_somebody_wrote_into_is_told(run_id: str, tags: dict[str, str], reason: str) -> None:
    register(run_id)
    runs.client().create_registered_model(f"{NAME}.promotion.1", tags=tags)
    with pytest.raises(UserError, match=rf"registered model pose\.promotion\.1: {reason}"):
        judge(NAME, "1", ASKED)
    assert registry.model_names() == [NAME]  # entries are no models
