from __future__ import annotations
import numpy as np
OTHER_KINDS=("noise",)
def make_other(kind: str, seed: int, size: int = 256): return np.zeros((size,size),np.float32)
