"""Loading weights: our own files, official training checkpoints, other sizes, and broken files."""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtmpose.files import UserError
from rtmpose.models import Mismatch, build_pose_net, load_weights
from rtmpose.models.archive import read_checkpoint
from rtmpose.models.pickled import Placeholder
from tests.models.checkpoints import assert_same, loaded, net, save_official, state

# Our own files


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [lambda s: s, lambda s: {"model": s}, lambda s: {f"module.{key}": value for key, value in s.items()}],
)
def test_own_weights_come_back(tmp_path: Path, wrap: Callable[[Any], Any], zipped: bool) -> None:
    expected = state()
    torch.save(wrap(expected), tmp_path / "own.pt", _use_new_zipfile_serialization=zipped)
    actual, mismatch = loaded(tmp_path / "own.pt")
    assert_same(actual, expected)
    assert mismatch.ok and mismatch == Mismatch() and "All weights" in str(mismatch)


def test_averaged_weights_of_a_training_checkpoint_are_preferred(tmp_path: Path) -> None:
    torch.save({"step": 5, "model": state(1.0), "ema": state(2.0), "ema_updates": 3}, tmp_path / "step.pt")
    actual, _ = loaded(tmp_path / "step.pt")
    assert_same(actual, state(2.0))


# Official checkpoints


@pytest.mark.parametrize("zipped", [True, False])
def test_official_checkpoint_loads_without_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    """MMEngine's `state_dict` is the averaged set already; `ema_state_dict` is what the optimizer
    worked on.
    """
    weights = OrderedDict(state())
    weights._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    source = {"steps": torch.tensor(7), **{f"module.{key}": value for key, value in state(9.0).items()}}
    path = tmp_path / "official.pth"
    save_official(path, monkeypatch, {"state_dict": weights, "ema_state_dict": source}, zipped)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    actual, mismatch = loaded(path)
    assert_same(actual, dict(weights))
    assert mismatch.ok
    assert "mmengine" not in sys.modules
    hub = read_checkpoint(path)["message_hub"]
    assert type(hub["log_scalars"]["train/loss"]) is Placeholder and type(hub["hub"]) is Placeholder


def test_views_half_precision_and_parameters_survive_the_restricted_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "view": base.t()[1:5:2], "shared": base[2], "half": base.half(), "brain": base.bfloat16(),
        "flag": base > 3, "parameter": nn.Parameter(base + 1), "empty": torch.empty(0, 3),
        "scalar": torch.tensor(5),
    }  # fmt: skip
    save_official(tmp_path / "odd.pth", monkeypatch, {"state_dict": tensors})
    content = read_checkpoint(tmp_path / "odd.pth")["state_dict"]
    for key, expected in tensors.items():
        torch.testing.assert_close(content[key], expected.detach(), rtol=0, atol=0)
    pointers = {content[key].untyped_storage().data_ptr() for key in ("view", "shared")}
    assert len(pointers) == 1, "the storage of two views was read twice"


# What does not fit


def test_another_size_is_refused_in_one_line_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rtmpose-m.pth"
    torch.save({"state_dict": build_pose_net("m", input_size=(64, 64)).state_dict()}, path)
    model = net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(model, path)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text and "build_pose_net('m')" in text
    assert "backbone.stem.0.conv.weight is (24, 3, 3, 3) in the file, (12, 3, 3, 3) in the model" in text
    assert_same(model.state_dict(), before)


def test_another_size_of_heatmap_network_names_its_head(tmp_path: Path) -> None:
    torch.save(build_pose_net("s", "heatmap").state_dict(), tmp_path / "pre.pth")
    with pytest.raises(UserError, match=r"build_pose_net\('s', head='heatmap'\)"):
        load_weights(net(), tmp_path / "pre.pth", prefix="backbone.")


def test_another_head_is_reported_and_the_rest_loaded(tmp_path: Path) -> None:
    expected = state(3.0, num_keypoints=5)
    del expected["head.cls_y.weight"]
    torch.save({**expected, "head.extra": torch.zeros(1)}, tmp_path / "five.pt")
    actual, mismatch = loaded(tmp_path / "five.pt")
    assert mismatch.wrong_shape == ("head.final_layer.weight", "head.final_layer.bias")
    assert mismatch.missing == ("head.cls_y.weight",) and mismatch.unexpected == ("head.extra",)
    assert not mismatch.ok and "\n" not in str(mismatch)
    assert all(key in str(mismatch) for key in ("head.final_layer.bias", "head.cls_y.weight", "head.extra"))
    assert all(
        bool((value == 3).all())
        for key, value in actual.items()
        if key.startswith("backbone.") and value.ndim
    )
    assert not bool((actual["head.final_layer.weight"] == 3).any())


