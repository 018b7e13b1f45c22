"""Child process: open the GPU, prove both storages right, print what it is. Exit 1 and "code message" when not."""

from __future__ import annotations

import sys
from typing import Final

from edge.errors import BackendError
from edge.reading.backends.cuda_kernels import open_gpu
from edge.reading.backends.cuda_proof import prove
from edge.reading.ops.shape import DecoderShape

SMALL: Final = DecoderShape(vocabulary=12, width=32, layers=2, heads=4, ffn=48, positions=8, channels=32)


def main() -> int:
    """0 when the GPU computes right."""
    try:
        gpu = open_gpu()
        for storage in ("f16", "i8"):
            prove(gpu, SMALL, storage)
    except BackendError as error:
        sys.stdout.write(f"{error.code} {' '.join(error.message.split())}\n")
        return 1
    sys.stdout.write(f"{gpu}\n")
    gpu.device.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
