"""Which devices a run's workers may come to, and the one precision that all of them have."""

from __future__ import annotations

import os

from rtmpose.cluster.mistakes import as_value, raised
from rtmpose.cluster.session import joins_cluster, ray_cluster
from rtmpose.config import HardwareParams, Params, setup_environment
from rtmpose.files import UserError
from rtmpose.machine import Device, training_device
from rtmpose.precision import Chosen, announce, choose


def agreed_precision(stage: str, params: Params) -> Chosen:
    """What a stage computes in on every machine that its workers may come to, said as its first line."""
    chosen = choose(params, training_devices(params.hardware))
    announce(stage, chosen)
    return chosen


def training_devices(hardware: HardwareParams) -> list[Device]:
    """The device that trains on each machine with room for one of the workers: this one, or in a job all of
    the cluster's, whether a worker will come to them or not; so a run that is started again finds the same.

    A cluster that starts its machines when they are needed is asked for one. Machines that leave meanwhile
    are left out.
    """
    if not joins_cluster():
        return [training_device(hardware.gpus_per_worker > 0)]
    wanted = {"CPU": hardware.cpus_per_worker, "GPU": hardware.gpus_per_worker}
    with ray_cluster(1):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        fitting = [
            node["NodeID"]
            for node in ray.nodes()
            if node["Alive"]
            and all(node["Resources"].get(name, 0) >= amount for name, amount in wanted.items())
        ]
        # It reserves nothing, since other work may hold the machine, and its process ends with it: Ray would
        # have later tasks use it, which may be meant for other GPUs.
        ask = ray.remote(num_cpus=0, max_calls=1)(as_value)
        asked = [
            ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
            for node in fitting
        ] or [ask.options(num_cpus=wanted["CPU"], num_gpus=wanted["GPU"])]
        answers = [task.remote(_device_of_node, hardware.gpus_per_worker > 0) for task in asked]
        return [device for answer in answers if (device := _answer(answer)) is not None]


def _device_of_node(on_gpu: bool) -> Device:
    """What runs on each machine; Ray hides GPUs from a task that reserves none."""
    setup_environment()
    if not os.environ.get("CUDA_VISIBLE_DEVICES"):
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    return training_device(on_gpu)


def _answer(task: object) -> Device | None:
    """A machine's device; None where it has left the cluster meanwhile."""
    import ray

    try:
        ended: Device | UserError = ray.get(task)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError:
        return None
    return raised(ended)
