"""What the doctor asks in a process of its own: `python -m rtmpose.doctor.probes NAME …` prints one line of
JSON. A question that fails answers {"error": why}.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rtmpose.config import setup_environment
from rtmpose.doctor.child import ERROR
from rtmpose.files import UserError, one_line, unbroken

ANSWER_SECONDS = 5.0  # of a server or a data base


def torch() -> dict[str, Any]:
    """PyTorch's version, what it was built for, and the GPUs that it sees, or why it sees none."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    gpus = []
    for index in range(torch.cuda.device_count() if there else 0):
        held = torch.cuda.get_device_properties(index)
        gpus.append({"name": held.name, "gb": held.total_memory / 1e9, "kind": f"{held.major}.{held.minor}"})
    build = (
        f"ROCm {torch.version.hip}"
        if torch.version.hip
        else f"CUDA {torch.version.cuda}"
        if torch.version.cuda
        else ""
    )
    return {
        "version": torch.__version__,
        "build": build,
        "gpus": gpus,
        "why": unbroken(str(said[0].message)) if said and not gpus else "",
        "driver": _driver() if gpus else "",
    }


def _driver() -> str:
    """The driver's version by NVML, where the extra `gpu` is installed."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception as error:  # the package or the library is not there, or is of another driver
        return f"unknown ({one_line(error)})"


def module(name: str) -> dict[str, Any]:
    """A runtime's version as the module itself tells it, and what it can compute on where it says so."""
    found = import_module(name)
    details: list[str] = []
    if name == "onnxruntime":
        details = list(found.get_available_providers())
    if name == "openvino":
        details = list(found.Core().available_devices)
    version = found.version() if name == "MNN" else getattr(found, "__version__", "of unknown version")
    return {"version": str(version), "details": details}


def ray(address: str) -> dict[str, Any]:
    """Ray's version, and whether a cluster answers at `address` ("": none was named)."""
    import ray

    answer: dict[str, Any] = {"version": ray.__version__}
    if address.startswith(("http://", "https://")):
        from rtmpose.cluster.submit import connect

        try:
            answer["cluster"] = f"job server answers, Ray {_server_version(connect(address))}"
        except Exception as error:  # Ray raises RuntimeError, ConnectionError and errors of its own
            answer["unreachable"] = one_line(error).partition(". ")[0]
    elif ":" in address:
        import socket

        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
            answer["cluster"] = "a head listens"
        except (OSError, ValueError) as error:
            answer["unreachable"] = one_line(error)
    return answer


def _server_version(client: Any) -> str:
    return str(client.get_version())


def mlflow(uri: str) -> dict[str, Any]:
    """MLflow's version, and what the store at `uri` says; nothing is written there."""
    import mlflow

    from rtmpose.tracking.answers import reachable

    answer: dict[str, Any] = {"version": mlflow.__version__}
    try:
        with reachable(uri):
            if uri.startswith(("http:", "https:")):
                answer |= _server(uri)
            else:
                answer |= _schema(uri, _head())
    except UserError as error:
        answer["unreachable"] = str(error)
    return answer


def _server(uri: str) -> dict[str, Any]:
    import requests

    found = requests.get(f"{uri.rstrip('/')}/version", timeout=ANSWER_SECONDS)
    if not found.ok:
        raise OSError(f"HTTP {found.status_code}")
    return {"server": found.text.strip()[:40]}


def _schema(uri: str, head: str) -> dict[str, Any]:
    """Whether a data base has the tables of this MLflow: the revision that it was migrated to."""
    import sqlalchemy

    if uri.startswith("sqlite:"):
        path = Path(uri.partition("///")[2].partition("?")[0])
        if not path.exists():
            return {"absent": str(path)}
        uri = f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true"  # a look changes nothing
    os.environ.setdefault("PGCONNECT_TIMEOUT", f"{ANSWER_SECONDS:.0f}")
    engine = sqlalchemy.create_engine(uri)
    with closing(engine.connect()) as connection:
        if "alembic_version" not in sqlalchemy.inspect(connection).get_table_names():
            return {"schema": "none", "head": head}
        row = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).first()
    return {"schema": str(row[0]) if row else "none", "head": head}


def _head() -> str:
    """The newest revision of the tables that this MLflow knows."""
    import mlflow.store
    from alembic.script import ScriptDirectory

    folder = Path(next(iter(mlflow.store.__path__))) / "db_migrations"
    return str(ScriptDirectory(folder).get_current_head())


def dvc() -> dict[str, Any]:
    """DVC's version, the default remote of the checkout in the current folder, and whether it answers."""
    import dvc
    from dvc.repo import Repo

    answer: dict[str, Any] = {"version": dvc.__version__}
    try:
        repo = Repo()
    except Exception as error:  # no checkout, no git, a damaged configuration: DVC's errors share no base
        return answer | {"broken": one_line(error)}
    with closing(repo):
        name = repo.config["core"].get("remote")
        answer["remote"] = name or ""
        if name:
            try:
                remote = repo.cloud.get_remote(name)
                answer["there"] = bool(remote.fs.exists(remote.path))
            except Exception as error:  # every kind of store has errors of its own
                answer["unreachable"] = one_line(error)
    return answer


def compose(*overrides: str) -> dict[str, Any]:
    """The parameters that `dvc exp run -S …` would write, from `conf/` of the current folder."""
    from dvc.utils.hydra import compose_and_dump

    from rtmpose.files import read_yaml

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "params.yaml"
        here = Path.cwd()
        compose_and_dump(out, str(here / "conf"), None, "config", str(here), list(overrides))
        return {"params": read_yaml(out)}


PROBES: dict[str, Callable[..., dict[str, Any]]] = {
    "torch": torch,
    "module": module,
    "ray": ray,
    "mlflow": mlflow,
    "dvc": dvc,
    "compose": compose,
}


def main(argv: list[str]) -> None:
    """Answer one question on stdout."""
    setup_environment()
    name, *arguments = argv
    try:
        answer = PROBES[name](*arguments)
    except (Exception, SystemExit) as error:  # whatever a library does when it is imported
        answer = {ERROR: one_line(error)}
    print(f"\n{json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
