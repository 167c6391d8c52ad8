"""The local Ray cluster beside others on the same machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rtmpose.cluster.session import joins_cluster, ray_cluster

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
