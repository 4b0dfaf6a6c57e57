"""CuPy on CUDA."""
