"""What a run talks to: git, DVC and its remote, MLflow's store, a Ray cluster. Only addresses that the user
has set are asked.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from rtmpose.checkout import in_job
from rtmpose.config import Params
from rtmpose.doctor.child import ERROR
from rtmpose.doctor.finding import Finding, lack, note
from rtmpose.doctor.fixes import Command
from rtmpose.files import UserError
from rtmpose.tracking.answers import without_password
from rtmpose.tracking.runs import tracking_uri

GIT_SECONDS = 10.0


def git() -> Iterator[Finding]:
    """Whether the current folder is a git checkout with a commit: DVC's experiments start from one."""
    start = "git init && git add . && git commit -m start"
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=GIT_SECONDS,
        )  # fmt: skip
    except FileNotFoundError:
        yield lack("git", "not installed", "install git with the system's packages")
        return
    except subprocess.TimeoutExpired:
        yield note("git", f"no answer within {GIT_SECONDS:g} s")
        return
    if done.returncode:
        reason = done.stderr.strip().partition("\n")[0] or f"exit code {done.returncode}"
        yield lack("git", f"`dvc exp run` starts from a commit: {reason}", start)
    else:
        yield Finding("git", f"at commit {done.stdout.strip()}")


def dvc(answer: Mapping[str, Any]) -> Iterator[Finding]:
    """DVC and its remote, from the answer of the probe `dvc`. A run needs no remote; sharing data does."""
    if ERROR in answer:
        yield lack("DVC", f"cannot be used: {answer[ERROR]}", "make venv")
        return
    version = answer["version"]
    if "broken" in answer:
        yield lack("DVC", f"{version} cannot open this folder: {answer['broken']}", "cd to the checkout")
    elif not answer["remote"]:
        fix = "dvc remote add -d store s3://bucket/prefix"
        yield note("DVC", f"{version}; no remote, so outputs stay on this machine", fix)
    elif "unreachable" in answer:
        name = answer["remote"]
        fix = f"dvc remote modify {name} url …, or set its credentials"
        yield note("DVC", f"{version}; remote {name} does not answer ({answer['unreachable']})", fix)
    elif not answer["there"]:
        yield note("DVC", f"{version}; remote {answer['remote']} is empty or not there yet", "dvc push")
    else:
        yield Finding("DVC", f"{version}; remote {answer['remote']} answers")


def store() -> tuple[str, Finding | None]:
    """Where MLflow points, and why a run could not use that address; "" and the reason where it is none."""
    try:
        uri = tracking_uri()
    except UserError as error:
        return "", lack("MLflow", str(error), "unset MLFLOW_TRACKING_URI, or correct it")
    if uri.startswith(("postgresql:", "postgresql+psycopg:")) and find_spec("psycopg") is None:
        found = f"{without_password(uri)} needs the package psycopg"
        return "", lack("MLflow", found, "pip install -e '.[postgres]'")
    local = uri.startswith(("sqlite:", "http:", "https:"))
    if not local and "MLFLOW_DEFAULT_ARTIFACT_ROOT" not in os.environ:
        found = f"{without_password(uri)} says not where files go"
        return "", lack("MLflow", found, "export MLFLOW_DEFAULT_ARTIFACT_ROOT=s3://bucket/mlflow")
    return uri, None


def mlflow(uri: str, answer: Mapping[str, Any]) -> Iterator[Finding]:
    """MLflow and its store, from the answer of the probe `mlflow`."""
    if ERROR in answer:
        yield lack("MLflow", f"the store cannot be asked: {answer[ERROR]}", MLFLOW_FIX)
        return
    version, shown = answer["version"], without_password(uri)
    if "unreachable" in answer:
        yield lack("MLflow", f"{version}; {answer['unreachable']}", MLFLOW_FIX)
    elif "absent" in answer:
        yield Finding("MLflow", f"{version}; the first run makes {answer['absent']}")
    elif "server" in answer:
        yield Finding("MLflow", f"{version}; {shown} answers, version {answer['server']}")
    elif answer["schema"] == "none":
        yield note("MLflow", f"{version}; {shown} has no tables yet: the first run makes them")
    elif answer["schema"] != answer["head"]:
        found = f"{version}; {shown} has tables of another version ({answer['schema']}, not {answer['head']})"
        yield lack("MLflow", found, f"back it up, then: mlflow db upgrade {shown}")
    else:
        yield Finding("MLflow", f"{version}; {shown} answers, its tables are of this version")


MLFLOW_FIX = "start the server, or `unset MLFLOW_TRACKING_URI` for mlflow.db in the checkout"


def cluster(params: Params | None) -> str:
    """The address of the Ray cluster that a run would use: RAY_ADDRESS, else `hardware.jobs`; "" without."""
    jobs = params.hardware.jobs if params is not None else None
    return "" if in_job() else os.environ.get("RAY_ADDRESS") or jobs or ""


def ray(address: str, answer: Mapping[str, Any], command: Command) -> Iterator[Finding]:
    """Ray and its cluster, from the answer of the probe `ray`."""
    if ERROR in answer:
        fix = "unset RAY_ADDRESS" if address else "make venv"
        yield lack("Ray", f"cannot be used: {answer[ERROR]}", fix)
    elif "unreachable" in answer:
        found = f"{answer['version']}; no cluster at {without_password(address)}: {answer['unreachable']}"
        here = command.to("hardware.jobs=null")
        fix = f"`ray start --head` there, or to train here: unset RAY_ADDRESS && {here}"
        yield lack("Ray", found, fix)
    elif address:
        held = answer.get("cluster", "is not asked before a run")
        yield Finding("Ray", f"{answer['version']}; {without_password(address)}: {held}")
    else:
        yield Finding("Ray", f"{answer['version']}; starts on this machine for each run")
