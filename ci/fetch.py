"""Put a registered version into the checkout, so that it can be measured there.

`python -m ci.fetch cpu-x86 7` writes the files of version 7 into models/ and what was measured of it into
metrics/; params.yaml then names that target alone. `python -m ci.fetch 7` fetches only what was measured.
`python -m ci.fetch` only prints `name=…` and `version=…` of the candidate, to be added to $GITHUB_OUTPUT.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from rtmpose.config import Params, load_params, parse
from rtmpose.deploy.targets import load_target
from rtmpose.ending import run_command
from rtmpose.files import UserError, read_yaml, write_atomic
from rtmpose.tracking import models, runs
from rtmpose.tracking.answers import no_answer, reachable

PARAMS, MIX = Path("params.yaml"), Path("data/mix.json")
MODELS, METRICS = Path("models"), Path("metrics")
# A receipt without evaluation sets: the runtimes' outputs are then compared on noise.
NO_DATA = {"train": [{"dir": "data/none", "repeat": 1}], "tune": [{"dir": "data/none"}], "val": []}


def main(argv: list[str]) -> None:
    if len(argv) > 2:
        raise UserError("python -m ci.fetch: give a target and a version's number, that number, or nothing")
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise UserError("MLFLOW_TRACKING_URI: is not set; make it a secret of the repository")
    name = load_params().register_as.name
    if not argv:
        print(f"name={name}\nversion={candidate(name)}")
        return
    if len(argv) == 1:
        fetch_metrics(name, argv[0])
        print(f"what was measured of {name} version {argv[0]} is in {METRICS}/")
        return
    target, version = load_target(argv[0]), argv[1]
    models.version_files(name, version, MODELS)
    fetch_metrics(name, version)
    if not MIX.exists():
        write_atomic(MIX, json.dumps(NO_DATA) + "\n")
    write_params(target.name)
    print(f"{name} version {version} is in {MODELS}/, to be measured on {target.name}")


def candidate(name: str) -> str:
    """The number of the version that is the candidate; UserError where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return str(runs.client().get_model_version_by_alias(name, models.ALIAS).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise UserError(f"{name}: has no '{models.ALIAS}'; run the stage register first") from None
        raise no_answer(runs.tracking_uri(), error) from None


def fetch_metrics(name: str, version: str) -> None:
    """The stages' metrics, as `register` logged them into the version's run."""
    store = runs.client()
    with reachable(runs.tracking_uri()), tempfile.TemporaryDirectory() as folder:
        run_id = store.get_model_version(name, version).run_id
        for file in store.list_artifacts(run_id, METRICS.name):
            if file.path.endswith(".json"):
                found = Path(store.download_artifacts(run_id, file.path, folder))
                write_atomic(METRICS / found.name, found.read_bytes())


def write_params(target: str) -> None:
    """`targets` of params.yaml becomes this one: DVC makes a stage for each that stands there. Which targets
    a promotion requires is not asked where one is measured, and those named there would be none of `targets`.
    """
    import yaml

    content = read_yaml(PARAMS)
    content |= {"targets": [target], "promotion": content.get("promotion", {}) | {"targets": None}}
    parse(Params, content, PARAMS)
    write_atomic(PARAMS, yaml.safe_dump(content, sort_keys=False))


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
