"""The network as a traced TorchScript program, for converters that read no ONNX, or read it wrongly."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch

from rtmpose.deploy.form import DeployNet, deploy_form
from rtmpose.deploy.runtimes.base import ModelFiles, NotPossible
from rtmpose.deploy.runtimes.pytorch import weights_in_network


def network_to_trace(files: ModelFiles, runtime: str) -> tuple[DeployNet, torch.Tensor]:
    """The network with its weights in the form that is exported, and one image (1, 3, H, W) of its size;
    NotPossible without weights.
    """
    if files.weights is None:
        raise NotPossible(
            f"{runtime} converts a traced network: give the weights that the file was exported from"
        )
    network = deploy_form(weights_in_network(files))
    width, height = network.input_size
    return network, torch.zeros(1, 3, height, width)


def traced(files: ModelFiles, runtime: str) -> torch.jit.ScriptModule:
    """The network, traced on one image."""
    network, example = network_to_trace(files, runtime)
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and some converters know nothing else
        program: torch.jit.ScriptModule = torch.jit.trace(network, example)
    return program


def save_traced(files: ModelFiles, runtime: str, path: Path) -> None:
    """Write the traced network; OSError where the disk does not take it. PyTorch's own writer may end the
    process then, so it writes into memory.
    """
    content = io.BytesIO()
    torch.jit.save(traced(files, runtime), content)
    path.write_bytes(content.getvalue())


def save_exported(files: ModelFiles, runtime: str, path: Path) -> None:
    """Write the network as `torch.export` has it, for one image; OSError as of `save_traced`."""
    network, example = network_to_trace(files, runtime)
    content = io.BytesIO()
    torch.export.save(torch.export.export(network, (example,)), content)
    path.write_bytes(content.getvalue())
