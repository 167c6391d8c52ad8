"""Batch norm between CPU workers is `nn.BatchNorm2d` on the whole batch: output, every gradient, every
buffer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtmpose.training.optim import parameter_groups
from rtmpose.training.sync_bn import SyncBatchNorm2d, synchronise_batch_norm
from tests.training.ranks import on_ranks, share

CASES = [(8, torch.float64), (7, torch.float64), (7, torch.float32)]  # rows of the batch; 7 divides unevenly


def layer(dtype: torch.dtype) -> nn.BatchNorm2d:
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(5, eps=1e-3, momentum=0.3).to(dtype)
    for value in (norm.weight, norm.bias, norm.running_mean):
        assert value is not None
        nn.init.normal_(value, 1.0)
    return norm


def data(rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Inputs (B, 5, 4, 3), whose rows differ much so that local statistics are wrong ones, and the output's
    gradient.
    """
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(rows, 5, 4, 3, generator=generator, dtype=torch.float64)
    x = x + 3.0 * torch.arange(rows)[:, None, None, None]
    return x.to(dtype), torch.randn(rows, 5, 4, 3, generator=generator, dtype=torch.float64).to(dtype)


def passes(norm: nn.BatchNorm2d, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """Two updates' passes in training, then one in evaluation."""
    result: dict[str, Tensor] = {}
    for name, factor in (("first", 1.0), ("second", 0.5)):
        given = (x * factor).to(memory_format=torch.channels_last).requires_grad_()
        norm.zero_grad()
        output = norm(given)
        output.backward(grad)
        assert given.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
        result |= {f"{name} output": output.detach(), f"{name} input's gradient": given.grad}
        result |= {
            f"{name} weight's gradient": norm.weight.grad.clone(),
            f"{name} bias's gradient": norm.bias.grad.clone(),
        }
    norm.eval()
    return (
        result
        | {"evaluation": norm(x).detach()}
        | {key: value.clone() for key, value in norm.state_dict().items()}
    )


def on_rank(rank: int, world: int) -> list[dict[str, Tensor]]:
    results = []
    for rows, dtype in CASES:
        norm = layer(dtype)
        before = norm.weight
        assert synchronise_batch_norm(norm, torch.device("cpu")) is norm and norm.weight is before
        assert type(norm) is SyncBatchNorm2d
        x, grad = data(rows, dtype)
        results.append(passes(norm, x[share(rows, rank, world)], grad[share(rows, rank, world)]))
    return results


@pytest.mark.parametrize("world", [2, 4])
def test_it_is_batch_norm_over_the_whole_batch(tmp_path: Path, world: int) -> None:
    ranks: list[Any] = on_ranks(world, tmp_path, on_rank)
    for case, (rows, dtype) in enumerate(CASES):
        expected = passes(layer(dtype), *data(rows, dtype))
        results = [rank[case] for rank in ranks]
        assert list(results[0]) == list(expected)
        tolerance = 1e-12 if dtype == torch.float64 else 2e-5
        for key, value in expected.items():
            parts = [result[key] for result in results]
            if value.ndim == 4:  # rows of the batch
                found = torch.cat(parts)
            elif "gradient" in key:  # a worker's share of the sum
                found = torch.stack(parts).sum(0)
            else:
                assert all(torch.equal(part, parts[0]) for part in parts), f"{key} differs between workers"
                found = parts[0]
            assert found.dtype == value.dtype
            torch.testing.assert_close(
                found, value, rtol=tolerance, atol=tolerance, msg=f"{key} differs from the whole batch's"
            )


def test_a_converted_network_keeps_keys_parameters_and_decay_groups() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    keys, parameters = list(model.state_dict()), list(model.parameters())
    converted = synchronise_batch_norm(model, torch.device("cpu"))
    assert list(converted.state_dict()) == keys
    assert all(ours is theirs for ours, theirs in zip(converted.parameters(), parameters, strict=True))
    decayed, free = parameter_groups(converted, 0.05)
    assert decayed["params"] == parameters[:1] and free["params"] == parameters[1:]
