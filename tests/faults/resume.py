"""`kill -9` at random moments of a finetuning run: what it ends with is, bit for bit, what an undisturbed run
ends with.

    python -m tests.faults.resume [--kills 20] [--seed 1]

Killed are a train worker, Ray Train's controller, the driver, or all of Ray's own processes. Worker kills are
mended by Ray Train itself; after the others the stage is run again. Once per round the newest checkpoint is
cut short as well. Compared at the end of each round: model, EMA, optimizer, position, RNG, best weights,
`train.log`, and MLflow's metrics by step. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from rtmpose.training.checkpoint import LOG, read_log
from tests.faults.sharding import MARK, clear_away, kill_options, marked
from tests.workspace import Workspace

KINDS = ("worker", "head", "driver", "controller")
# What no two runs have in common: times and memory, and in a checkpoint its run's name in MLflow.
OWN = ("samples_per_s", "data_wait", "seconds_left", "memory_gb", "run_id")
PATIENCE = 600.0  # seconds until something must have happened


@dataclass
class Spoilt:
    """A run that is being killed: its workspace, its process while it lives, and what was done to it."""

    workspace: Workspace
    process: subprocess.Popen[str] | None = None
    killed: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    fallbacks: int = 0

    @property
    def store(self) -> Path | None:
        return store_of(self.workspace)

    @property
    def log(self) -> Path:
        return self.workspace.folder / "log.txt"


def main() -> None:
    options = kill_options(__doc__)
    with tempfile.TemporaryDirectory(prefix="rtmpose-faults-") as folder:
        line = faults(Path(folder), options.kills, random.Random(options.seed))
    print(json.dumps(line))
    sys.exit(0 if line["survived"] == line["tried"] and line["bit_identical"] else 1)


def faults(folder: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """Rounds of at most five kills until there were `kills`; the fourth of four rounds trains with two
    workers.
    """
    kinds = [KINDS[index % len(KINDS)] for index in range(kills)]
    rng.shuffle(kinds)
    workspace = prepared(folder)
    wanted: dict[int, dict[str, Any]] = {}
    spoilt, identical, rounds = Spoilt(workspace), True, 0
    while kinds:
        rounds += 1
        workers = 2 if rounds % 4 == 0 else 1
        if workers not in wanted:
            wanted[workers] = undisturbed(workspace, workers)
        try:
            count = round_of_kills(spoilt, kinds[:5], workers, rng)
            different = differences(wanted[workers], result(workspace))
        except (AssertionError, subprocess.TimeoutExpired) as error:
            count, different = len(kinds[:5]), [f"lost: {error}"]
            give_up(spoilt)
        kinds = kinds[count:]
        identical = identical and not different
        print(f"round {rounds}, {workers} workers, {count} kills: {different or 'bit-identical'}", flush=True)
    by_kind = {kind: {"tried": spoilt.killed[kind], "survived": spoilt.survived[kind]} for kind in KINDS}
    tried, survived = spoilt.killed.total(), spoilt.survived.total()
    return {
        "tried": tried,
        "survived": survived,
        "bit_identical": identical,
        "rounds": rounds,
        "fallbacks": spoilt.fallbacks,
        "by_kind": by_kind,
    }


def prepared(folder: Path) -> Workspace:
    """A workspace whose next stage is finetuning, with checkpoints every few steps and one thread
    a worker.
    """
    workspace = Workspace(folder).small()
    workspace.environment[MARK] = uuid.uuid4().hex
    workspace.set(
        finetune__epochs=6, finetune__checkpoint_steps=4, finetune__evaluate_every=3,
        hardware__max_failures=100, model__hidden=64, model__ema_momentum=0.01,
        model__weight_decay=0.05, input_size=[64, 64], shard__input_size=[64, 64],
    )  # fmt: skip
    for stage, *arguments in (("raw", "coco17"), ("shard", "coco17"), ("mix",), ("pretrain",), ("search",)):
        done = workspace.run(sys.executable, "-m", f"pipelines.{stage}", *arguments, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
    return workspace


def begin_anew(workspace: Workspace, workers: int) -> None:
    """Remove what an earlier run left, MLflow's data base included."""
    for name in ("runs", "mlruns"):
        shutil.rmtree(workspace.folder / name, ignore_errors=True)
    (workspace.folder / "mlflow.db").unlink(missing_ok=True)
    workspace.set(hardware__workers=workers)


