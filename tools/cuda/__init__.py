"""Build, check and measure kernels/cuda."""
