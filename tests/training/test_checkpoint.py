"""The store of a run: atomic, rotated, hashed; damaged checkpoints fall back loudly; fingerprints
name runs.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from rtmpose.config import load_params
from rtmpose.files import UserError, sha256_of
from rtmpose.fingerprint import fingerprint
from rtmpose.training.checkpoint import Store, read_log
from tests.support import ROOT


def state(step: int) -> dict[str, object]:
    return {"step": step, "model": {"w": torch.full((3,), float(step))}, "rng": torch.get_rng_state()}


def test_newest_comes_back_and_only_two_are_kept(tmp_path: Path) -> None:
    store = Store.open(tmp_path, "run", fresh=False)
    assert store.load() is None
    for step in (10, 20, 30):
        store.save(state(step))
    loaded = store.load()
    assert loaded is not None and loaded["step"] == 30 and loaded["model"]["w"][0] == 30
    assert sorted(path.name for path in store.folder.glob("*.pt")) == ["step-00000020.pt", "step-00000030.pt"]
    assert not list(store.folder.glob(".*.tmp"))


def test_damaged_newest_falls_back_loudly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.open(tmp_path, "run", fresh=False)
    store.save(state(10))
    store.save(state(20))
    newest = store.folder / "step-00000020.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    loaded = store.load()
    assert loaded is not None and loaded["step"] == 10
    assert "step-00000020.pt" in capsys.readouterr().err
    (store.folder / "step-00000010.pt").unlink()
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        store.load()


def test_after_a_fallback_the_good_one_stays_beside_the_new_one(tmp_path: Path) -> None:
    store = Store.open(tmp_path, "run", fresh=False)
    store.save(state(10))
    store.save(state(20))
    (store.folder / "step-00000020.pt").write_bytes(b"damaged")
    assert store.load() is not None
    store.save(state(15))
    assert sorted(path.name for path in store.folder.glob("*.pt")) == ["step-00000010.pt", "step-00000015.pt"]
    (store.folder / "step-00000015.pt").write_bytes(b"damaged as well")
    loaded = store.load()
    assert loaded is not None and loaded["step"] == 10


def test_checkpoint_names_the_run_it_belongs_to(tmp_path: Path) -> None:
    opened = Store.open(tmp_path, "run", fresh=False)
    store = Store(opened.folder, opened.token, {"run_id": "0123"})
    store.save(state(10))
    loaded = opened.load()
    assert loaded is not None and loaded["run_id"] == "0123"


def test_unfinished_and_finished_runs_are_kept_and_fresh_ones_start_anew(tmp_path: Path) -> None:
    store = Store.open(tmp_path, "run", fresh=False)
    store.save(state(10))
    (store.folder / ".step-00000020.pt.1234.tmp").write_bytes(b"half")
    store = Store.open(tmp_path, "run", fresh=False)
    assert store.load() is not None and store.finished() is None and not list(store.folder.glob(".*.tmp"))
    store.save_best({"w": torch.zeros(1)})
    store.finish({"sha256": sha256_of(store.folder / "best.pt")})
    assert Store.open(tmp_path, "run", fresh=False).finished() is not None
    (store.folder / "best.pt").write_bytes(b"damaged")
    assert Store.open(tmp_path, "run", fresh=False).finished() is None
    fresh = Store.open(tmp_path, "run", fresh=True)
    assert fresh.load() is None and fresh.finished() is None


def test_log_keeps_one_line_per_step_and_passes_over_a_cut_one(tmp_path: Path) -> None:
    store = Store.open(tmp_path, "run", fresh=False)
    for step, loss in ((1, 0.5), (2, 0.4), (2, 0.4), (3, 0.3)):
        store.append_log({"step": step, "loss": loss})
    store.append_log({"step": 3, "AP": 0.1})
    with (store.folder / "train.log").open("a") as file:
        file.write('{"step": 4, "lo')
    store.append_log({"step": 5, "loss": 0.2})
    assert [(line["step"], "AP" in line) for line in read_log(store.folder)] == [
        (1, False),
        (2, False),
        (3, False),
        (3, True),
        (5, False),
    ]


def test_a_step_that_is_saved_again_takes_no_other_ones_place(tmp_path: Path) -> None:
    store = Store.open(tmp_path, "run", fresh=False)
    for step in (10, 20, 20):
        store.save(state(step))
    (store.folder / "step-00000020.pt").write_bytes(b"damaged")
    loaded = store.load()
    assert loaded is not None and loaded["step"] == 10


def test_damaged_pointer_is_one_line(tmp_path: Path) -> None:
    store = Store.open(tmp_path, "run", fresh=False)
    (store.folder / "latest.json").write_text('{"checkpoints"')
    with pytest.raises(UserError, match=r"latest\.json: not valid JSON.*delete the run's folder"):
        store.load()


def test_damaged_samples_of_repeated_steps_count_once(tmp_path: Path) -> None:
    store = Store.open(tmp_path, "run", fresh=False)
    assert store.damaged() == 0
    for step, samples in (
        (1, ["a.tar: 7"]),
        (2, []),
        (3, ["a.tar: 7", "b.tar: 9"]),
        (3, ["a.tar: 7", "b.tar: 9"]),
    ):
        store.note_damaged(step, samples)
    assert store.damaged() == 3


def test_fingerprint_changes_with_any_part_and_with_nothing_else() -> None:
    parts = {"train": {"lr": 0.1, "tau": 0.1}, "seed": 1}
    assert fingerprint(**parts) == fingerprint(seed=1, train={"tau": 0.1, "lr": 0.1})
    assert fingerprint(**parts) != fingerprint(**(parts | {"seed": 2}))
    assert fingerprint(**parts) != fingerprint(train={"lr": 0.2, "tau": 0.1}, seed=1)


@pytest.mark.parametrize(
    ("words", "forced"),
    [
        (["repro"], False),
        (["repro", "-f"], True),
        (["repro", "-sf", "finetune"], True),
        (["repro", "--force"], True),
        (["exp", "run", "-S", "finetune.tau=0.2"], False),
        (["status", "-f"], False),
    ],
)
def test_force_is_seen_in_the_parent_process(tmp_path: Path, words: list[str], forced: bool) -> None:
    """DVC hands nothing down to a stage; its command line is what tells."""
    parent = tmp_path / "dvc"
    parent.write_text(
        textwrap.dedent(f"""
        import subprocess, sys
        code = "from rtmpose.fingerprint import forced_by_dvc; print(bool(forced_by_dvc()))"
        done = subprocess.run([sys.executable, "-c", code], cwd={str(ROOT)!r}, capture_output=True, text=True)
        print(done.stdout)
        """)
    )
    done = subprocess.run([sys.executable, str(parent), *words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(forced)


def test_a_forced_run_opens_its_store_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtmpose.precision import choose_here
    from rtmpose.training import launch

    class Opened(Exception):
        pass

    def opened(root: Path, name: str, *, fresh: bool) -> Store:
        raise Opened(f"fresh={fresh}")

    params = load_params(ROOT / "params.yaml")
    monkeypatch.setattr(Store, "open", opened)
    monkeypatch.setattr(launch, "shared", lambda storage: tmp_path)
    monkeypatch.setattr(launch, "job_fingerprint", lambda *_, **__: "a")
    for forced in (True, False):
        monkeypatch.setattr(launch, "forced", lambda given=forced: given)
        with pytest.raises(Opened, match=f"fresh={forced}"):
            launch.run_stage(
                "finetune", params, mix=tmp_path, init=None, weights=tmp_path, receipt=tmp_path,
                chosen=choose_here(params, on_gpu=False),
            )  # fmt: skip
