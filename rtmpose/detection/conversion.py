"""RTMDet between PyTorch and ONNX: our export, and the weights of a file that others exported.

What we export computes boxes and scores, and leaves suppression outside: so every runtime can run it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from rtmpose.deploy.form import fold_norms
from rtmpose.deploy.graphs import save_graph, traced
from rtmpose.detection.graph import PROPERTY, DetectorCard
from rtmpose.detection.network import DESIGNS, LEAST, RTMDet
from rtmpose.files import UserError
from rtmpose.models import MEAN, STD
from rtmpose.provenance.sources import DataSource

OPSET = 18
OUTPUTS = ("boxes", "scores")


class Deployed(nn.Module):
    """A copy of the network with probabilities for logits. Norms are folded into their convolutions, but
    where levels share those: each would have to hold its own.
    """

    def __init__(self, network: RTMDet) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        for part in (self.network.backbone, self.network.neck):
            fold_norms(part)
        if not DESIGNS[network.size].shared:
            fold_norms(self.network.bbox_head)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, boxes = self.network(images)
        return boxes, logits.sigmoid()


def export_detector(
    network: RTMDet, path: Path, input_size: tuple[int, int], data: Sequence[DataSource] = ()
) -> Path:
    """Write a network as one ONNX file with a free batch dimension, which `open_detector` reads back. Its
    card says whose `data` is in it.

    Input `input` float32 (N, 3, H, W) RGB normalised, `input_size` (w, h) px. Outputs `boxes` (N, A, 4) xyxy
    px of the input and `scores` (N, A, C) of all A cells, before suppression. The file appears under `path`
    only when it is complete and `onnx.checker` accepts it. UserError for an input that is no multiple of 32.
    """
    if min(input_size) < LEAST or any(side % LEAST for side in input_size):
        width, height = input_size
        raise UserError(f"--input: a detector takes multiples of {LEAST} px, not {width}x{height}")
    card = DetectorCard(
        size=network.size,
        input_size=input_size,
        channels="rgb",
        mean=MEAN,
        std=STD,
        classes=tuple(["person", *(f"class {n}" for n in range(1, network.classes))]),
        data=tuple(data),
    )
    examples = [torch.zeros(2, 3, input_size[1], input_size[0])]
    graph = traced(Deployed(network), examples, ["input"], OUTPUTS, OPSET)
    onnx.helper.set_model_props(graph, {PROPERTY: json.dumps(card.model_dump(mode="json"))})
    return save_graph(graph, path)


def rtmdet_from_onnx(path: Path) -> RTMDet:
    """The network whose weights are in an ONNX file of RTMDet-nano, in evaluation mode.

    Exporters fold batch norm into the convolutions before it. Here the convolutions get the folded weights,
    and the norms the rest, a shift: the network computes what the file does. Before it is trained its norms
    want statistics: `with_statistics`. UserError for another network. (Of the larger sizes the levels share
    convolutions, which are no longer shared once norms are folded into them.)
    """
    convs, classes = _convolutions(path)
    network = RTMDet("nano", classes).eval()
    places = _in_order(network)
    fix = "give an exported RTMDet-nano, or a checkpoint (.pth) of another size"
    if len(places) != len(convs):
        raise UserError(f"{path}: has {len(convs)} convolutions, RTMDet-nano has {len(places)}; {fix}")
    for (name, conv, norm), (weight, bias) in zip(places, convs, strict=True):
        if conv.weight.shape != weight.shape or bias is None:
            raise UserError(
                f"{path}: its convolution for {name} is {weight.shape}, not {tuple(conv.weight.shape)} with "
                f"a bias; {fix}"
            )
        with torch.no_grad():
            conv.weight.copy_(torch.from_numpy(weight))
            if norm is not None:
                _set(norm, torch.from_numpy(bias))
            elif conv.bias is not None:
                conv.bias.copy_(torch.from_numpy(bias))
    return network


def _set(norm: nn.BatchNorm2d, shift: Tensor) -> None:
    """Make it the norm that adds `shift` (C,) and scales nothing, as if its input had mean 0 and variance
    1.
    """
    norm.reset_running_stats()
    norm.weight.fill_((1.0 + norm.eps) ** 0.5)
    norm.bias.copy_(shift)


@torch.no_grad()
def with_statistics(network: RTMDet, images: Iterable[Tensor]) -> RTMDet:
    """Give norms that only shift the statistics of what they see in `images`, batches (N, 3, H, W)
    normalised; the network computes the same as before, and can be trained.
    """
    norms = {module: _Moments() for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    hooks = [norm.register_forward_hook(moments.add) for norm, moments in norms.items()]
    network.eval()
    for batch in images:
        network(batch)
    for hook in hooks:
        hook.remove()
    for norm, moments in norms.items():
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        mean, variance = moments.read()
        shift = norm.bias - norm.running_mean * scale
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.bias.copy_(shift + mean * scale)
    return network


class _Moments:
    """Mean and variance (C,) of all that passes a layer."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        rows = inputs[0].transpose(0, 1).flatten(1).double()  # (C, NHW)
        self.count += rows.shape[1]
        self.total = self.total + rows.sum(1)
        self.squares = self.squares + rows.square().sum(1)

    def read(self) -> tuple[Tensor, Tensor]:
        mean = self.total / self.count
        return mean.float(), (self.squares / self.count - mean.square()).clamp_min(0.0).float()


Convolution = tuple[np.ndarray, np.ndarray | None]  # weight and bias


def _convolutions(path: Path) -> tuple[list[Convolution], int]:
    """The graph's convolutions in the order that they are computed in, and how many classes it has."""
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf's own classes, and the system's
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a complete ONNX model; fetch or export it again ({reason})") from None
    weights = {one.name: one for one in graph.initializer}
    same = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    head = next((one for name, one in weights.items() if name.endswith("bbox_head.rtm_cls.0.weight")), None)
    if head is None:
        raise UserError(f"{path}: has no weight bbox_head.rtm_cls.0.weight; give an exported RTMDet-nano")

    def value(name: str) -> np.ndarray:
        while name in same:
            name = same[name]
        if name not in weights:
            raise UserError(f"{path}: weight {name} is computed, not stored; give a file in float32")
        return np.array(numpy_helper.to_array(weights[name]), np.float32)

    parts = [[value(name) for name in node.input[1:]] for node in graph.node if node.op_type == "Conv"]
    return [(part[0], part[1] if len(part) > 1 else None) for part in parts], head.dims[0]


@contextmanager
def _watched(network: RTMDet) -> Iterator[list[nn.Conv2d]]:
    """The network's convolutions in the order that they are called in, once called."""
    called: list[nn.Conv2d] = []
    hooks = [
        module.register_forward_pre_hook(lambda layer, _: called.append(layer))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


def _in_order(network: RTMDet) -> list[tuple[str, nn.Conv2d, nn.BatchNorm2d | None]]:
    """Name, convolution and the norm behind it, in the order that they are computed in."""
    modules = dict(network.named_modules())
    names = {module: name for name, module in modules.items()}
    with _watched(network) as called, torch.inference_mode():
        network(torch.zeros(1, 3, LEAST, LEAST))
    holders = [modules[names[conv].rpartition(".")[0]] for conv in called]
    return [
        (names[conv], conv, getattr(holder, "bn", None)) for conv, holder in zip(called, holders, strict=True)
    ]
