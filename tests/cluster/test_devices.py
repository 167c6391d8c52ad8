"""On a Ray cluster of unlike machines: what each trains on, what all can, and workers' priority."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator

import pytest

from rtmpose.cluster import devices
from rtmpose.cluster.devices import agreed_precision, training_devices
from rtmpose.config import HardwareParams, load_params, setup_environment
from rtmpose.machine import Device, training_device
from tests.support import ROOT

CAP = "ONEDNN_MAX_CPU_ISA"


@pytest.fixture(scope="module")
def unlike() -> Iterator[str]:
    """The address of a cluster of three nodes on this machine: a head that has no room for workers, one as
    this machine is, and one that oneDNN takes for an AVX2 machine.
    """
    setup_environment()
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        cluster.add_node(num_cpus=1)
        cluster.add_node(num_cpus=2, env_vars={CAP: "AVX2"})
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.fixture
def joined(unlike: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", unlike)


def hardware(cpus: float) -> HardwareParams:
    return HardwareParams(workers=2, cpus_per_worker=cpus)


def niceness(_: bool) -> Device:
    """Stands for the question after a machine's device: how much nicer than us its workers are."""
    return Device("worker", str(os.nice(0)), bf16=False)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN's cap has these values on x86 alone")
def test_all_ranks_use_what_all_machines_have(joined: None, capsys: pytest.CaptureFixture[str]) -> None:
    found = training_devices(hardware(1))
    assert len(found) == 2, "the head has no room for a worker"
    old = next(device for device in found if CAP in device.kind)
    assert not old.bf16 and training_device(on_gpu=False) in found
    params = load_params(ROOT / "params.yaml").model_copy(update={"hardware": hardware(1)})
    assert agreed_precision("finetune", params).precision == "fp32"
    assert capsys.readouterr().out.startswith("finetune  fp32 on ")
    assert training_devices(hardware(2)) == [old], "the other has no room for such a worker"


@pytest.mark.slow
def test_workers_have_the_priority_of_whoever_started_ray(
    joined: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_device_of_node", niceness)
    assert {device.kind for device in training_devices(hardware(1))} == {str(os.nice(0))}


def test_alone_it_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert training_devices(HardwareParams()) == [training_device(on_gpu=False)]
