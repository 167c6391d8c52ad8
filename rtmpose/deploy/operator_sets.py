"""Which ONNX operators the consumers of ONNX files document, and where each list comes from.

Facts of other projects, taken from their documents at a version: they are out of date when those move on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class OperatorSet:
    """What a consumer documents: its operators, each with the newest version (the opset that defined it) that
    it takes, None for any; and what trying showed that the document does not say.
    """

    source: str
    newest: Mapping[str, int | None]
    tried: Mapping[str, str] = field(default_factory=dict)


def _up_to(**operators: str) -> dict[str, int | None]:
    """`v12="Add Mul"` → each operator with its newest version; `any` for no limit."""
    return {
        name: None if key == "any" else int(key.removeprefix("v"))
        for key, names in operators.items()
        for name in names.split()
    }


PPLNN_X86 = OperatorSet(
    "PPLNN x86 (OpenPPL/ppl.nn, docs/en/x86-doc/supported-ops-and-platforms.md, commit 05aa91a)",
    _up_to(
        v11="ArgMax Clip GatherND Max MaxPool Min Pow ReduceMax ReduceMin",
        v12="""
        Add Cast Ceil Concat DepthToSpace Div Equal Exp Expand Flatten Floor Gather Gemm Greater Identity
        If Less Log Loop MatMul Mul NonZero Pad ReduceMean ReduceProd ReduceSum Relu Reshape Resize
        ScatterElements ScatterND Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub Sum Tanh Tile
        Transpose Unsqueeze
        """,
        v13="BatchNormalization LSTM",
        v15="RoiAlign Where",
        v16="""
        And AveragePool Constant ConstantOfShape Conv ConvTranspose LeakyRelu MaxUnpool NonMaxSuppression
        Not PRelu Range SequenceAt SplitToSequence TopK
        """,
    ),
)

TENSORRT = OperatorSet(
    "TensorRT 8.4 (onnx/onnx-tensorrt, docs/operators.md, commit 009d654); newer ones take more",
    _up_to(
        any="""
        Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast
        Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace
        DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather
        GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
        GRU HardSigmoid Identity If ImageScaler InstanceNormalization IsNaN LeakyRelu Less LessOrEqual Log
        LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max MaxPool Mean Min Mul Neg
        NonMaxSuppression Not Or Pad ParametricSoftplus Pow PRelu QuantizeLinear RandomUniform
        RandomUniformLike Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
        ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RNN Round
        ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Sinh Size Slice
        Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile
        TopK Transpose Unsqueeze Upsample Where Xor
        """
    ),
)

RKNN = OperatorSet(
    "RKNN-Toolkit2 2.1.0 (airockchip/rknn-toolkit2, doc/RKNNToolKit2_OP_Support-v2.1.0.md, commit deaba85)",
    _up_to(
        v19="""
        Add And ArgMax ArgMin AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape
        Conv ConvTranspose Cos DepthToSpace DequantizeLinear Div Dropout Elu Equal Erf Exp Expand EyeLike
        Flatten Floor Gather GatherElements Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual
        GRU HardSigmoid HardSwish Identity If InstanceNormalization LayerNormalization LeakyRelu Less
        LessOrEqual Log LogSoftmax LpNormalization LRN LSTM MatMul Max MaxPool MaxRoiPool MaxUnpool
        MeanVarianceNormalization Min Mish Mod Mul Pad Pow PRelu QuantizeLinear ReduceMax ReduceMean
        ReduceMin ReduceSum Relu Reshape Resize ReverseSequence RoiAlign ScatterND Shape Sigmoid Sin Size
        Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze Where
        """
    ),
    dict.fromkeys(("Abs", "ReduceL2"), "RKNN-Toolkit2 2.5.0 converts it"),
)

MNN = OperatorSet(
    "MNN 3.6.1 (its converter's own list: mnnconvert -f ONNX --OP)",
    _up_to(
        any="""
        Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitShift
        Cast CastLike Ceil Celu Clip Compress Concat ConcatFromSequence Constant ConstantOfShape Conv
        ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear
        Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm
        GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample HardSigmoid
        HardSwish Identity If InstanceNormalization LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual
        Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool MaxRoiPool MaxUnpool Mean
        MeanVarianceNormalization Min Mod Mul Neg NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not
        OneHot Or PRelu Pad Pow QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform
        RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
        ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence
        RoiAlign Round STFT Scatter ScatterElements ScatterND Selu SequenceAt SequenceConstruct
        SequenceEmpty SequenceErase SequenceInsert SequenceLength Shape Shrink Sigmoid Sign Sin Sinh Size
        Slice Softmax SoftmaxCrossEntropyLoss Softplus Softsign SpaceToDepth Split SplitToSequence Sqrt
        Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where
        Xor
        """
    ),
    {"ReduceL2": "MNN 3.6.1 executes it wrongly"},
)

OPERATOR_SETS: Mapping[str, OperatorSet] = MappingProxyType(
    {"pplnn": PPLNN_X86, "tensorrt": TENSORRT, "rknn": RKNN, "mnn": MNN}
)
