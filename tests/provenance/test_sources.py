"""Whose data is in weights: from descriptors over manifests, mixes and receipts to weights and tags."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from rtmpose.cli.app import app
from rtmpose.config import load_params
from rtmpose.data.shards.manifest import MANIFEST, manifest_digest
from rtmpose.data.stream.mix import mix_digest
from rtmpose.deploy.card import ModelCard
from rtmpose.descriptors import load_dataset
from rtmpose.files import UserError, sha256_of
from rtmpose.models import build_pose_net, read_weights, save_tensors
from rtmpose.models.archive import read_checkpoint
from rtmpose.promotion.registry import Version
from rtmpose.promotion.report import details, shown
from rtmpose.provenance.sources import (
    RENDERED,
    UNKNOWN,
    DataSource,
    from_note,
    joined,
    licence_of,
    lines,
    note,
    of_mix,
    of_receipt,
    tags,
    used_before,
)
from rtmpose.released.checkpoint import save_checkpoint, sources_before, sources_in
from rtmpose.training import launch
from rtmpose.training.checkpoint import Store
from rtmpose.training.job import weights_digest
from tests.support import ROOT

COCO = DataSource(name="coco17", sha256="a" * 64, licence="CC BY 4.0")
AIC = DataSource(name="aic", sha256="b" * 64, licence="research use only")
DATA = (COCO, AIC)


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return path


def test_a_rendered_set_is_nobodys_and_others_have_their_descriptors_terms() -> None:
    rendered = load_params(ROOT / "params.yaml").datasets["aic"]
    assert licence_of(rendered) == RENDERED
    assert licence_of(rendered.model_copy(update={"render": None})) == load_dataset("aic").licence


def test_a_mix_says_whose_data_it_is_and_an_older_one_has_the_descriptors(tmp_path: Path) -> None:
    entry = {"dataset": "aic", "manifest_sha256": "b" * 64}
    params = load_params(ROOT / "params.yaml")
    mix = written(tmp_path / "mix.json", {"train": [entry | {"licence": "mine"}, entry]})
    assert [one.licence for one in of_mix(mix, params.datasets)] == ["mine", RENDERED]
    assert of_mix(mix, {})[1].licence == UNKNOWN


def test_other_words_for_terms_are_no_other_data(tmp_path: Path) -> None:
    """A manifest and a mix have the hash that they had before they had licences; all else counts."""
    plain = written(tmp_path / "old" / MANIFEST, {"shards": [{"name": "a.tar"}], "url": None})
    told = written(tmp_path / "new" / MANIFEST, {"licence": "x", **json.loads(plain.read_text())})
    assert manifest_digest(told.parent) == manifest_digest(plain.parent) == sha256_of(plain)
    other = written(tmp_path / "other" / MANIFEST, {"licence": "x", "shards": [], "url": None})
    assert manifest_digest(other.parent) != sha256_of(plain)
    entry = {"dataset": "aic", "dir": "x", "manifest_sha256": "b"}
    for name, more in (("a", {}), ("b", {"licence": "x"}), ("c", {"licence": "x", "repeat": 2})):
        (tmp_path / f"{name}.json").write_text(json.dumps({"train": [entry | more]}, indent=1) + "\n")
    a, b, c = (mix_digest(tmp_path / f"{name}.json") for name in "abc")
    assert a == b == sha256_of(tmp_path / "a.json") != c


def test_a_set_stands_once_with_its_last_use() -> None:
    before = used_before((COCO.model_copy(update={"sha256": "c" * 64}), AIC), "pretraining")
    assert [one.use for one in before] == ["pretraining"] * 2
    found = joined(DATA, before)
    assert [(one.name, one.use) for one in found] == [
        ("coco17", "training"), ("aic", "training"), ("coco17", "pretraining")
    ]  # fmt: skip
    again = used_before(found, "initial weights")
    assert {one.use for one in again} == {"initial weights"}
    assert [one.use for one in used_before(again, "pretraining")] == ["initial weights"] * 3


def test_a_note_comes_back_and_what_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    assert from_note({"meta": note(DATA)}, path) == DATA
    assert from_note({"meta": note(())}, path) == ()
    contents: list[Any] = [{}, {"meta": {}}, {"meta": 3}, [1]]
    for content in contents:
        assert from_note(content, path) is None
    whole = '[{"name": "x", "sha256": "", "licence": "", "use": "z"}]'
    for text in ("{}", "[3]", '[{"name": "x"}]', "[", whole):
        with pytest.raises(UserError, match=r"w\.pt: its note of data"):
            from_note({"meta": {"rtmpose.data": text}}, path)


def test_a_receipt_says_whose_data_it_is_or_is_older(tmp_path: Path) -> None:
    told = written(tmp_path / "a.json", {"data": [one.model_dump() for one in DATA]})
    assert of_receipt(told) == DATA
    assert of_receipt(written(tmp_path / "b.json", {"sha256": "x"})) is None
    with pytest.raises(UserError, match=r"c\.json"):
        of_receipt(written(tmp_path / "c.json", {"data": [{"name": 3}]}))


def test_weights_that_are_handed_over_note_their_data(tmp_path: Path) -> None:
    """A finished run that is handed over again takes today's words; its weights stay what they are."""
    store = Store.open(tmp_path, "run", fresh=False)
    store = Store(store.folder, store.token, {"run_id": "1"}, note(DATA))
    store.save({"step": 1, "ema": {"w": torch.ones(2)}})
    assert from_note(store.load(), store.folder) == DATA, "every checkpoint has the note"
    sha256 = store.save_best({"w": torch.ones(2)})
    weights, receipt = tmp_path / "models/w.pt", tmp_path / "models/r.json"
    launch.hand_over(store, {"sha256": sha256}, weights, receipt, DATA)
    assert sha256_of(weights) == sha256 and of_receipt(receipt) == sources_in(weights) == DATA
    today = (COCO.model_copy(update={"licence": "in other words"}), AIC)
    finished = store.finished()
    assert finished is not None
    launch.hand_over(store, finished, weights, receipt, today)
    assert of_receipt(receipt) == sources_in(weights) == today and store.finished() is not None
    assert torch.equal(read_weights(weights)["w"], torch.ones(2))


