"""Weights that attack, that are damaged, or that are no numbers: one line each, at once, with nothing run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtmpose.files import UserError
from rtmpose.models import build_pose_net, load_weights
from rtmpose.models.archive import read_checkpoint
from rtmpose.models.weight_sets import plain_name
from tests.models.hostile import HOSTILE, archive, rebuilt, state_dict

STEM = "backbone.stem.0.conv.weight"


def net() -> nn.Module:
    return build_pose_net("t", input_size=(64, 64), num_keypoints=3, hidden=8)


def state(value: float = 0.5) -> dict[str, Tensor]:
    return {
        key: torch.full_like(one, value) if one.is_floating_point() else one
        for key, one in net().state_dict().items()
    }


def refusal(path: Path) -> str:
    """The one line with which loading is refused; the model is untouched."""
    model = net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    text = str(caught.value)
    assert "\n" not in text and str(path) in text and len(text) < len(str(path)) + 500
    return text


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    refusal(HOSTILE[name](tmp_path / "hostile.pth"))


def test_hostile_files_end_no_process_and_take_no_memory(tmp_path: Path) -> None:
    """All of them in one process of its own with 1 GB more than it starts with: none may crash it."""
    for number, build in enumerate(HOSTILE.values()):
        build(tmp_path / f"{number}.pth")
    code = (
        "import resource, sys, pathlib, psutil\n"
        "from rtmpose.files import UserError\n"
        "from rtmpose.models.archive import read_checkpoint\n"
        "limit = psutil.Process().memory_info().vms + (1 << 30)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).glob('*.pth')):\n"
        "    try:\n"
        "        read_checkpoint(path)\n"
        "    except UserError as error:\n"
        "        assert 'MemoryError' not in str(error), error\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t * float("nan"), ["not finite"]),
        (lambda t: t.index_fill(0, torch.tensor(0), float("inf")), [f"{STEM}: 27 of its 324", "0 other"]),
        (lambda t: t.double() * 1e300, ["not finite"]),
        (lambda t: t.to(torch.int64), ["int64"]),
        (lambda t: t.to(torch.uint8), ["uint8"]),
        (lambda t: t > 0, ["bool"]),
        (lambda t: t.to(torch.complex64), ["complex64"]),
        (lambda t: t.to_sparse(), ["sparse"]),
        (lambda t: t.to("meta"), ["meta"]),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), ["quantised"]),
    ],
)
def test_what_is_no_dense_finite_weight_is_refused_by_name(
    tmp_path: Path, change: Callable[[Tensor], Tensor], words: list[str], zipped: bool
) -> None:
    weights = state()
    weights[STEM] = change(weights[STEM])
    torch.save(weights, tmp_path / "odd.pth", _use_new_zipfile_serialization=zipped)
    text = refusal(tmp_path / "odd.pth")
    for word in [STEM, *words]:
        assert word in text


def test_negative_variance_is_refused(tmp_path: Path) -> None:
    weights = state()
    key = next(key for key in weights if key.endswith("running_var"))
    weights[key][0] = -1
    torch.save(weights, tmp_path / "odd.pth")
    assert f"{key}: 1 of its" in refusal(tmp_path / "odd.pth")


def test_odd_tensors_that_no_weight_needs_do_no_harm(tmp_path: Path) -> None:
    """NaN in another model's part, a counter that was averaged, a step count of an optimizer."""
    weights = state(2.0) | {"teacher.weight": torch.full((2,), float("nan"))}
    key = next(key for key in weights if key.endswith("num_batches_tracked"))
    weights[key] = torch.tensor(7.0)
    torch.save({"state_dict": weights, "optimizer": {"state": {0: {"step": 3}}}}, tmp_path / "odd.pth")
    model = net()
    assert load_weights(model, tmp_path / "odd.pth").unexpected == ("teacher.weight",)
    assert int(model.state_dict()[key]) == 7


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "flipped.pth"
    torch.save(state(), path)
    whole = path.read_bytes()
    place = whole.index(torch.full((8,), 0.5).numpy().tobytes())
    for bit in (0, 5, 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        assert "CRC" in refusal(path)


def test_expanded_tensor_of_one_number_needs_the_models_shape(tmp_path: Path) -> None:
    huge = archive(tmp_path / "huge.pth", state_dict(rebuilt("I1000000 I1000000", "I0 I0")))
    assert "(1000000, 1000000) in the file" in refusal(huge)


def test_names_that_are_no_names(tmp_path: Path) -> None:
    odd: dict[Any, Tensor] = {"a\nb": torch.zeros(1), 7: torch.zeros(1), ("a", 1): torch.zeros(1)}
    odd |= {"x" * 500: torch.zeros(1), None: torch.zeros(1)}
    torch.save(state() | odd, tmp_path / "odd.pth")
    mismatch = load_weights(net(), tmp_path / "odd.pth")
    assert set(mismatch.unexpected) == {"a\nb", "7", "(tuple)", "(NoneType)", "x" * 500}
    assert "\n" not in str(mismatch) and len(str(mismatch)) < 300


# Files that should load, however they were wrapped


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_prefixes_of_wrappers_are_cut(tmp_path: Path, prefix: str, zipped: bool) -> None:
    weights = {prefix + key: value for key, value in state(3.0).items()}
    torch.save({"state_dict": weights}, tmp_path / "wrapped.pth", _use_new_zipfile_serialization=zipped)
    model = net()
    assert load_weights(model, tmp_path / "wrapped.pth").ok
    assert bool((model.state_dict()[STEM] == 3).all())


def test_a_compiled_part_within_the_network() -> None:
    assert plain_name("module.backbone._orig_mod.stem.0.conv.weight") == STEM
    assert plain_name("head.module.weight") == "head.module.weight"


def test_two_names_that_become_one_are_refused(tmp_path: Path) -> None:
    torch.save({f"module.{STEM}": torch.zeros(1), STEM: torch.zeros(1)}, tmp_path / "two.pth")
    assert f"{STEM} is there twice" in refusal(tmp_path / "two.pth")


@pytest.mark.parametrize(
    "name", ["ema", "state_dict_ema", "model_ema", "ema_model", "ema_state_dict", "ema_weights"]
)
@pytest.mark.parametrize("inner", [None, "module", "state_dict", "shadow"])
def test_files_with_averaged_weights_alone(tmp_path: Path, name: str, inner: str | None) -> None:
    weights: dict[str, Any] = {f"module.{key}": value for key, value in state(4.0).items()}
    weights |= {"n_averaged": torch.tensor(9), "steps": torch.tensor(9)}
    torch.save(
        {"epoch": 3, name: weights if inner is None else {inner: weights, "updates": 5}}, tmp_path / "ema.pth"
    )
    model = net()
    assert load_weights(model, tmp_path / "ema.pth").ok
    assert bool((model.state_dict()[STEM] == 4).all())


def test_averaged_weights_of_other_trainers_count_before_the_last_ones(tmp_path: Path) -> None:
    torch.save({"state_dict": state(1.0), "state_dict_ema": state(2.0)}, tmp_path / "both.pth")
    model = net()
    assert load_weights(model, tmp_path / "both.pth").ok
    assert bool((model.state_dict()[STEM] == 2).all())


def test_parameters_with_attributes_and_every_protocol(tmp_path: Path) -> None:
    weights: dict[str, Tensor] = OrderedDict(state(5.0))
    weights[STEM] = nn.Parameter(weights[STEM])
    weights[STEM].note = "kept by no one"  # type: ignore[attr-defined]
    for protocol in (2, 3, 4, 5):
        torch.save({"state_dict": weights}, tmp_path / "own.pth", pickle_protocol=protocol)
        model = net()
        assert load_weights(model, tmp_path / "own.pth").ok
        assert bool((model.state_dict()[STEM] == 5).all())


def test_a_large_training_checkpoint_is_read_in_seconds(tmp_path: Path) -> None:
    """190 MB of weights, as many optimizer entries as RTMPose-x has, and a log of numbers."""
    weights = {f"backbone.{i}.weight": torch.ones(50_000) for i in range(950)}
    optimizer = {"state": {i: {"step": i, "exp_avg": torch.ones(9)} for i in range(950)}}
    content = {"state_dict": weights, "optimizer": optimizer, "log": [float(i) for i in range(200_000)]}
    torch.save(content, tmp_path / "large.pth")
    start = time.perf_counter()
    found = read_checkpoint(tmp_path / "large.pth")
    print(f"{(tmp_path / 'large.pth').stat().st_size / 1e6:.0f} MB in {time.perf_counter() - start:.2f} s")
    assert found["state_dict"].keys() == weights.keys() and len(found["log"]) == 200_000
