"""Post-training int8 for ExecuTorch, by PyTorch's PT2E, and for LiteRT, by its own quantizer; runs in their
environments: `python -I apart_program.py executorch|litert JSON`.

It imports nothing of `rtmpose`, which is not installed there. The JSON names `source`, the network as
`torch.export.save` wrote it for single images; `inputs`, an `.npy` of normalised images (N, 3, H, W) to
calibrate on; `target`, the file to write; and `kept_float`, the modules that stay in float.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

HEAVY = ("conv", "linear", "mm", "matmul")  # operators that must not be left to slow reference kernels
QUANTISED = r".*_(backbone|neck)/.*"  # modules, as LiteRT's tensors are named after them


def for_executorch(about: dict[str, Any]) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    model, example = quantized(about, quantizer)
    program = torch.export.export(model, example)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    refuse_left(lowered.exported_program().graph.nodes)
    with open(about["target"], "wb") as file:
        lowered.to_executorch().write_to_file(file)


def for_litert(about: dict[str, Any]) -> None:
    """The converter's own way over PT2E fails (litert-torch 0.10.0), so the float file is quantised."""
    import litert_torch
    from ai_edge_quantizer.quantizer import Quantizer

    inputs, floats = np.load(about["inputs"]), f"{about['target']}.float"
    network: Any = torch.export.load(about["source"]).module()
    network.train = lambda mode=True: network  # the converter calls eval(), which an exported program refuses
    litert_torch.convert(network, (torch.from_numpy(inputs[:1]),)).export(floats)
    quantizer = Quantizer(floats)
    quantizer.add_static_config(QUANTISED, "*", activation_num_bits=8, weight_num_bits=8)
    for module in about["kept_float"]:
        quantizer.update_quantization_recipe(scope(module), "*", algorithm_key="no_quantize")
    found = quantizer.calibrate({"serving_default": [{"args_0": image[None]} for image in inputs]})
    quantizer.quantize(found).export_model(about["target"])
    refuse_float(about["target"])


def scope(module: str) -> str:
    """What the names of LiteRT's tensors in a module match: `backbone.stage4` is in …_backbone/…_stage4/…"""
    return ".*" + "".join(f"_{re.escape(word)}/[^/]*" for word in module.split("."))


def refuse_left(nodes: Iterable[Any]) -> None:
    """RuntimeError where operators are left to slow reference kernels that XNNPACK should compute."""
    names = [str(node.target) for node in nodes if node.op == "call_function"]
    left = sorted({name for name in names if any(part in name for part in HEAVY)})
    if left:
        raise RuntimeError(f"XNNPACK does not take {', '.join(left)}")


def refuse_float(path: str) -> None:
    """RuntimeError where no convolution of a LiteRT file computes with int8 inputs and weights: the quantizer
    finds tensors by their names, and says nothing where it finds none.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate would stand for its operations
    interpreter = Interpreter(model_path=path, experimental_op_resolver_type=plain)
    types = {each["index"]: each["dtype"] for each in interpreter.get_tensor_details()}
    convolutions = [each for each in interpreter._get_ops_details() if "CONV" in each["op_name"]]
    if not any(all(types[index] == np.int8 for index in each["inputs"][:2]) for each in convolutions):
        raise RuntimeError(f"none of {len(convolutions)} convolutions is quantised to int8")


def quantized(about: dict[str, Any], quantizer: Any) -> tuple[Any, tuple[torch.Tensor]]:
    """The network in int8, calibrated, and an input of it."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    inputs = torch.from_numpy(np.load(about["inputs"]))
    keep_float(quantizer, about["kept_float"])
    prepared = prepare_pt2e(torch.export.load(about["source"]).module(), quantizer)
    for image in inputs.split(1):
        prepared(image)
    return convert_pt2e(prepared), (inputs[:1],)


def keep_float(quantizer: Any, modules: list[str]) -> None:
    """Take back what the quantizer notes at the operations of some modules: not every quantizer can be told
    to leave a module out.
    """
    annotate: Callable[[torch.fx.GraphModule], torch.fx.GraphModule] = quantizer.annotate

    def without(model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        noted = annotate(model)
        for node in noted.graph.nodes:
            if inside(node, modules):
                node.meta.pop("quantization_annotation", None)
        return noted

    quantizer.annotate = without


def inside(node: torch.fx.Node, modules: list[str]) -> bool:
    """Whether an operation was written in one of these modules, such as `head`, or below."""
    for path, _ in node.meta.get("nn_module_stack", {}).values():
        name = str(path).removeprefix("L['self'].")
        if any(name == module or name.startswith(f"{module}.") for module in modules):
            return True
    return False


if __name__ == "__main__":
    _, runtime, text = sys.argv
    {"executorch": for_executorch, "litert": for_litert}[runtime](json.loads(text))
