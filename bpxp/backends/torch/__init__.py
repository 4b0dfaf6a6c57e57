"""PyTorch's tensors, on the CPU or CUDA."""
