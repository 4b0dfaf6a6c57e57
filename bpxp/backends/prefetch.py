"""Double-buffered prefetch: a thread fills one half of a buffer with samples while the device reads the other half."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from bpxp.backends.base import Backend, option
from bpxp.core.typing import Array

DEVICE_BYTES = 32 << 20  # of a half on a device behind a bus, which is better with few large copies

Kinds = list[tuple[tuple[int, ...], np.dtype[Any]]]  # of each array: the shape of one row, and the dtype


class Prefetch(Protocol):
    """Arrays on the device that hold two halves of `rows` rows each, and the way of each half from the host to there.

    The halves have the numbers 0 and 1. The order of calls for one of them: host_buffer, start, wait, release.
    """

    def host_buffer(self, half: int) -> list[np.ndarray]:
        """Return the host memory for the rows of a half, once the last copy from it is done."""

    def start(self, half: int) -> None:
        """Start the copy to the device, where it waits for the steps that still read the half."""

    def wait(self, half: int) -> list[Array]:
        """Return the arrays that hold the half; what the device is given from now on waits for the copy."""

    def release(self, half: int) -> None:
        """Declare that all the steps that read the half have been given to the device."""


class SharedPrefetch:
    """For a device that computes in the host's memory, when it is called: rows are written where steps read them.

    `share` makes an array of the library from one of NumPy, in the same memory.
    """

    def __init__(self, kinds: Kinds, rows: int, share: Callable[[np.ndarray], Array]) -> None:
        self.rows = rows
        self._host = [np.zeros((2 * rows, *shape), dtype) for shape, dtype in kinds]
        self._arrays = [share(a) for a in self._host]

    def host_buffer(self, half: int) -> list[np.ndarray]:
        return [a[half * self.rows : (half + 1) * self.rows] for a in self._host]

    def start(self, half: int) -> None:
        pass

    def wait(self, half: int) -> list[Array]:
        return self._arrays

    def release(self, half: int) -> None:
        pass


class CopiedPrefetch:
    """For a library that does not write into arrays: each half comes in new arrays.

    `copy` brings an array of NumPy to the device. It may keep the memory, which is not used again.
    """

    def __init__(self, kinds: Kinds, rows: int, copy: Callable[[np.ndarray], Array]) -> None:
        self.kinds, self.rows, self.copy = kinds, rows, copy
        self._host: dict[int, list[np.ndarray]] = {}
        self._arrays: dict[int, list[Array]] = {}

    def host_buffer(self, half: int) -> list[np.ndarray]:
        self._host[half] = [np.zeros((self.rows, *shape), dtype) for shape, dtype in self.kinds]
        return self._host[half]

    def start(self, half: int) -> None:
        self._arrays[half] = [self.copy(a) for a in self._host.pop(half)]

    def wait(self, half: int) -> list[Array]:
        return self._arrays[half]

    def release(self, half: int) -> None:
        pass


class Cuda(Protocol):
    """The calls of a CUDA library that a prefetch needs, all of them for one device."""

    def current(self) -> contextlib.AbstractContextManager[Any]:
        """Make the device the current one of the thread."""

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Return zeros in pinned memory of the host: an array of NumPy, or a tensor."""

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return zeros on the device."""

    def stream(self) -> Any:
        """Return a new stream that does not wait for the default stream."""

    def event(self) -> Any:
        """Return a new event."""

    def current_stream(self) -> Any:
        """Return the stream of the steps."""

    def copy(self, into: Array, pinned: Any, stream: Any) -> None:
        """Enqueue a copy in a stream."""


class PinnedPrefetch:
    """For a CUDA device: two halves in pinned memory, two on the device, and a stream of their own for the copies.

    Each half has two events. *Copied*: the host may write into the pinned memory again, and the steps may begin.
    *Read*: the steps have read it, and the next copy may begin. An event that was never recorded delays nothing.
    """

    def __init__(self, kinds: Kinds, rows: int, cuda: Cuda) -> None:
        self.rows, self.cuda = rows, cuda
        with cuda.current():
            self._host = [cuda.pinned((2 * rows, *shape), dtype) for shape, dtype in kinds]
            self._arrays = [cuda.zeros((2 * rows, *shape), dtype) for shape, dtype in kinds]
            self._stream = cuda.stream()
            self._copied, self._read = ([cuda.event(), cuda.event()] for _ in range(2))
            cuda.current_stream().synchronize()  # the arrays are filled with zeros there

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # of an object that is half made, or when the interpreter exits
            self._stream.synchronize()  # a copy must not outlive its memory

    def _part(self, half: int) -> slice:
        return slice(half * self.rows, (half + 1) * self.rows)

    def host_buffer(self, half: int) -> list[np.ndarray]:
        with self.cuda.current():
            self._copied[half].synchronize()
        return [np.asarray(a[self._part(half)]) for a in self._host]

    def start(self, half: int) -> None:
        part = self._part(half)
        with self.cuda.current():
            self._stream.wait_event(self._read[half])
            for into, pinned in zip(self._arrays, self._host, strict=True):
                self.cuda.copy(into[part], pinned[part], self._stream)
            self._copied[half].record(self._stream)

    def wait(self, half: int) -> list[Array]:
        with self.cuda.current():
            self.cuda.current_stream().wait_event(self._copied[half])
        return self._arrays

    def release(self, half: int) -> None:
        with self.cuda.current():
            self._read[half].record(self.cuda.current_stream())


def make_prefetch(backend: Backend, kinds: Kinds, rows: int) -> Prefetch:
    """Return the prefetch of a backend; one that has none of its own gets each half by `asarray`."""
    own: Callable[[Kinds, int], Prefetch] | None = option(backend, "prefetch")
    return CopiedPrefetch(kinds, rows, backend.asarray) if own is None else own(kinds, rows)
