"""Weights files that attack: nothing in them runs, and nothing beyond them is reached."""

from __future__ import annotations

import builtins
import importlib
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from rtmpose.files import UserError
from rtmpose.models import load_weights
from rtmpose.models.archive import read_checkpoint
from rtmpose.models.pickled import Name, Placeholder, rebuild
from tests.models.checkpoints import assert_same, loaded, net, save_official, state
from tests.models.gadgets import ATTACKS, OPCODES, Reduce

# Each gadget is first shown to work on an unsafe reader, so that the tests can fail.


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