def undisturbed(workspace: Workspace, workers: int) -> dict[str, Any]:
    """The result of a run that nobody kills."""
    begin_anew(workspace, workers)
    start = time.perf_counter()
    done = workspace.run(sys.executable, "-m", "pipelines.finetune", timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = result(workspace)
    steps = outcome["checkpoint"]["step"]
    print(f"undisturbed, {workers} workers: {steps} steps, {time.perf_counter() - start:.1f} s", flush=True)
    return outcome


def round_of_kills(spoilt: Spoilt, kinds: list[str], workers: int, rng: random.Random) -> int:
    """One run from its start to its end, killed as `kinds` says; how many of these kills found it alive."""
    begin_anew(spoilt.workspace, workers)
    pending: list[str] = []  # kills of which it is not known yet whether the run survives them
    damage_after = rng.randrange(len(kinds))
    for index, kind in enumerate(kinds):
        if not alive_at_random_moment(spoilt, kind, rng):
            break
        settle(spoilt, pending)
        moment = kill(spoilt, kind, rng)
        if moment is None:
            break
        spoilt.killed[kind] += 1
        pending.append(kind)
        damaged = index >= damage_after and spoilt.process is None and damage(spoilt)
        if damaged:
            damage_after = len(kinds)
        note = ", newest checkpoint cut short" if damaged else ""
        print(
            f"kill {spoilt.killed.total()}: {kind} at step {newest_step(spoilt)}, {moment}{note}", flush=True
        )
    else:
        index = len(kinds)
    if spoilt.process is None and index:
        start(spoilt)
    assert spoilt.process is not None
    code = spoilt.process.wait(PATIENCE)
    finish(spoilt)
    assert code == 0, spoilt.log.read_text()
    settle(spoilt, pending)
    return index


def settle(spoilt: Spoilt, pending: list[str]) -> None:
    spoilt.survived.update(pending)
    pending.clear()


def start(spoilt: Spoilt) -> None:
    """Run the stage; what it prints goes to a file, so that no pipe can fill."""
    with spoilt.log.open("w") as file:
        spoilt.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.finetune"], cwd=spoilt.workspace.folder,
            env=spoilt.workspace.environment, text=True, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def alive_at_random_moment(spoilt: Spoilt, kind: str, rng: random.Random) -> bool:
    """Start the stage if it is not running, and wait: a few steps of training, or for one kill in four a few
    seconds.

    False when the run ended before, in success; a run that ended otherwise fails.
    """
    started = spoilt.process is None
    if started:
        start(spoilt)
    process, deadline = spoilt.process, time.monotonic() + PATIENCE
    assert process is not None
    early = started and kind in ("driver", "head") and rng.random() < 0.25
    moment, steps, extra = time.monotonic() + rng.uniform(1, 10), rng.randint(1, 8), rng.uniform(0, 0.3)
    before = reports_in(spoilt.workspace)
    while time.monotonic() < moment if early else reports_in(spoilt.workspace) < before + steps:
        if process.poll() is not None:
            assert process.returncode == 0, spoilt.log.read_text()
            return False
        assert time.monotonic() < deadline, "the run makes no progress:\n" + spoilt.log.read_text()
        time.sleep(0.02)
    time.sleep(extra)
    return process.poll() is None


def kill(spoilt: Spoilt, kind: str, rng: random.Random) -> str | None:
    """Kill processes of that kind; unless Ray Train mends it, wait until nothing of the run is left.

    None when the run had come to its end before.
    """
    process = spoilt.process
    assert process is not None
    victims = [
        found for found in marked(spoilt.workspace.environment[MARK]) if is_kind(found, kind, process.pid)
    ]
    if kind == "worker":
        victims = rng.sample(victims, min(1, len(victims)))
    if not victims:
        return None
    for victim in victims:
        try:
            os.kill(victim.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if kind == "worker":
        return "1 process"
    begun = time.monotonic()
    code = process.wait(PATIENCE)
    if code == 0:
        return None
    finish(spoilt)
    return f"{len(victims)} processes, the stage ended after {time.monotonic() - begun:.1f} s"


def is_kind(process: psutil.Process, kind: str, driver: int) -> bool:
    """Whether a process is what a kill of this kind hits: the head is everything of Ray but its workers and
    the driver.
    """
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    name = words[0] if words else ""
    if kind == "driver":
        return process.pid == driver
    if kind in ("worker", "controller"):
        return {"worker": "RayTrainWorker", "controller": "TrainController"}[kind] in name
    return any(
        part in " ".join(words) for part in ("gcs_server", "raylet/raylet", "dashboard", "log_monitor")
    )


def finish(spoilt: Spoilt) -> None:
    """After the end of the stage: its leftovers go, and fallbacks are counted."""
    clear_away(spoilt.workspace.environment[MARK])
    spoilt.fallbacks += "missing or damaged; falling back" in spoilt.log.read_text()
    spoilt.process = None


def give_up(spoilt: Spoilt) -> None:
    """End a run that cannot be mended."""
    if spoilt.process is not None:
        with suppress(ProcessLookupError):  # it has ended with an error, which is the one to be told
            os.killpg(spoilt.process.pid, signal.SIGKILL)
        spoilt.process.wait()
        finish(spoilt)


def damage(spoilt: Spoilt) -> bool:
    """Cut the newest checkpoint short where there is one before it."""
    if spoilt.store is None or len(entries := checkpoints(spoilt.store)) < 2:
        return False
    newest = spoilt.store / entries[0]["file"]
    newest.write_bytes(newest.read_bytes()[:1000])
    return True


def checkpoints(store: Path) -> list[dict[str, Any]]:
    path = store / "latest.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text())["checkpoints"] if path.exists() else []
    return entries


def newest_step(spoilt: Spoilt) -> int:
    entries = checkpoints(spoilt.store) if spoilt.store else []
    return entries[0]["step"] if entries else 0


def store_of(workspace: Workspace) -> Path | None:
    return next((workspace.folder / "runs").glob("finetune-*"), None)


def reports_in(workspace: Workspace) -> int:
    """How many lines the run's log has."""
    store = store_of(workspace)
    return (store / LOG).read_bytes().count(b"\n") if store and (store / LOG).exists() else 0


def result(workspace: Workspace) -> dict[str, Any]:
    """All that a finished run leaves behind: its last checkpoint, best weights, log, and metrics
    in MLflow.
    """
    (store,) = (workspace.folder / "runs").glob("finetune-*")
    state = torch.load(store / checkpoints(store)[0]["file"], weights_only=True)
    log = [{key: value for key, value in line.items() if key not in OWN} for line in read_log(store)]
    with sqlite3.connect(workspace.folder / "mlflow.db") as database:
        runs = database.execute("select count(*) from runs where name = 'finetune'").fetchone()[0]
        metrics = database.execute(
            "select key, step, value from metrics where key like 'finetune/%' order by key, step"
        ).fetchall()
    own = {f"finetune/{name}" for name in OWN}
    return {
        "checkpoint": {key: value for key, value in state.items() if key not in OWN},
        "best": torch.load(store / "best.pt", weights_only=True),
        "log": log,
        "runs in MLflow": runs,
        "metrics in MLflow": [row[:2] if row[0] in own else row for row in metrics],
    }


def differences(ours: Any, theirs: Any, place: str = "") -> list[str]:
    """Where two results differ, tensors by their bits."""
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        same = ours.dtype == theirs.dtype and ours.shape == theirs.shape
        return [] if same and ours.numpy().tobytes() == theirs.numpy().tobytes() else [place]
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if ours.keys() != theirs.keys():
            return [f"{place} has other keys: {sorted(map(str, ours.keys() ^ theirs.keys()))[:5]}"]
        return [found for key in ours for found in differences(ours[key], theirs[key], f"{place}/{key}")][:10]
    if isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            return [f"{place} has {len(theirs)} entries, not {len(ours)}"]
        pairs = zip(ours, theirs, strict=True)
        return [
            found for index, pair in enumerate(pairs) for found in differences(*pair, f"{place}[{index}]")
        ][:10]
    return [] if ours == theirs else [f"{place}: {theirs}, not {ours}"]


if __name__ == "__main__":
    main()