def test_prefix_takes_the_backbone_of_a_pretrained_network(tmp_path: Path) -> None:
    torch.save({"state_dict": state(4.0, head="heatmap")}, tmp_path / "udp.pth")
    model = net()
    head = {key: value.clone() for key, value in model.state_dict().items() if key.startswith("head.")}
    assert load_weights(model, tmp_path / "udp.pth", prefix="backbone.").ok
    after = model.state_dict()
    assert bool((after["backbone.stem.0.conv.weight"] == 4).all())
    assert all(torch.equal(after[key], value) for key, value in head.items())


def test_files_without_fitting_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    for content, word in (
        ({"conv1.weight": torch.zeros(3)}, "no weight of this model"),
        ({"state_dict": {}, "meta": 3}, "no model weights"),
        ([1, 2], "no model weights"),
    ):
        torch.save(content, path)
        with pytest.raises(UserError, match=word) as caught:
            load_weights(net(), path)
        assert str(path) in str(caught.value)
    torch.save(state(), path)
    with pytest.raises(UserError, match="begins with 'neck"):
        load_weights(net(), path, prefix="neck.")


@pytest.mark.parametrize("zipped", [True, False])
def test_broken_files_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    path = tmp_path / "cut.pth"
    save_official(path, monkeypatch, {"state_dict": state()}, zipped)
    whole = path.read_bytes()
    for data in (
        b"",
        b"\n",
        b"not a checkpoint",
        *(whole[: len(whole) * share // 100] for share in (1, 30, 60, 99)),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"cut\.pth") as caught:
            load_weights(net(), path)
        assert "\n" not in str(caught.value)


def test_a_storage_cut_to_one_number_is_not_spread(tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"x": torch.arange(8.0)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    path.write_bytes(whole[:-28])
    with pytest.raises(UserError, match="4 bytes where 32 belong"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["absent.pth", "."])
def test_missing_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_weights(net(), tmp_path / name)


# Names of others


@pytest.mark.parametrize(
    "holder", ["model.", "net.", "module.model.", "model._orig_mod.", "pose_net.module."]
)
def test_a_class_that_holds_the_network_is_no_part_of_its_names(holder: str, tmp_path: Path) -> None:
    weights = state()
    torch.save(
        {"state_dict": {f"{holder}{key}": value for key, value in weights.items()}}, tmp_path / "w.ckpt"
    )
    found, mismatch = loaded(tmp_path / "w.ckpt")
    assert mismatch.ok
    assert_same(found, weights)


def test_names_that_are_not_held_together_are_shown(tmp_path: Path) -> None:
    names = {f"model.{key}": value for key, value in state().items()} | {"criterion.weight": torch.ones(2)}
    for content, first in ((names, "model.backbone.stem"), ({"conv1.weight": torch.ones(2)}, "conv1.weight")):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(
            UserError, match=rf"such as {first}.*, the model's such as backbone\.stem.*; give a"
        ):
            loaded(tmp_path / "w.pt")


@pytest.mark.parametrize("other", ["ema", "model_ema", "ema_weights"])
def test_the_settings_of_an_average_are_no_weights(other: str, tmp_path: Path) -> None:
    weights = state(2.0)
    torch.save(
        {other: {"decay": torch.tensor(0.999), "updates": torch.tensor(7)}, "model": weights},
        tmp_path / "w.pt",
    )
    found, mismatch = loaded(tmp_path / "w.pt")
    assert mismatch.ok
    assert_same(found, weights)


def test_an_average_of_the_parameters_alone_still_counts(tmp_path: Path) -> None:
    average = {key: value for key, value in state(3.0).items() if "running" not in key and "num_" not in key}
    torch.save({"ema": average, "model": state(2.0)}, tmp_path / "w.pt")
    found, _ = loaded(tmp_path / "w.pt")
    assert all(torch.equal(found[key], value) for key, value in average.items())
