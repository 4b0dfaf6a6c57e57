"""Random numbers without hidden state: pure functions of integers, ``(seed, place)``.

Initial parameters and the order of the samples are drawn on the host from the raw bits of NumPy's Philox, mapped by
exact IEEE operations: the same on every backend, platform and NumPy version. Random numbers of a training step, such as
dropout masks, are drawn on the device: see `bpxp.core.threefry`.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from bpxp.core.threefry import Key, signed
from bpxp.errors import InvalidTypeError, InvalidValueError

Seed: TypeAlias = "int | np.random.SeedSequence | np.random.Generator | None"  # text: NumPy imports its `random` late

# The first integer of a place is the purpose, so that no two purposes share a stream.
INIT, ORDER, SPLIT, DIRECTION, MASK = 0, 1, 2, 3, 4


@dataclass(frozen=True)
class HostRandom:
    """A node in the tree of random streams: ``HostRandom(seed, (INIT, 0))`` initialises the first layer.

    References
    ----------
    Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC11 (Philox); NumPy's `SeedSequence` hashes the
    integers into the key.
    """

    seed: int
    place: tuple[int, ...] = ()

    def at(self, *place: int) -> HostRandom:
        """Return the stream of a place below this one."""
        return HostRandom(self.seed, self.place + place)

    def bits(self, size: int) -> np.ndarray:
        """Return `size` raw 64-bit words, dtype uint64."""
        # The place is the spawn key, not more entropy: otherwise a long seed could collide with another seed's place.
        sequence = np.random.SeedSequence(self.seed, spawn_key=self.place)
        return np.random.Philox(sequence).random_raw(size)

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Return float64 numbers, uniform in [low, high): 53 bits of each word."""
        u = (self.bits(math.prod(shape)) >> np.uint64(11)) * 2.0**-53
        return (low + (high - low) * u).reshape(shape)

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return standard normal float64 numbers by the Box-Muller transform.

        Logarithm and cosine are the C library's; their last bits may differ between platforms.
        """
        u1, u2 = self.uniform((2, math.prod(shape)))
        # 1 - u1 is in (0, 1]: the logarithm is finite.
        normal: np.ndarray = np.sqrt(-2.0 * np.log1p(-u1)) * np.cos(2.0 * np.pi * u2)
        return normal.reshape(shape)

    def zeros(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return float64 zeros, also drawn through the generator, so that subclasses can meter allocation."""
        return np.zeros(shape)

    def permutation(self, n: int) -> np.ndarray:
        """Return 0 … n-1 in random order, dtype int32: the stable argsort of raw words."""
        return np.argsort(self.bits(n), kind="stable").astype(np.int32)


def key_words(seed: int) -> tuple[int, int]:
    """Return the two words of the `Key` of a seed, as signed 32-bit integers."""
    low, high = np.random.SeedSequence(seed, spawn_key=(MASK,)).generate_state(2, np.uint32)
    return signed(int(low)), signed(int(high))


def make_key(seed: int, step: int = 0) -> Key:
    """Return the key of a seed and step in host arrays; ``tree_map(backend.asarray, make_key(0))`` moves it."""
    k0, k1, counter = (np.array([word], dtype=np.int32) for word in (*key_words(seed), step))
    return Key(k0, k1, counter)


def normalize_seed(seed: Seed, where: str = "Network(seed=…)") -> int:
    """Return a seed as one integer (SPEC 7).

    Parameters
    ----------
    seed : int, SeedSequence, Generator or None
        None draws 128 bits from the operating system. A Generator is consumed once.

    Raises
    ------
    InvalidTypeError
        For any other type, bool included.
    InvalidValueError
        For a negative integer.
    """
    if seed is None:
        return int.from_bytes(os.urandom(16), "little")
    if isinstance(seed, np.random.Generator):
        return int.from_bytes(seed.bytes(16), "little")
    if isinstance(seed, np.random.SeedSequence):
        return int.from_bytes(seed.generate_state(4).tobytes(), "little")
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)):
        got, expected = f"{type(seed).__name__} {seed!r}", "int, SeedSequence, Generator or None"
        raise InvalidTypeError(where, "not a seed", code="E001", got=got, expected=expected, fix="seed=0")
    if seed < 0:
        raise InvalidValueError(where, "a seed cannot be negative", code="E002", got=str(seed), expected=">= 0")
    return int(seed)
