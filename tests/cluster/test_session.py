"""The local Ray cluster beside others on the same machine."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import psutil
import pytest

from rtmpose.cluster import session
from rtmpose.cluster.session import joins_cluster, ray_cluster
from rtmpose.files import UserError

ANOTHER = """
import sys
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=100 << 20)
print("up", flush=True)
sys.stdin.read()
"""


def found_address() -> tuple[str, bool]:
    """The cluster that a worker's questions go to, as Ray's state API finds it, and whether the worker takes
    it for one that goes on without it.
    """
    from ray._private.services import canonicalize_bootstrap_address_or_die

    return str(canonicalize_bootstrap_address_or_die(None)), joins_cluster()


@pytest.mark.slow
def test_beside_another_cluster_workers_find_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    command = [sys.executable, "-c", ANOTHER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as another:
        assert another.stdin is not None and another.stdout is not None
        try:
            assert "up" in another.stdout.readline()
            with ray_cluster(1):
                import ray

                found = ray.get(ray.remote(num_cpus=1)(found_address).remote())
                assert found == (ray.get_runtime_context().gcs_address, True)
                assert not joins_cluster(), "this process still knows that it has started a cluster itself"
        finally:
            another.stdin.close()
            another.wait(60)


TAKEN = """
import os, socket
import ray
from rtmpose.cluster import session

holder, start = socket.socket(), session._start

def first_taken(options):
    session._start = start
    holder.bind(("", int(os.environ["RAY_GCS_SERVER_PORT"])))
    holder.listen()
    start(options)

session._start = first_taken
with session.ray_cluster(1):
    print(ray.get(ray.remote(lambda: 42).remote()))
"""


@pytest.mark.slow
def test_a_port_that_another_program_took_is_left_to_it() -> None:
    unset = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # Ray itself waits 40 s for a server that has ended.
    soon = {"RAY_py_gcs_connect_timeout_s": "3", "RAY_gcs_rpc_server_connect_timeout_s": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TAKEN], env=unset | soon, stdout=subprocess.PIPE, text=True, timeout=300
    )
    assert done.returncode == 0
    first, *_, last = done.stdout.splitlines()
    assert "trying again" in first and last == "42"


def fails_to_start(monkeypatch: pytest.MonkeyPatch, message: str) -> list[Any]:
    """The processes that each start of Ray leaves behind, which ends with this message."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    left: list[Any] = []

    def start(options: dict[str, Any]) -> None:
        left.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        raise RuntimeError(message)

    monkeypatch.setattr(session, "_start", start)
    return left


@pytest.mark.parametrize(
    "message",
    [
        "The current node timed out during startup. This could",
        "Failed to start GCS.  Last 1 lines",
        "Failed to connect to GCS. Please check if the GCS server is running",
        "Session name a does not match persisted value b",
    ],
)
def test_a_busy_machine_is_told_after_some_tries(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    left = fails_to_start(monkeypatch, message)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        with (
            pytest.raises(UserError, match="did not start in 3 tries: is this machine too busy"),
            ray_cluster(1),
        ):
            pytest.fail("there is no cluster")
        assert len(left) == session.STARTS
        assert not any(psutil.pid_exists(process.pid) for process in left), "what a start left runs on"
        assert other.poll() is None, "a process of somebody else was ended"
        other.communicate(b"\n")


def test_other_mistakes_of_a_start_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    left = fails_to_start(monkeypatch, "no such option")
    with pytest.raises(RuntimeError, match="no such option"), ray_cluster(1):
        pytest.fail("there is no cluster")
    assert len(left) == 1
    left[0].kill()
    left[0].wait()
