"""tools/bench kernels: every operator of the C ABI, each set of ours against numpy's definition and PyTorch."""