def test_other_words_train_nothing_anew_and_other_weights_do(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.pt" for number in range(4)]
    save_tensors(paths[0], {"meta": note(DATA), "state_dict": {"w": torch.ones(2)}})
    save_tensors(paths[1], {"meta": note(()), "state_dict": {"w": torch.ones(2)}})
    save_tensors(paths[2], {"meta": note(()), "state_dict": {"w": torch.zeros(2)}})
    save_tensors(paths[3], {"w": torch.ones(2)})
    digests = [weights_digest(path) for path in paths]
    assert digests[0] == digests[1] != digests[2] and digests[3] == sha256_of(paths[3])


def test_weights_that_say_nothing_are_a_source_that_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "found.pt"
    save_tensors(path, {"w": torch.ones(2)})
    assert sources_in(path) is None
    (source,) = sources_before(path, "initial weights")
    assert source == DataSource(
        name="found.pt", sha256=sha256_of(path), licence=UNKNOWN, use="initial weights"
    )
    assert not source.is_known and COCO.is_known


def test_released_weights_have_the_catalogues_terms_and_their_own(tmp_path: Path) -> None:
    from rtmpose.released.catalogue import known

    name, released = next((n, one) for n, one in known().items() if one.form == "pth" and one.weights.data)
    path = tmp_path / name
    save_tensors(path, {"w": torch.ones(2)})
    own, *data = sources_before(path, "initial weights")
    assert (own.name, own.licence, own.sha256) == (released.weights_name, "Apache-2.0", sha256_of(path))
    assert [one.name for one in data] == list(released.weights.data)
    assert all(one.licence and one.use == "initial weights" for one in data)


def test_released_weights_are_known_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what a link leads to, and by the hash where the catalogue has one."""
    from rtmpose.released import catalogue

    known = catalogue.known()
    save_tensors(tmp_path / "cspnext-m-udp-coco.pth", {"w": torch.ones(2)})
    (tmp_path / "udp-aic-coco-m.pt").symlink_to("cspnext-m-udp-coco.pth")
    own, *data = sources_in(tmp_path / "udp-aic-coco-m.pt") or ()
    assert own.name == "cspnext-m-udp-coco" and {one.name for one in data} == {"aic", "coco17", "ImageNet"}
    copied = tmp_path / "copied.pt"
    save_tensors(copied, {"w": torch.ones(3)})
    assert sources_in(copied) is None
    name = "rtmpose-s-body17-coco.pth"
    published = known[name].published.model_copy(update={"sha256": sha256_of(copied)})
    monkeypatch.setattr(
        catalogue, "known", lambda: {**known, name: replace(known[name], published=published)}
    )
    own, *_ = sources_in(copied) or ()
    assert own.name == "rtmpose-s-body17-coco"


def test_a_card_counts_as_a_note(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    card = ModelCard.of(params.model, params.input_size, "coco17").with_more(
        data=[one.model_dump() for one in DATA]
    )
    save_checkpoint(tmp_path / "w.pt", {"w": torch.ones(2)}, card)
    assert sources_in(tmp_path / "w.pt") == DATA


def test_check_and_convert_and_tags_say_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = build_pose_net("t", input_size=(96, 128))
    before = AIC.model_copy(update={"use": "pretraining"})
    save_tensors(Path("w.pt"), {"meta": note((COCO, before)), "state_dict": net.state_dict()})
    save_tensors(Path("bare.pt"), net.state_dict())
    asked = CliRunner().invoke(app, ["weights", "check", "w.pt"])
    assert "data: coco17 (training): CC BY 4.0\ndata: aic (pretraining): research use only\n" in asked.output
    assert "data: not known" in CliRunner().invoke(app, ["weights", "check", "bare.pt"]).output
    done = CliRunner().invoke(app, ["convert", "w.pt", "-o", "ours.pt"])
    assert done.exit_code == 0, done.output
    assert sources_in(Path("ours.pt")) == (COCO, before)
    assert from_note(read_checkpoint(Path("w.pt")), Path("w.pt")) == (COCO, before)
    assert tags((COCO, before, COCO.model_copy(update={"name": "x:y"}))) == {
        "licence.coco17": "CC BY 4.0",
        "licence.pretraining.aic": "research use only",
        "licence.x_y": "CC BY 4.0",
    }
    assert lines(()) == ["data: none: fresh weights"]


def test_a_version_shows_its_licences_or_that_it_notes_none() -> None:
    plain = Version("pose", "1", "r", {"sha256": "x"}, 0, ())
    told = Version("pose", "2", "r", {"sha256": "x", **tags(DATA)}, 0, ())
    assert "licence.aic     research use only" in details(told) and "not noted" not in details(told)
    assert "licence  not noted" in details(plain)


def test_versions_show_their_licences_once_for_those_that_are_alike() -> None:
    versions = [Version("pose", n, "r", {"sha256": "x", **tags(DATA)}, 0, ()) for n in ("3", "2")]
    told = shown([*versions, Version("pose", "1", "r", {"sha256": "x"}, 0, ())], []).splitlines()[4:]
    assert told == [
        "licences of versions 3, 2:", "  aic: research use only", "  coco17: CC BY 4.0",
        "licences of version 1:", "  not noted: it was registered before versions had licences; its evidence "
        "has them",
    ]  # fmt: skip
