"""The version of bpxp, as files and reports name it."""

__version__ = "0.1.0"
