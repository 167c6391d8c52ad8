"""Two promotions at once, and `kill -9` in the middle of one.

    python -m tests.faults.promotion [--kills 20] [--races 20] [--seed 1]

Races: two processes judge two candidates beside the same champion, wait for each other, and promote. Exactly
one may win, and the alias must be its version. They are run on SQLite and on PostgreSQL.

Kills: a promotion is ended before, within or after one of its writes. The champion is then the old or the
new version, the new one only once that was decided; and promoting again finishes.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rtmpose.config import setup_environment
from rtmpose.files import UserError
from rtmpose.promotion import journal, registry
from rtmpose.promotion.decide import Judgement, judge, promote
from tests.promotion.versions import ASKED, aliases, register, training_run
from tests.tracking.servers import POSTGRES, postgres

WRITES = (
    "log_text", "create_registered_model", "set_model_version_tag", "set_registered_model_alias",
    "delete_registered_model_alias", "delete_model_version_tag",
)  # fmt: skip
IN_ALL = 11  # writes of one promotion: the decision's file, its entry, seven tags, two aliases
MOMENTS = ("before", "within", "after")
PRELOADED = ["mlflow.tracking", "mlflow.store.model_registry.sqlalchemy_store", "rtmpose.promotion.decide"]
PATIENCE = 300.0  # seconds until a process must have answered


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("kills", "races"):
        parser.add_argument(f"--{name}", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    rng = random.Random(options.seed)
    line: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rtmpose-promotion-") as folder:
        with store(f"sqlite:///{folder}/mlflow.db", Path(folder)):
            line["kills"] = kills(options.kills, rng)
            line["races on SQLite"] = races(options.races)
        if (POSTGRES / "initdb").exists():
            with postgres(Path(folder)) as uri, store(uri, Path(folder)):
                line["races on PostgreSQL"] = races(options.races)
    print(json.dumps(line))
    good = all(each["whole"] == each["tried"] for each in line.values()) and "races on PostgreSQL" in line
    sys.exit(0 if good else 1)


@contextmanager
def store(uri: str, folder: Path) -> Iterator[None]:
    """Point MLflow, here and in children, to a store whose files lie in `folder`."""
    setup_environment()
    place, names = Path.cwd(), {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DEFAULT_ARTIFACT_ROOT": f"{folder}/files"}
    before = {name: os.environ.get(name) for name in names}
    os.environ |= names
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(place)
        for name, value in before.items():
            del os.environ[name]
            os.environ |= {} if value is None else {name: value}


def prepared(count: int, candidates: int, kind: str) -> list[str]:
    """Models with a champion, version 1, and candidates that were measured beside it."""
    run_id = training_run()
    names = [f"{kind}-{number}" for number in range(count)]
    for name in names:
        register(run_id, name=name)
        promote(judge(name, "1", ASKED), ASKED)
        for _ in range(candidates):
            register(run_id, "1", name=name)
    return names


class Child:
    """A process of its own, with an answer to wait for. It has a store of its own, too."""

    def __init__(self, work: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.pipe, theirs = context.Pipe()
        where = {key: value for key, value in os.environ.items() if key.startswith("MLFLOW_")}
        self.process: BaseProcess = context.Process(target=_begin, args=(where, work, theirs, *arguments))
        self.process.start()
        theirs.close()

    def answer(self) -> Any:
        """What it says; None where it died."""
        assert self.pipe.poll(PATIENCE), "a promotion hangs"
        try:
            return self.pipe.recv()
        except EOFError:
            return None

    def ended(self) -> int | None:
        self.process.join(PATIENCE)
        return self.process.exitcode


def _begin(where: dict[str, str], work: Callable[..., None], pipe: Connection, *arguments: object) -> None:
    os.environ |= where  # the server of forks was started before
    setup_environment()
    work(pipe, *arguments)


def races(count: int) -> dict[str, int]:
    """How many races had exactly one winner, whose version is champion, and one loser who was told."""
    names = prepared(count, 2, "race")
    children = [Child(_race, number, names) for number in ("2", "3")]
    whole = 0
    for name in names:
        for child in children:
            assert child.answer() == "judged"
        for child in children:  # both go at once
            child.pipe.send("go")
        said = dict(zip(("2", "3"), [child.answer() for child in children], strict=True))
        won = [number for number, line in said.items() if line == "won"]
        lost = [line for line in said.values() if line != "won" and "meanwhile" in str(line)]
        entries = [entry.version for entry in journal.read(name)]
        right = len(won) == len(lost) == 1 and entries == ["1", *won]
        right = right and aliases(name) == {"champion": won[0], "previous": "1", "candidate": "3"}
        whole += right
        if not right:
            print(f"{name}: {said}, entries {entries}, aliases {aliases(name)}", flush=True)
    for child in children:
        child.ended()
    return {"tried": count, "whole": whole}


def _race(pipe: Connection, number: str, names: list[str]) -> None:
    for name in names:
        judgement = judge(name, number, ASKED)
        pipe.send("judged")
        pipe.recv()
        try:
            promote(judgement, ASKED)
            pipe.send("won")
        except UserError as error:
            pipe.send(str(error))


def kills(count: int, rng: random.Random) -> dict[str, Any]:
    """How many kills left a whole state that promoting again finished; at which writes they hit."""
    hit: Counter[str] = Counter()
    whole = decided = 0
    for name in prepared(count, 1, "kill"):
        write, moment = rng.randint(1, IN_ALL), rng.choice(MOMENTS)
        child = Child(_killed, name, write, moment, rng.uniform(0, 0.02))
        child.answer()
        killed = child.ended() == -signal.SIGKILL
        entries, found = [entry.version for entry in journal.read(name)], aliases(name)
        legal = {"1", "2"} if entries == ["1", "2"] else {"1"}
        right = killed and entries in (["1"], ["1", "2"]) and found["champion"] in legal
        again = Child(_promoted, name)
        right = right and again.answer() == "2" and again.ended() == 0
        right = right and aliases(name) == {"champion": "2", "previous": "1", "candidate": "2"}
        right = right and len(journal.read(name)) == 2 and registry.unsettled(name) is None
        whole += right
        decided += entries == ["1", "2"]
        hit[moment] += 1
        print(f"{name}: {moment} write {write}, entries {entries}, champion {found['champion']}", flush=True)
    return {"tried": count, "whole": whole, "killed after the decision": decided, **hit}


def _killed(pipe: Connection, name: str, write: int, moment: str, delay: float) -> None:
    judgement: Judgement = judge(name, "2", ASKED)
    _kill_at(write, moment, delay)
    promote(judgement, ASKED)


def _promoted(pipe: Connection, name: str) -> None:
    pipe.send(promote(judge(name, "2", ASKED), ASKED).champion)


def _kill_at(write: int, moment: str, delay: float) -> None:
    """End this process at its write number `write`; "within" `delay` seconds after that began."""
    from mlflow import MlflowClient

    made = 0

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def watched(action: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal made
            made += 1
            if made == write and moment == "before":
                kill()
            if made == write and moment == "within":
                threading.Timer(delay, kill).start()
            result = action(*arguments, **named)
            if made == write and moment == "after":
                kill()
            return result

        return call

    for each in WRITES:
        setattr(MlflowClient, each, watched(getattr(MlflowClient, each)))


if __name__ == "__main__":
    main()
