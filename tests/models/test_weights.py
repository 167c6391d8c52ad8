"""Loading weights: our own files, official training checkpoints, other sizes, broken files, and files that
attack.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtmpose.files import UserError
from rtmpose.models import Mismatch, build_pose_net, load_weights
from rtmpose.models.archive import read_checkpoint
from rtmpose.models.pickled import Name, Placeholder, rebuild

SMALL = {"input_size": (64, 64), "num_keypoints": 3, "hidden": 8}


def net(**options: Any) -> nn.Module:
    return build_pose_net("t", **{**SMALL, **options})


def state(value: float | None = None, **options: Any) -> dict[str, Tensor]:
    """A state dict of fresh weights, or with every floating entry `value`."""
    fresh = net(**options).state_dict()
    if value is None:
        return fresh
    return {
        key: torch.full_like(one, value) if one.is_floating_point() else one for key, one in fresh.items()
    }


def loaded(path: Path, **options: Any) -> tuple[dict[str, Tensor], Mismatch]:
    model = net(**options)
    mismatch = load_weights(model, path)
    return model.state_dict(), mismatch


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


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


def save_official(
    path: Path, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], zipped: bool = True
) -> None:
    """A training checkpoint as MMEngine writes it, with instances of classes that do not exist when it is
    read.
    """
    module = types.ModuleType("mmengine.logging.history_buffer")
    names = {
        "mmengine": types.ModuleType("mmengine"),
        "mmengine.logging": types.ModuleType("mmengine.logging"),
    }
    exec(
        "class HistoryBuffer:\n"
        "    def __init__(self): self._log_history = {'loss': [1.0]}\n"
        "class Hub(dict): pass\n"
        "class Names(list): pass\n",
        module.__dict__,
    )
    with monkeypatch.context() as patch:
        for name, one in {**names, module.__name__: module}.items():
            patch.setitem(sys.modules, name, one)
        buffer = module.HistoryBuffer()
        buffer.history, buffer.statistics = np.arange(4.0), np.float64(3)
        hub = {
            "log_scalars": OrderedDict({"train/loss": buffer}),
            "hub": module.Hub(a=1),
            "names": module.Names("ab"),
        }
        content = {"meta": {"epoch": 420, "seed": 21}, "message_hub": hub, "optimizer": {}, **extra}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert "mmengine" not in sys.modules


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


# Files that attack. Each gadget is first shown to work on an unsafe reader, so that the tests can fail.


class Reduce:
    """Pickles as a call of `function` with `args`, then `state` for `__setstate__`."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts

    def __call__(self) -> None:
        """Pickle asks whether what it shall call can be called."""


def text(source: str) -> bytes:
    return source.encode()


ATTACKS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda mark: Reduce(os.system, (f"touch {mark}",)),
    "eval": lambda mark: Reduce(eval, (f"open({str(mark)!r}, 'w')",)),
    "exec": lambda mark: Reduce(exec, (f"open({str(mark)!r}, 'w')",)),
    "import": lambda mark: [Reduce(importlib.import_module, ("os",)), Reduce(os.mkdir, (str(mark),))],
    "torch.save": lambda mark: Reduce(torch.save, ({}, str(mark))),
    "nested": lambda mark: {"a": [(Reduce(io.FileIO, (str(mark), "w")),)]},
    "setstate": lambda mark: Reduce(
        Reduce(functools.partial, (print,), (os.mkdir, (str(mark),), {}, None)), ()
    ),
    "list items": lambda mark: Reduce(list, (), None, iter([Reduce(os.mkdir, (str(mark),))])),
    "dict items": lambda mark: Reduce(dict, (), None, None, iter([(1, Reduce(os.mkdir, (str(mark),)))])),
    "inside the weights": lambda mark: OrderedDict(x=Reduce(os.mkdir, (str(mark),))),
}
OPCODES: dict[str, Callable[[Path], bytes]] = {
    "posix.system": lambda mark: text(f"cposix\nsystem\n(S'touch {mark}'\ntR."),
    "INST": lambda mark: text(f"(S'touch {mark}'\niposix\nsystem\n."),
    "getattr chain": lambda mark: text(
        f"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'touch {mark}'\ntR."
    ),
    "dotted name": lambda mark: (
        b"\x80\x04\x8c\x09torch.hub\x8c\x09os.system\x93\x8c" + bytes([len("touch "
                                                                           f"{mark}")]) + "touch "
                                                                                          f"{mark}".encode()
        + b"\x85R."
    ),
    "through torch.serialization": lambda mark: (
        b"\x80\x04\x8c\x13torch.serialization\x8c\x09os.system\x93\x8c" + bytes([len(f"touch {mark}")])
        + f"touch {mark}".encode() + b"\x85R."
    ),
}  # fmt: skip


