"""Measurements of bpxp beside its peers: ``python -m benchmarks.mlp``, ``.imports``, ``.memory``, ``.gpu``."""
