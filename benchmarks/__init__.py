"""Measurements of bpxp beside its peers: ``python -m benchmarks`` on the CPU, ``python -m benchmarks.gpu`` on a GPU."""