def remove(mark: Path) -> None:
    if mark.is_dir():
        mark.rmdir()
    mark.unlink(missing_ok=True)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("attack", ATTACKS)
def test_calls_in_a_checkpoint_are_never_made(tmp_path: Path, attack: str, zipped: bool) -> None:
    path, mark = tmp_path / "evil.pth", tmp_path / "mark"
    expected = state()
    content = {"message_hub": ATTACKS[attack](mark), "state_dict": expected}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    torch.load(path, weights_only=False)
    assert mark.exists(), "the attack itself does not work"
    remove(mark)
    actual, _ = loaded(path)
    assert not mark.exists()
    assert_same(actual, expected)


@pytest.mark.parametrize("attack", OPCODES)
def test_handwritten_pickles_do_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str) -> None:
    monkeypatch.chdir(tmp_path)  # a short path, for one-byte lengths
    mark = Path("mark")
    pickled = OPCODES[attack](mark)
    pickle.loads(pickled)
    assert mark.exists(), "the attack itself does not work"
    mark.unlink()
    with zipfile.ZipFile("evil.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    Path("bare.pth").write_bytes(pickled)
    for path in ("evil.pth", "bare.pth"):
        with pytest.raises(UserError, match=path):
            load_weights(net(), path)
        assert not mark.exists()


def test_only_the_allow_list_is_ever_rebuilt() -> None:
    for module, names in {
        "builtins": dir(builtins),
        "os": dir(os),
        "torch": dir(torch),
        "torch._utils": [name for name in dir(torch._utils) if not name.startswith("_rebuild")],
        "torch.storage": dir(torch.storage),
        "torch.serialization": dir(torch.serialization),
        "collections": ["namedtuple", "Counter", "OrderedDict.fromkeys"],
    }.items():
        for name in names:
            assert type(rebuild(Name(module, name), ("x", "y"))) is Placeholder, (module, name)


def test_attributes_set_by_a_pickle_stay_in_it(tmp_path: Path) -> None:
    """BUILD on what a file names must not reach our classes or PyTorch's functions."""
    names = ("collections OrderedDict", "torch._utils _rebuild_tensor_v2", "os system", "torch FloatStorage")
    for name in names:
        pickled = b"c" + name.replace(" ", "\n").encode() + b"\n(N(dS'marked'\nI1\nstb."
        with zipfile.ZipFile(tmp_path / "evil.pth", "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
        with pytest.raises(UserError):
            load_weights(net(), tmp_path / "evil.pth")
        module, attribute = name.split()
        for touched in (
            getattr(importlib.import_module(module), attribute),
            Placeholder,
            Placeholder(),
            dict,
        ):
            assert not hasattr(touched, "marked")


def test_tensors_may_not_reach_beyond_their_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = torch.zeros(4).untyped_storage()
    flat = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    for offset, size, stride in ((0, (1000,), (1,)), (3, (2,), (1,)), (0, (2,), (-1,)), (-1, (2,), (1,))):
        tensor = Reduce(torch._utils._rebuild_tensor_v2, (flat, offset, size, stride, False, OrderedDict()))
        save_official(tmp_path / "far.pth", monkeypatch, {"state_dict": {"x": tensor}})
        with pytest.raises(UserError, match=r"far\.pth"):
            read_checkpoint(tmp_path / "far.pth")


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
