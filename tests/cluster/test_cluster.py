"""Which cluster a stage goes to, how a job is submitted, found again and followed, and the cluster examples
of the docs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from rtmpose.checkout import JOB_HOME, in_job
from rtmpose.cluster import submit
from rtmpose.cluster.session import joins_cluster
from rtmpose.config import HardwareParams, parse
from rtmpose.files import UserError, read_yaml
from tests.support import ROOT

SERVER = "http://10.0.0.10:8265"
EXAMPLES = ROOT / "docs/cluster"


class Status(str):
    """A job's status as Ray's own: a string that knows whether it is an end."""

    def is_terminal(self) -> bool:
        return self in ("SUCCEEDED", "FAILED", "STOPPED")


class Jobs:
    """A job server in memory: `ends` is how its jobs end, `log` what they print, in chunks."""

    def __init__(
        self, ends: str = "SUCCEEDED", log: tuple[str, ...] = ("one\n", "two\n"), running: bool = False
    ) -> None:
        self.ends, self.log, self.breaks = Status(ends), log, 0
        self.submitted: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self.agents_missing = 1  # a cluster that has just been started
        self.jobs = [self.job("finetune-abc-1", "RUNNING")] if running else []

    def job(self, name: str, status: str) -> SimpleNamespace:
        return SimpleNamespace(
            submission_id=name, status=Status(status), metadata={submit.RUN_KEY: "finetune-abc"}
        )

    def list_jobs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(submission_id=None, status=Status("RUNNING"), metadata=None), *self.jobs]

    def submit_job(self, **job: Any) -> str:
        if self.agents_missing:
            self.agents_missing -= 1
            raise RuntimeError("Request failed with status code 500: No available agent to submit job")
        self.submitted.append(job)
        return str(job["submission_id"])

    def stop_job(self, name: str) -> bool:
        self.stopped.append(name)
        return True

    def get_job_status(self, name: str) -> Status:
        return Status("STOPPED") if name in self.stopped else self.ends

    def get_job_info(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(
            status=self.ends, message="Job entrypoint command failed with exit code 2\nmore"
        )

    def get_job_logs(self, name: str) -> str:
        return "".join(self.log)

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        for index, text in enumerate(self.log):
            yield text
            if index < self.breaks:
                self.breaks = 0
                raise RuntimeError("WebSocket connection closed unexpectedly")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", JOB_HOME, submit.FRESH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(submit, "PAUSE", 0.0)


def run(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, fresh: bool = False) -> None:
    monkeypatch.setattr(submit, "connect", lambda server: jobs)
    submit.run_job("finetune", SERVER, "finetune-abc", fresh=fresh)


def test_job_is_submitted_with_its_environment_and_followed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = Jobs()
    monkeypatch.setenv("RTMPOSE_GIT_COMMIT", "0123abc")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@mlflow:5000")
    run(jobs, monkeypatch)
    (job,) = jobs.submitted
    assert job["entrypoint"] == "python -m pipelines.finetune" and job["submission_id"] == "finetune-abc-1"
    environment = job["runtime_env"]["env_vars"]
    assert environment["RTMPOSE_GIT_COMMIT"] == "0123abc" and environment[JOB_HOME] == str(Path.cwd())
    assert environment["MLFLOW_TRACKING_URI"] == "http://mlflow:5000" and submit.FRESH not in environment
    assert capsys.readouterr().out.endswith("one\ntwo\n")


def test_running_job_is_followed_and_a_forced_stage_replaces_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = Jobs(running=True)
    run(jobs, monkeypatch)
    assert not jobs.submitted and "following job finetune-abc-1" in capsys.readouterr().out
    run(jobs, monkeypatch, fresh=True)
    assert jobs.stopped == ["finetune-abc-1"] and jobs.submitted[0]["submission_id"] == "finetune-abc-2"
    assert jobs.submitted[0]["runtime_env"]["env_vars"][submit.FRESH] == "1"


def test_broken_connection_repeats_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = Jobs(log=("one\n", "two\n", "three\n"))
    jobs.breaks = 2
    jobs.ends = Status("SUCCEEDED")
    run(jobs, monkeypatch)
    captured = capsys.readouterr()
    assert captured.out.endswith("one\ntwo\nthree\n") and captured.out.count("one") == 1
    assert "closed unexpectedly; trying again" in captured.err


def test_job_that_its_server_forgot_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Jobs()

    def forgotten(name: str) -> Status:
        raise RuntimeError(f"Job {name} does not exist")

    monkeypatch.setattr(jobs, "get_job_status", forgotten)
    with pytest.raises(
        UserError, match=r"^job finetune-abc-1 is lost \(Job finetune-abc-1 does not exist\); run the stage"
    ):
        run(jobs, monkeypatch)


@pytest.mark.parametrize(
    ("ends", "log", "said"),
    [
        (
            "FAILED",
            ("start\n", "error: params.yaml: finetune.epochs: too few\n"),
            "failed: params.yaml: finetune.epochs: too few",
        ),
        ("FAILED", ("Traceback\n",), "failed: Job entrypoint command failed with exit code 2"),
        ("STOPPED", (), "was stopped; run the stage again to resume it"),
    ],
)
def test_job_that_does_not_succeed_is_one_line(
    ends: str, log: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=f"^job finetune-abc-1 {said}"):
        run(Jobs(ends, log), monkeypatch)


def test_interrupt_leaves_the_job_running(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Jobs()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(submit, "follow", interrupted)
    with pytest.raises(UserError, match=r"goes on without us.*ray job stop finetune-abc-1"):
        run(jobs, monkeypatch)
    assert not jobs.stopped


def test_server_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(server: str) -> None:
        raise ConnectionError(f"Failed to connect to Ray at address: {server}.")

    monkeypatch.setattr(submit, "connect", refused)
    with pytest.raises(
        UserError, match=r"^hardware\.jobs or RAY_ADDRESS: http://10\.0\.0\.10:8265: Failed to connect"
    ):
        submit.run_job("finetune", SERVER, "finetune-abc", fresh=False)


def test_where_a_stage_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    here, cluster = (
        HardwareParams(),
        parse(HardwareParams, read_yaml(ROOT / "conf/hardware/cluster.yaml"), Path("cluster.yaml")),
    )
    assert submit.job_server(here) is None and submit.job_server(cluster) == "http://127.0.0.1:8265"
    assert not joins_cluster() and not in_job()
    monkeypatch.setenv("RAY_ADDRESS", SERVER)
    assert submit.job_server(here) == SERVER and not joins_cluster()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.10:6379")
    assert submit.job_server(here) == "10.0.0.10:6379" and joins_cluster()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert submit.job_server(cluster) is None and joins_cluster()
    with pytest.raises(UserError, match=r"jobs 10\.0\.0\.10 must be a job server's URL"):
        parse(HardwareParams, {"jobs": "10.0.0.10"}, Path("params.yaml"))


def test_a_job_starts_anew_where_its_submitter_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert not submit.forced()
    monkeypatch.setenv(submit.FRESH, "1")
    assert submit.forced()


def test_upload_is_small_and_carries_what_a_job_reads(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    wanted = [
        "pipelines/finetune.py",
        "params.yaml",
        "data/mix.json",
        "models/pretrain.pt",
        "models/search.json",
    ]
    unwanted = ["data/shards/coco17/train/000.tar", "data/raw/coco/x.jpg", "runs/a/best.pt", "mlflow.db",
                "models/rtmpose.pt", ".dvc/cache/files/x", "docs/x.png", "tests/x.py"]  # fmt: skip
    for name in (*wanted, *unwanted):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".rayignore").write_bytes((ROOT / ".rayignore").read_bytes())
    package = tmp_path.parent / f"{tmp_path.name}.zip"
    create_package(str(tmp_path), package, include_gitignore=False)
    import zipfile

    names = [name for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")]
    assert sorted(name for name in names if name != ".rayignore") == sorted(wanted)


@pytest.mark.parametrize("name", ["ray-up-machines", "ray-up-aws"])
def test_ray_up_examples_pass_rays_own_validation(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(read_yaml(EXAMPLES / f"{name}.yaml"))
    validate_config(config)
    for part in ("head", "worker"):
        assert "RAY_AUTH_MODE=token" in config[f"{part}_start_ray_commands"][-1]


@pytest.mark.parametrize(("name", "kind"), [("kuberay-cluster", "RayCluster"), ("kuberay-job", "RayJob")])
def test_kuberay_examples_have_documented_fields(name: str, kind: str) -> None:
    """KubeRay's own part against the fields of its API reference that they use, pods against Kubernetes'
    schema.
    """
    import kubernetes_validate

    content = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    assert (content["apiVersion"], content["kind"]) == ("ray.io/v1", kind)
    spec = content["spec"]
    if kind == "RayJob":
        assert set(spec) <= {"entrypoint", "runtimeEnvYAML", "backoffLimit", "shutdownAfterJobFinishes",
                             "ttlSecondsAfterFinished", "rayClusterSpec"}  # fmt: skip
        assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"] == {"PYTHONPATH": "/shared/rtmpose"}
        spec = spec["rayClusterSpec"]
    assert set(spec) == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    pinned = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if '"ray[' in line)
    assert spec["rayVersion"] in pinned and spec["authOptions"] == {"mode": "token"}
    (group,) = spec["workerGroupSpecs"]
    assert set(spec["headGroupSpec"]) == {"rayStartParams", "template"}
    assert set(group) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    for pod in (spec["headGroupSpec"], group):
        assert all(isinstance(value, str) for value in pod["rayStartParams"].values())
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "ray"},
            "spec": pod["template"]["spec"],
        }
        kubernetes_validate.validate(manifest, "1.34", strict=True)
        (container,) = pod["template"]["spec"]["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["template"]["spec"]["volumes"]}
        assert container["resources"]["requests"] == container["resources"]["limits"]
