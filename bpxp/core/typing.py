"""The types that the mathematics speaks of; an array and a namespace can be of any array library."""

from __future__ import annotations

from typing import Any

Array = Any
Namespace = Any
Params = tuple[Any, ...]  # a (named) tuple of arrays; () for a layer without parameters
Shape = tuple[int, ...]  # of one sample, without the batch
