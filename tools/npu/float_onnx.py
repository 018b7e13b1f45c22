"""The trained encoder as a float ONNX file, which is what the compilers of NPUs start from.

    .venv-train/bin/python -m tools.npu.float_onnx RUN_DIR OUT.onnx

Same names and order of outputs as the bundle's encoder.onnx; needs the environment of tools/train.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from edge.reading.backends import OUTPUTS
from models.export import Flat
from models.model import Encoder

SIZE = 256


def write(run: Path, out: Path) -> None:
    """run/encoder.pt -> out."""
    encoder = Encoder()
    encoder.load_state_dict(torch.load(run / "encoder.pt", weights_only=True))
    torch.onnx.export(
        Flat(encoder.eval()).eval(), (torch.zeros(1, 1, SIZE, SIZE),), str(out), input_names=["image"],
        output_names=list(OUTPUTS), opset_version=19, dynamo=False,
    )  # fmt: skip


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
