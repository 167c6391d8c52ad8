"""Batch norm synchronised between processes. PyTorch is enough for it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from gpu.scale import Result, Scale
from rtmpose.training.sync_bn import synchronise_batch_norm


def sync_bn(device: torch.device, scale: Scale) -> Result:
    """The largest differences of two processes' batch norm from one with the whole batch, relative to
    the largest value of each tensor where that is above 1.
    """
    backend = "nccl" if torch.cuda.device_count() > 1 else "gloo"  # NCCL wants a GPU for each process
    backend = backend if device.type == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as name:
        start_processes(_rank, (device.type, backend, name), nprocs=2, start_method="spawn")
        ranks = [torch.load(Path(name) / f"{rank}.pt", weights_only=True) for rank in range(2)]
    whole = _passes(_layer().to(device), *(rows.to(device) for rows in _batch()))
    found = {}
    for key, expected in whole.items():
        parts = [rank[key] for rank in ranks]
        if expected.ndim == 4:  # rows of the batch
            value = torch.cat(parts)
        else:  # a process's share of a gradient, or statistics that all have
            value = torch.stack(parts).sum(0) if key.startswith("gradient") else parts[0]
        expected = expected.cpu()
        found[key] = float((value - expected).abs().max() / expected.abs().max().clamp(min=1.0))
    worst = max(found.values())
    if not worst < 1e-4:
        raise AssertionError(f"synchronised batch norm is off by {found}")
    return {"backend": backend, "processes": 2, "max_diff": worst, "by_tensor": found}


def _layer() -> nn.BatchNorm2d:
    torch.manual_seed(1)
    layer = nn.BatchNorm2d(32, eps=1e-3, momentum=0.3)
    nn.init.normal_(layer.weight, 1.0)
    nn.init.normal_(layer.bias)
    return layer


def _batch() -> tuple[Tensor, Tensor]:
    """Inputs (8, 32, 12, 9) whose rows differ much, so that one process's statistics are wrong ones, and the
    output's gradient.
    """
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(8, 32, 12, 9, generator=generator) + torch.arange(8.0)[:, None, None, None]
    return x, torch.randn(8, 32, 12, 9, generator=generator)


def _passes(layer: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    output = layer(x)
    output.backward(grad)
    assert x.grad is not None
    gradients = {f"gradient of {key}": value.grad for key, value in layer.named_parameters()}
    assert all(value is not None for value in gradients.values())
    statistics = {key: value for key, value in layer.state_dict().items() if "running" in key}
    found = {"output": output, "input's gradient": x.grad, **gradients, **statistics}
    return {key: value.detach().clone() for key, value in found.items()}


def _rank(rank: int, kind: str, backend: str, folder: str) -> None:
    device = torch.device(kind, rank % torch.cuda.device_count()) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        layer = synchronise_batch_norm(_layer(), device).to(device)
        rows = slice(0, 5) if rank == 0 else slice(5, 8)  # unequal shares
        found = _passes(layer, *(part[rows].to(device) for part in _batch()))
        torch.save({key: value.cpu() for key, value in found.items()}, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
