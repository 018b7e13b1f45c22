"""MobileNetV2 (Sandler et al., CVPR 2018, table 2), batch norm folded, started from the ImageNet int8 TFLite file.

The file's int8 weights are dequantised (scale per output channel, zero point 0) and its int32 biases carry the
folded batch norm, so the torch network below computes what the file computes, in float.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# expansion, output channels, repeats, stride of the first (table 2 of the paper)
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class Conv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding (for stride 2 and an even side: one line after, none before)."""

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size[0] == 3:
            x = F.pad(x, (0, 1, 0, 1) if self.stride[0] == 2 else (1, 1, 1, 1))
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 (no activation), residual where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = Conv(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = Conv(hidden, hidden, 3, stride, groups=hidden)
        self.project = Conv(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self.expand(x)) if self.expand is not None else x
        h = self.project(F.relu6(self.depthwise(h)))
        return x + h if self.residual else h


class MobileNetV2(nn.Module):
    """(B, 1, H, W) in [-1, 1] -> features at strides 8 (32 channels), 16 (96) and 32 (320).

    The grey image is the same in the three colour channels of the ImageNet network, so the stem's weights are
    summed over them once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(1, 32, 3, 2)
        blocks: list[nn.Module] = []
        channels = 32
        for expansion, outputs, repeats, stride in BLOCKS:
            for i in range(repeats):
                blocks.append(InvertedResidual(channels, outputs, stride if i == 0 else 1, expansion))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu6(self.stem(x))
        kept = []
        for i, block in enumerate(self.blocks):
            h = block(h)
            if i in (5, 12, 16):  # the last block at each of the strides 8, 16, 32
                kept.append(h)
        return kept[0], kept[1], kept[2]


def load_imagenet(model: MobileNetV2, path: Path) -> None:
    """Copy the dequantised weights of the TFLite file into `model`, in the file's order of operations."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    convolutions = [op for op in interpreter._get_ops_details() if op["op_name"].endswith("CONV_2D")]
    layers = [m for m in model.modules() if isinstance(m, Conv)]
    for layer, op in zip(layers, convolutions, strict=False):  # the file's last two (1280, 1001) are not used
        weight, bias = (_dequantise(interpreter, int(i)) for i in op["inputs"][1:3])
        weight = weight.transpose(3, 0, 1, 2) if op["op_name"].startswith("DEPTH") else weight.transpose(0, 3, 1, 2)
        if layer.in_channels == 1 and layer.groups == 1:
            weight = weight.sum(axis=1, keepdims=True)
        if tuple(weight.shape) != tuple(layer.weight.shape):
            raise ValueError(f"expected weights {tuple(layer.weight.shape)}, got {weight.shape}")
        layer.weight.data = torch.from_numpy(np.ascontiguousarray(weight))
        assert layer.bias is not None
        layer.bias.data = torch.from_numpy(bias)


def _dequantise(interpreter: object, index: int) -> np.ndarray:
    details = interpreter._get_tensor_details(index, 0)  # type: ignore[attr-defined]
    values = interpreter.get_tensor(index).astype(np.float32)  # type: ignore[attr-defined]
    quantization = details["quantization_parameters"]
    scales, axis = quantization["scales"], quantization["quantized_dimension"]
    shape = [1] * values.ndim
    shape[axis] = -1
    zero = quantization["zero_points"].reshape(shape) if len(scales) > 1 else quantization["zero_points"]
    return ((values - zero) * (scales.reshape(shape) if len(scales) > 1 else scales)).astype(np.float32)
